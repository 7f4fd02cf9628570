"""Solr: weights as float payloads of terms, scored by their sum, each times the query's weight.

Solr has no sparse vectors. A payload keeps a float whole, so nothing is rounded but sums. The query's weight has to
be a function's (``boost``): an ordinary ``^`` is lost on ``payload_score``, which does not look at it without a span
score.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.base import (
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
from sparse_sts_index.vectors.vocabulary import DELIMITER

_TYPE, _TERMS, _TEXT, _VECTOR = "sparse_sts_terms", "sts_terms", "sts_text", "sts_vector"

_FIELD_TYPE: dict[str, Any] = {
    "name": _TYPE,
    "class": "solr.TextField",
    "omitNorms": True,
    "indexAnalyzer": {
        "tokenizer": {"name": "whitespace"},
        "filters": [{"name": "delimitedPayload", "encoder": "float", "delimiter": DELIMITER}],
    },
    "queryAnalyzer": {"tokenizer": {"name": "keyword"}},
}
_FIELDS: list[dict[str, Any]] = [
    {"name": _TERMS, "type": _TYPE, "indexed": True, "stored": False, "multiValued": False},
    *(
        {"name": name, "type": "string", "indexed": False, "stored": True, "docValues": False, "multiValued": False}
        for name in (_TEXT, _VECTOR)
    ),
]


def schema() -> dict[str, Any]:
    """Commands for the Schema API."""
    return {"add-field-type": _FIELD_TYPE, "add-field": _FIELDS}


def property_command(metadata: Metadata) -> dict[str, Any]:
    """The command for the Config API that keeps the metadata."""
    return {"set-user-property": {METADATA_KEY: metadata.to_json()}}


def document(point: Point, terms: Sequence[str]) -> dict[str, str]:
    """A document as Solr indexes it."""
    pairs = zip(point.vector.terms, point.vector.weights, strict=True)
    weighted = " ".join(f"{terms[term]}{DELIMITER}{weight:.9g}" for term, weight in pairs)
    return {"id": point.id, _TEXT: point.text, _TERMS: weighted, _VECTOR: pack(point.vector)}


def record(point: Point, terms: Sequence[str]) -> str:
    """A document as a line of JSON."""
    return json.dumps(document(point, terms), ensure_ascii=False)


def parameters(vector: Vector, limit: int, terms: Sequence[str]) -> dict[str, str]:
    """A request whose scores are dot products.

    Terms are parameters of their own, so that none is parsed; nor is ``${...}`` in one replaced.
    """
    numbers = range(len(vector.terms))
    request = {
        "q": "{!bool " + " ".join(f"should=$q{n}" for n in numbers) + "}",
        "fl": f"id,{_TEXT},{_VECTOR},score",
        "rows": str(limit),
        "expandMacros": "false",
        "shards.tolerant": "false",
    }
    for n, term, weight in zip(numbers, vector.terms, vector.weights, strict=True):
        score = f"{{!payload_score f={_TERMS} func=sum includeSpanScore=false v=$t{n}}}"
        request[f"q{n}"] = f"{{!boost b={weight:.9g}}}{score}"
        request[f"t{n}"] = terms[term]
    return request


class Solr(Engine):
    """A Solr collection or core, which has to be there: Solr needs to know more of it than we do."""

    name = "solr"
    max_hits = 10_000

    def __init__(self, target: Target, token: str | None) -> None:
        super().__init__(target)
        self._api = load_client("pysolr", "pysolr", self.name)
        session = self._session_class(load_client("requests", "requests", self.name))()
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        elif target.user:
            session.auth = (target.user, target.password)
        self._session, self._base = session, f"{target.base}/{quote(target.name, safe='')}"
        self._client = self._api.Solr(self._base, timeout=TIMEOUT, session=session)
        self._status: int | None = None
        self._retry_after: str | None = None

    def metadata(self) -> Metadata | None:
        """Of the collection's user properties; None for a collection without documents and metadata."""
        with self._calling():
            properties = self._ask("config/overlay")["overlay"].get("userProps", {})
            if METADATA_KEY not in properties and self._client.search("*:*", rows=0).hits == 0:
                return None
        return Metadata.from_json(properties.get(METADATA_KEY), self.target)

    def create(self, metadata: Metadata) -> None:
        """Add what is missing to the schema, and keep the metadata."""
        with self._calling():
            there = self._ask("schema")["schema"]
            types = {field_type["name"] for field_type in there["fieldTypes"]}
            fields = {field["name"] for field in there["fields"]}
            commands: dict[str, Any] = {"add-field": [field for field in _FIELDS if field["name"] not in fields]}
            if _TYPE not in types:
                commands = {"add-field-type": _FIELD_TYPE, **commands}
            if _TYPE not in types or commands["add-field"]:
                self._ask("schema", commands)
            self._ask("config", property_command(metadata))

    def drop(self) -> None:
        """Delete all documents, and the metadata; the collection and its schema stay."""
        with self._calling():
            self._client.delete(q="*:*", commit=True)
            self._ask("config", {"unset-user-property": METADATA_KEY})

    def write(self, points: Sequence[Point], terms: Sequence[str]) -> None:
        """One update request."""
        with self._calling():
            self._client.add([document(point, terms) for point in points], commit=False)

    def flush(self) -> None:
        """Commit."""
        with self._calling():
            self._client.commit()

    def search(self, queries: Sequence[Vector], limit: int, terms: Sequence[str]) -> list[list[Found]]:
        """A search for each query, of all shards."""
        return [self._search(query, limit, terms) for query in queries]

    def _search(self, query: Vector, limit: int, terms: Sequence[str]) -> list[Found]:
        with self._calling():
            answer = self._client.search(**parameters(query, limit, terms))
        if answer.raw_response["responseHeader"].get("partialResults"):
            raise Busy(f"{self.target}: not all of it was searched")
        return [Found(Point(hit["id"], hit[_TEXT], unpack(hit[_VECTOR])), hit["score"]) for hit in answer.docs]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _ask(self, path: str, command: dict[str, Any] | None = None) -> Any:
        """What pysolr has no method for: read a resource or, with a command, change it."""
        url = f"{self._base}/{path}"
        if command is None:
            response = self._session.get(url, params={"wt": "json"}, timeout=TIMEOUT)
        else:
            response = self._session.post(url, json=command, timeout=TIMEOUT)
        response.raise_for_status()
        return response.json()

    def _session_class(self, requests: Any) -> Any:
        """Sessions that note how the last request was answered, if it was."""
        engine = self

        class Session(requests.Session):  # type: ignore[misc]
            def request(self, *args: Any, **kwargs: Any) -> Any:
                engine._status = engine._retry_after = None
                response = super().request(*args, **kwargs)
                engine._status, engine._retry_after = response.status_code, response.headers.get("Retry-After")
                return response

        return Session

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Turn what pysolr and requests raise into ours; the answer to the last request, if any, says what it is."""
        self._status = self._retry_after = None
        try:
            yield
        except (self._api.SolrError, OSError, ValueError, LookupError) as error:  # requests' errors are OSErrors
            if self._status == 404:
                raise EngineError(
                    f"{self.target}: no such collection; make it first: bin/solr create -c NAME"
                ) from error
            if self._status is None:
                raise unreachable(f"{self.target}: {error}", error) from error
            if self._status in RETRYABLE:
                raise Busy(f"{self.target}: {error}", seconds_to_wait(self._retry_after)) from error
            raise EngineError(f"{self.target}: {error}") from error
