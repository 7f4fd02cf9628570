"""Milvus and Milvus Lite: a sparse float vector with an exact inverted index by inner product.

The client waits and tries again by itself where a server is busy: for as long as a call may take, if that is said, and
75 times if it is not. So it is said wherever there is no work that could take longer.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sparse_sts_index.data.fields import FieldType, FieldValue, microseconds, plain_fields
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Operator, Or
from sparse_sts_index.engines.base import (
    METADATA_KEY,
    TIMEOUT,
    Engine,
    Found,
    Metadata,
    Point,
    Vector,
    load_client,
)
from sparse_sts_index.engines.target import Target
from sparse_sts_index.errors import EngineError

_LONGEST = 65_535  # bytes of a VARCHAR
_FIELDS: list[dict[str, Any]] = [
    {"fieldName": "id", "dataType": "VarChar", "isPrimary": True, "elementTypeParams": {"max_length": _LONGEST}},
    {"fieldName": "text", "dataType": "VarChar", "elementTypeParams": {"max_length": _LONGEST}},
    {"fieldName": "vector", "dataType": "SparseFloatVector"},
]
_JSON = {"fieldName": "fields", "dataType": "JSON"}  # if documents have fields
_DATE = ":us"  # after the name of a date, in the JSON of the fields: its microseconds since 1970, which compare
_OPPOSITES: dict[Operator, str] = {"=": "!=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_INDEX = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
_SEARCH = {"metric_type": "IP", "params": {"drop_ratio_search": 0.0}}  # no term is left out


def row(point: Point) -> dict[str, Any]:
    """A document as Milvus holds it.

    Raises
    ------
    EngineError
        Its text or its fields do not fit.
    """
    if len(point.text.encode()) > _LONGEST:
        raise EngineError(f"document {point.id!r}: its text is longer than the {_LONGEST:,} bytes that Milvus holds")
    vector = dict(zip(point.vector.terms, point.vector.weights, strict=True))
    values: dict[str, Any] = {"id": point.id, "text": point.text, "vector": vector}
    if point.fields is None:
        return values
    dates = {f"{n}{_DATE}": microseconds(value) for n, value in point.fields.items() if isinstance(value, datetime)}
    values["fields"] = plain_fields(point.fields) | dates
    if len(json.dumps(values["fields"], ensure_ascii=False).encode()) > _LONGEST:
        raise EngineError(f"document {point.id!r}: its fields are longer than the {_LONGEST:,} bytes that Milvus holds")
    return values


def expression(where: Filter, types: Mapping[str, FieldType], negated: bool = False) -> str:
    """Write a filter, or what does not pass it, as Milvus has it.

    A negation is that of single conditions: a comparison with what a document does not have is unknown to Milvus Lite,
    and so would be its negation.
    """
    match where:
        case Not(part):
            return expression(part, types, not negated)
        case And(parts) | Or(parts):
            every = isinstance(where, And) is not negated
            each = [f"({expression(part, types, negated)})" for part in parts]
            return (" and " if every else " or ").join(each) or _everything(every)
        case In(name, values):
            return expression(Or(tuple(Compare(name, "=", value) for value in values)), types, negated)
        case Exists(name):
            return f"{'not ' * negated}exists {_path(name)}"
        case Compare(name, _, value) if types[name] == "keywords":
            contains = f"json_contains({_path(name)}, {_literal(value)})"
            return f"not exists {_path(name)} or not {contains}" if negated else contains
        case Compare(name, operator, value):
            path = _path(f"{name}{_DATE}" if types[name] == "date" else name)
            if negated:
                return f"not exists {path} or {path} {_OPPOSITES[operator]} {_literal(value)}"
            return f"{path} {'==' if operator == '=' else operator} {_literal(value)}"
    raise ValueError(f"{type(where).__name__} is no filter")


def _everything(does: bool) -> str:
    return 'id != ""' if does else 'id == ""'  # no id is empty


def _path(key: str) -> str:
    return f'fields["{key}"]'


def _literal(value: FieldValue) -> str:
    return json.dumps(microseconds(value) if isinstance(value, datetime) else value, ensure_ascii=False)


def record(point: Point, terms: Sequence[str]) -> str:
    """A document as a row of an import file."""
    return json.dumps(row(point), ensure_ascii=False)


def creation(metadata: Metadata) -> dict[str, Any]:
    """The body of a request to ``/v2/vectordb/collections/create``, but for the collection's name."""
    fields = [*_FIELDS, _JSON] if metadata.fields else _FIELDS
    index = {"fieldName": "vector", "indexName": "vector", "metricType": "IP"}
    return {
        "schema": {"autoID": False, "enableDynamicField": False, "fields": fields},
        "indexParams": [{**index, "params": {"index_type": _INDEX["index_type"]}}],
    }


