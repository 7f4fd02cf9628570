"""Qdrant, and its client's local mode: a sparse vector in float32, scored by dot product, always exactly."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from sparse_sts_index.data.fields import FieldType, plain_fields, plain_value
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Or
from sparse_sts_index.engines.base import (
    BOUNDS,
    METADATA_KEY,
    RETRYABLE,
    TIMEOUT,
    Busy,
    Engine,
    Found,
    Metadata,
    Point,
    Vector,
    load_client,
    seconds_to_wait,
    unreachable,
)
from sparse_sts_index.engines.target import Target
from sparse_sts_index.errors import EngineError

#: Qdrant's ids are UUIDs; that of a document is made of its own.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "sparse-sts-index")
_VECTOR = "vector"
_INDEXES: dict[FieldType, str] = {
    "keyword": "keyword",
    "keywords": "keyword",
    "number": "float",
    "date": "datetime",
    "boolean": "bool",
}


def key(doc_id: str) -> str:
    """The point id of a document, a UUID of version 5."""
    return str(uuid.uuid5(_NAMESPACE, doc_id))


def creation(metadata: Metadata) -> dict[str, Any]:
    """The body of a request that creates the collection."""
    return {
        "vectors": {},
        "sparse_vectors": {_VECTOR: {"index": {"datatype": "float32"}}},
        "metadata": {METADATA_KEY: metadata.to_json()},
    }


def payload_indexes(metadata: Metadata) -> list[dict[str, str]]:
    """Return the bodies of requests that make filters fast, one for each field."""
    return [{"field_name": _path(name), "field_schema": _INDEXES[type_]} for name, type_ in metadata.fields.items()]


def point_body(point: Point) -> dict[str, Any]:
    """A document as Qdrant holds it."""
    vector = {"indices": point.vector.terms, "values": point.vector.weights}
    payload: dict[str, Any] = {"id": point.id, "text": point.text}
    if point.fields:
        payload["fields"] = plain_fields(point.fields)
    return {"id": key(point.id), "vector": {_VECTOR: vector}, "payload": payload}


def _path(name: str) -> str:
    return f"fields.{name}" if re.fullmatch(r"\w+", name, re.ASCII) else f'fields."{name}"'


def condition(where: Filter) -> dict[str, Any]:
    """Write a filter as Qdrant has it."""
    match where:
        case Compare(name, "=", str() | bool() as value):
            return {"key": _path(name), "match": {"value": value}}
        case Compare(name, operator, value):
            return {"key": _path(name), "range": dict.fromkeys(BOUNDS[operator], plain_value(value))}
        case In(_, ()) | Or(()):
            return {"must": [{"has_id": []}]}
        case In(name, values):
            return {"key": _path(name), "match": {"any": list(values)}}
        case Exists(name):
            return {"must_not": [{"is_empty": {"key": _path(name)}}]}
        case Not(part):
            return {"must_not": [condition(part)]}
        case And(parts):
            return {"must": [condition(part) for part in parts]}
        case Or(parts):
            return {"should": [condition(part) for part in parts]}
    raise ValueError(f"{type(where).__name__} is no filter")


def record(point: Point, terms: Sequence[str]) -> str:
    """A document as a part of an upsert's body."""
    return json.dumps(point_body(point), ensure_ascii=False)


class Qdrant(Engine):
    """A collection of a Qdrant server, or of the client's local mode in a folder."""

    name = "qdrant"
    max_hits = 65_536

    def __init__(self, target: Target, token: str | None) -> None:
        super().__init__(target)
        self._indexes: list[dict[str, str]] = []  # since the metadata were read
        self._api = load_client("qdrant_client", "qdrant-client", self.name)
        self._models = self._api.models
        self._invalid_url = load_client("httpx", "qdrant-client", self.name).InvalidURL
        with self._calling():
            if target.user:
                raise EngineError(f"{target}: Qdrant takes a token, not a user")
            if target.local:
                self._client = self._api.QdrantClient(path=target.base)
            else:
                self._client = self._api.QdrantClient(
                    url=target.base, api_key=token, timeout=TIMEOUT, check_compatibility=False
                )

    def metadata(self) -> Metadata | None:
        """Of the collection."""
        with self._calling():
            if not self._client.collection_exists(self.target.name):
                return None
            held = self._client.get_collection(self.target.name).config.metadata or {}
        metadata = Metadata.from_json(held.get(METADATA_KEY), self.target)
        self._indexes = payload_indexes(metadata)
        return metadata

    def create(self, metadata: Metadata) -> None:
        """Make the collection."""
        body, models = creation(metadata), self._models
        sparse = {name: models.SparseVectorParams(**values) for name, values in body["sparse_vectors"].items()}
        with self._calling():
            self._client.create_collection(
                self.target.name,
                vectors_config=body["vectors"],
                sparse_vectors_config=sparse,
                metadata=body["metadata"],
            )
        self._indexes = payload_indexes(metadata)

    def drop(self) -> None:
        """Delete the collection."""
        with self._calling():
            self._client.delete_collection(self.target.name)

    def write(self, points: Sequence[Point], terms: Sequence[str]) -> None:
        """One upsert, waited for."""
        structs = [self._models.PointStruct(**point_body(point)) for point in points]
        with self._calling():
            self._client.upsert(self.target.name, structs, wait=True)

    def flush(self) -> None:
        """See to it that there are indexes of the payload, which takes nothing where they are there already."""
        with self._calling():
            for index in [] if self.target.local else self._indexes:
                self._client.create_payload_index(self.target.name, **index, wait=True)

    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        """One request for all queries."""
        models = self._models
        chosen = None if where is None else models.Filter(must=[condition(where)])
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=query.terms, values=query.weights),
                using=_VECTOR,
                filter=chosen,
                limit=limit,
                with_payload=True,
                with_vector=[_VECTOR],
            )
            for query in queries
        ]
        with self._calling():
            answers = self._client.query_batch_points(self.target.name, requests)
        return [[_found(hit) for hit in answer.points] for answer in answers]

    def close(self) -> None:
        """Close the connections, or the files."""
        self._client.close()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        clients = self._api.common.client_exceptions
        http = self._api.http.exceptions
        try:
            yield
        except clients.ResourceExhaustedResponse as error:
            raise Busy(f"{self.target}: HTTP 429: {error.message}", float(error.retry_after_s)) from error
        except http.UnexpectedResponse as error:
            content = error.content.decode(errors="replace")
            message = f"{self.target}: HTTP {error.status_code}: {content[:300]}"
            if error.status_code in RETRYABLE:
                raise Busy(message, seconds_to_wait(error.headers.get("retry-after"))) from error
            raise EngineError(message) from error
        except http.ResponseHandlingException as error:
            raise unreachable(f"{self.target}: {error.source}", error) from error
        except (self._invalid_url, RuntimeError, ValueError, OSError) as error:  # RuntimeError: the folder is in use
            raise EngineError(f"{self.target}: {error}") from error


def _found(hit: Any) -> Found:
    vector = hit.vector[_VECTOR]
    ascending = sorted(zip(vector.indices, vector.values, strict=True))
    terms, weights = [term for term, _ in ascending], [weight for _, weight in ascending]
    payload = hit.payload
    return Found(Point(payload["id"], payload["text"], Vector(terms, weights), payload.get("fields", {})), hit.score)
