"""Elasticsearch and OpenSearch: weights in Lucene's ``FeatureField``, scored by its linear function.

Elasticsearch has ``sparse_vector`` for that, whose query takes the whole vector; OpenSearch ``rank_features``, asked
term by term. Either way Lucene adds up query weight times stored weight. Elasticsearch would leave light terms out of
a query unless told not to; it is told so in the mapping and in each query. The float weights travel along in
``_source``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import numpy as np

from sparse_sts_index.data.fields import FieldType, microseconds, plain_fields
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Or
from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.backends.terms import FEATURE_ERROR, escape, feature_weights
from sparse_sts_index.engines.base import (
    BOUNDS,
    METADATA_KEY,
    RETRYABLE,
    Busy,
    Engine,
    Found,
    Metadata,
    Point,
    Vector,
)
from sparse_sts_index.errors import EngineError

_LONGEST_ID = 512  # bytes of an _id
_HASHED = "sha256:"
TERMS_FIELD, _VECTOR = "terms", "vector"
_MICROSECONDS = "microseconds"  # since 1970, of dates: those of the engines keep milliseconds
_SOURCE = ["id", "text", _VECTOR, "fields"]
_TYPES: dict[FieldType, str] = {
    "keyword": "keyword",
    "keywords": "keyword",
    "number": "double",
    "date": "date",
    "boolean": "boolean",
}


def key(doc_id: str) -> str:
    """The ``_id`` of a document: its own, or a digest where that is too long or looks like a digest."""
    encoded = doc_id.encode()
    if len(encoded) <= _LONGEST_ID and not doc_id.startswith(_HASHED):
        return doc_id
    return _HASHED + hashlib.sha256(encoded).hexdigest()


def document(point: Point, terms: Sequence[str]) -> dict[str, Any]:
    """The source of a document."""
    weights = feature_weights(np.array(point.vector.weights, np.float32)).tolist()
    features = {escape(terms[term]): weight for term, weight in zip(point.vector.terms, weights, strict=True)}
    source = {"id": point.id, "text": point.text, TERMS_FIELD: features, _VECTOR: pack(point.vector)}
    if point.fields:
        source["fields"] = plain_fields(point.fields)
        dates = {name: microseconds(value) for name, value in point.fields.items() if isinstance(value, datetime)}
        source |= {_MICROSECONDS: dates} if dates else {}
    return source


def bulk_record(point: Point, terms: Sequence[str]) -> str:
    """A document as two lines of a bulk request."""
    action = {"index": {"_id": key(point.id)}}
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in (action, document(point, terms)))


def condition(where: Filter) -> dict[str, Any]:
    """Write a filter as both have it."""
    match where:
        case Compare(name, operator, datetime() as moment):
            bound = microseconds(moment)
            return {"range": {f"{_MICROSECONDS}.{name}": dict.fromkeys(BOUNDS[operator], bound)}}
        case Compare(name, "=", value):
            return {"term": {f"fields.{name}": {"value": value}}}
        case Compare(name, operator, value):
            return {"range": {f"fields.{name}": dict.fromkeys(BOUNDS[operator], value)}}
        case In(name, values):
            return {"terms": {f"fields.{name}": list(values)}}
        case Exists(name):
            return {"exists": {"field": f"fields.{name}"}}
        case Not(part):
            return {"bool": {"must_not": [condition(part)]}}
        case And(parts):
            return {"bool": {"filter": [condition(part) for part in parts]}} if parts else {"match_all": {}}
        case Or(parts):
            if not parts:
                return {"match_none": {}}
            return {"bool": {"should": [condition(part) for part in parts], "minimum_should_match": 1}}
    raise ValueError(f"{type(where).__name__} is no filter")


class FeatureEngine(Engine):
    """What both have in common."""

    stored_error = FEATURE_ERROR
    max_hits = 10_000  # index.max_result_window
    features: ClassVar[dict[str, Any]]  # the mapping of the field that is searched
    _client: Any

    @classmethod
    def mapping(cls, metadata: Metadata) -> dict[str, Any]:
        """The body that creates the index."""
        properties: dict[str, Any] = {
            "id": {"type": "keyword", "index": False, "doc_values": False},
            "text": {"type": "text"},
            TERMS_FIELD: cls.features,
            _VECTOR: {"type": "binary"},
        }
        if metadata.fields:
            properties["fields"] = {
                "properties": {name: {"type": _TYPES[kind]} for name, kind in metadata.fields.items()}
            }
        if dates := [name for name, kind in metadata.fields.items() if kind == "date"]:
            properties[_MICROSECONDS] = {"properties": {name: {"type": "long"} for name in dates}}
        meta = {METADATA_KEY: metadata.to_json()}
        return {"mappings": {"dynamic": "strict", "_meta": meta, "properties": properties}}

    @staticmethod
    @abstractmethod
    def query(vector: Vector, terms: Sequence[str]) -> dict[str, Any]:
        """The query whose score is the dot product."""

    @classmethod
    def request(cls, vector: Vector, limit: int, terms: Sequence[str], where: Filter | None = None) -> dict[str, Any]:
        """Return the body of a search; a filter takes no part in scores."""
        query = cls.query(vector, terms)
        if where is not None:
            query = {"bool": {"must": [query], "filter": [condition(where)]}}
        return {"query": query, "size": limit, "_source": _SOURCE, "track_total_hits": False}

    @abstractmethod
    def _calling(self) -> contextlib.AbstractContextManager[None]:
        """Turns what the client raises into :class:`.Busy` and ``EngineError``."""

    def metadata(self) -> Metadata | None:
        """Of the index's mapping."""
        with self._calling():
            if not self._client.indices.exists(index=self.target.name):
                return None
            found = list(self._client.indices.get_mapping(index=self.target.name).values())
        if len(found) != 1:
            raise EngineError(f"{self.target} is {len(found)} indices")
        return Metadata.from_json(found[0]["mappings"].get("_meta", {}).get(METADATA_KEY), self.target)

    def check(self, metadata: Metadata) -> None:
        """Refuse names that are paths to the engine, where they lead nowhere or through one another."""
        for name in metadata.fields:
            parts = name.split(".")
            above = {".".join(parts[:end]) for end in range(1, len(parts))} & metadata.fields.keys()
            if "" in parts or above:
                why = f"and {min(above)} is a field" if above else "with nothing between its dots"
                raise EngineError(f"{self.name} takes the field's name {name} for a path, {why}: give it another name")

    def create(self, metadata: Metadata) -> None:
        """Make the index."""
        with self._calling():
            self._client.indices.create(index=self.target.name, body=self.mapping(metadata))

    def drop(self) -> None:
        """Delete the index."""
        with self._calling():
            self._client.indices.delete(index=self.target.name)

    def write(self, points: Sequence[Point], terms: Sequence[str]) -> None:
        """One bulk request; what is refused for now is said to be left, and anything else raises."""
        lines = [line for point in points for line in ({"index": {"_id": key(point.id)}}, document(point, terms))]
        with self._calling():
            items = self._client.bulk(index=self.target.name, body=lines)["items"]
        left, reason = [], ""
        for point, item in zip(points, items, strict=True):
            outcome = item["index"]
            if outcome["status"] < 300:
                continue
            error = outcome.get("error", {})
            reason = f"{error.get('type')}: {error.get('reason')}"
            if outcome["status"] not in RETRYABLE:
                raise EngineError(f"{self.target}: document {point.id!r} is refused: {reason}")
            left.append(point)
        if left:
            raise Busy(f"{self.target}: {len(left)} documents refused: {reason}", left=left)

    def flush(self) -> None:
        """Refresh the index."""
        with self._calling():
            self._client.indices.refresh(index=self.target.name)

    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        """A search for each query, of all shards."""
        return [self._search(self.request(query, limit, terms, where)) for query in queries]

    def _search(self, body: dict[str, Any]) -> list[Found]:
        with self._calling():
            answer = self._client.search(index=self.target.name, body=body, allow_partial_search_results=False)
        if answer.get("timed_out") or answer.get("_shards", {}).get("failed"):
            raise Busy(f"{self.target}: not all shards have answered")
        sources = ((hit["_source"], hit["_score"]) for hit in answer["hits"]["hits"])
        return [
            Found(Point(s["id"], s["text"], unpack(s[_VECTOR]), s.get("fields", {})), score) for s, score in sources
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