def properties(metadata: Metadata) -> dict[str, Any]:
    """That of one to ``/v2/vectordb/collections/alter_properties``; a creation over HTTP takes none."""
    return {"properties": {METADATA_KEY: metadata.to_json()}}


class Milvus(Engine):
    """A collection of a Milvus server, or of Milvus Lite in a file."""

    name = "milvus"
    max_hits = 16_384

    def __init__(self, target: Target, token: str | None) -> None:
        super().__init__(target)
        self._api = load_client("pymilvus", "pymilvus", self.name)
        self._rpc_error = load_client("grpc", "grpcio", self.name).RpcError
        self._loaded = False
        self._types: Mapping[str, FieldType] = {}  # since the metadata were read
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs whatever it raises as well, with a traceback
        with self._calling():
            if target.local:
                if not Path(target.base).parent.is_dir():
                    raise EngineError(f"{target}: no folder {Path(target.base).parent}")
                if not target.base.endswith(".db"):
                    raise EngineError(f"{target}: the file of Milvus Lite has to end in .db")
                load_client("milvus_lite", "milvus-lite", self.name)
                self._client = self._api.MilvusClient(target.base)
            else:
                self._client = self._api.MilvusClient(
                    uri=target.base, user=target.user, password=target.password, token=token or "", timeout=TIMEOUT
                )

    def metadata(self) -> Metadata | None:
        """Of the collection's properties."""
        with self._calling():
            if not self._client.has_collection(self.target.name, timeout=TIMEOUT):
                return None
            properties = self._client.describe_collection(self.target.name, timeout=TIMEOUT).get("properties", {})
        metadata = Metadata.from_json(properties.get(METADATA_KEY), self.target)
        self._types = metadata.fields
        return metadata

    def create(self, metadata: Metadata) -> None:
        """Make the collection and its index, and load it."""
        types = self._api.DataType
        with self._calling():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", types.VARCHAR, is_primary=True, max_length=_LONGEST)
            schema.add_field("text", types.VARCHAR, max_length=_LONGEST)
            schema.add_field("vector", types.SPARSE_FLOAT_VECTOR)
            if metadata.fields:
                schema.add_field("fields", types.JSON)
            index = self._client.prepare_index_params()
            index.add_index(field_name="vector", **_INDEX)
            self._client.create_collection(
                self.target.name, schema=schema, index_params=index, timeout=TIMEOUT, **properties(metadata)
            )

    def drop(self) -> None:
        """Drop the collection."""
        with self._calling():
            self._client.drop_collection(self.target.name, timeout=TIMEOUT)

    def write(self, points: Sequence[Point], terms: Sequence[str]) -> None:
        """One upsert."""
        with self._calling():
            self._client.upsert(self.target.name, data=[row(point) for point in points], timeout=TIMEOUT)

    def flush(self) -> None:
        """Make it durable; visible it is already."""
        with self._calling():
            self._client.flush(self.target.name)

    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        """One request for all queries, of everything written so far."""
        with self._calling():
            if not self._loaded:  # Milvus Lite forgets that between processes
                self._client.load_collection(self.target.name)
                self._loaded = True
            found = self._client.search(
                self.target.name,
                data=[dict(zip(query.terms, query.weights, strict=True)) for query in queries],
                anns_field="vector",
                limit=limit,
                filter="" if where is None else expression(where, self._types),
                output_fields=["id", "text", "vector", *(["fields"] if self._types else [])],
                search_params=_SEARCH,
                consistency_level="Strong",
                timeout=TIMEOUT,
            )
            return [[_found(hit) for hit in hits] for hits in found]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            yield
        except (self._api.MilvusException, ValueError, TypeError, OSError) as error:
            raise EngineError(f"{self.target}: {getattr(error, 'message', None) or error}") from error
        except self._rpc_error as error:  # which the client lets through where it does not try again
            raise EngineError(f"{self.target}: {error.code().name}: {error.details()}") from error


def _found(hit: Any) -> Found:
    entity = hit["entity"]
    vector = sorted(entity["vector"].items())
    terms, weights = [term for term, _ in vector], [weight for _, weight in vector]
    fields = {name: value for name, value in entity.get("fields", {}).items() if not name.endswith(_DATE)}
    return Found(Point(entity["id"], entity["text"], Vector(terms, weights), fields), hit["distance"])
