"""Solr: weights as float payloads of terms, scored by their sum, each times the query's weight.

Solr has no sparse vectors. A payload keeps a float whole, so nothing is rounded but sums. The query's weight has to
be a function's (``boost``): an ordinary ``^`` is lost on ``payload_score``, which does not look at it without a span
score.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sparse_sts_index.data.fields import microseconds, plain_fields
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Or
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

_TYPE, _TERMS, _TEXT, _VECTOR, _JSON = "sparse_sts_terms", "sts_terms", "sts_text", "sts_vector", "sts_fields"
_PREFIX = "sts_field_"  # of the fields that can be filtered by
_MICROSECONDS = "sts_microseconds_"  # since 1970, of dates: Solr's keep milliseconds

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
_CLASSES = {
    "keyword": "StrField",
    "keywords": "StrField",
    "number": "DoublePointField",
    "date": "DatePointField",
    "boolean": "BoolField",
    "microseconds": "LongPointField",
}
_RANGES = {"=": "[{0} TO {0}]", "<": "[* TO {0}}}", "<=": "[* TO {0}]", ">": "{{{0} TO *]", ">=": "[{0} TO *]"}


def _kept(name: str) -> dict[str, Any]:
    return {"name": name, "type": "string", "indexed": False, "stored": True, "docValues": False, "multiValued": False}


def _filtered(name: str, type_: str) -> dict[str, Any]:
    kept = {"indexed": True, "stored": False, "docValues": True, "useDocValuesAsStored": False}
    return {"name": name, "type": f"sparse_sts_{type_}", **kept, "multiValued": type_ == "keywords"}


def schema(metadata: Metadata) -> dict[str, list[dict[str, Any]]]:
    """Commands for the Schema API."""
    terms = {"name": _TERMS, "type": _TYPE, "indexed": True, "stored": False, "multiValued": False}
    types, fields = [_FIELD_TYPE], [terms, _kept(_TEXT), _kept(_VECTOR)]
    if metadata.fields:
        dates = [name for name, type_ in metadata.fields.items() if type_ == "date"]
        used = [*sorted(set(metadata.fields.values())), *(["microseconds"] if dates else [])]
        types += [{"name": f"sparse_sts_{type_}", "class": f"solr.{_CLASSES[type_]}"} for type_ in used]
        fields += [_kept(_JSON), *(_filtered(f"{_PREFIX}{name}", type_) for name, type_ in metadata.fields.items())]
        fields += [_filtered(f"{_MICROSECONDS}{name}", "microseconds") for name in dates]
    return {"add-field-type": types, "add-field": fields}


def property_command(metadata: Metadata) -> dict[str, Any]:
    """The command for the Config API that keeps the metadata."""
    return {"set-user-property": {METADATA_KEY: metadata.to_json()}}


def document(point: Point, terms: Sequence[str]) -> dict[str, Any]:
    """A document as Solr indexes it."""
    pairs = zip(point.vector.terms, point.vector.weights, strict=True)
    weighted = " ".join(f"{terms[term]}{DELIMITER}{weight:.9g}" for term, weight in pairs)
    values: dict[str, Any] = {"id": point.id, _TEXT: point.text, _TERMS: weighted, _VECTOR: pack(point.vector)}
    if point.fields:
        plain = plain_fields(point.fields)
        values[_JSON] = json.dumps(plain, ensure_ascii=False)
        for name, value in point.fields.items():
            values[f"{_PREFIX}{name}"] = plain[name]
            if isinstance(value, datetime):
                values[f"{_PREFIX}{name}"] = plain[name].replace("+00:00", "Z")  # Solr knows no other zone
                values[f"{_MICROSECONDS}{name}"] = microseconds(value)
    return values


def record(point: Point, terms: Sequence[str]) -> str:
    """A document as a line of JSON."""
    return json.dumps(document(point, terms), ensure_ascii=False)


class _Filters:
    """Collect the parts of a filter as request parameters, one query per parameter."""

    def __init__(self) -> None:
        self.request: dict[str, str] = {}

    def add(self, query: str) -> str:
        """Keep a query, or a text; return what refers to it."""
        name = f"f{len(self.request)}"
        self.request[name] = query
        return f"${name}"

    def query(self, where: Filter) -> str:
        match where:
            case Compare(name, "=", str() | bool() as value):
                text = value if isinstance(value, str) else json.dumps(value)
                return f"{{!term f={_PREFIX}{name} v={self.add(text)}}}"
            case Compare(name, operator, datetime() as moment):
                return f"{_MICROSECONDS}{name}:{_RANGES[operator].format(microseconds(moment))}"
            case Compare(name, operator, value):
                return f"{_PREFIX}{name}:{_RANGES[operator].format(repr(value))}"
            case In(name, values):
                return self.query(Or(tuple(Compare(name, "=", value) for value in values)))
            case Exists(name):
                return f"{_PREFIX}{name}:*"
            case Not(part):
                return f"{{!bool must=*:* must_not={self.add(self.query(part))}}}"
            case And(parts):
                return self._bool("must", parts, "*:*")
            case Or(parts):
                return self._bool("should", parts, "-*:*")
        raise ValueError(f"{type(where).__name__} is no filter")

    def _bool(self, occur: str, parts: Sequence[Filter], empty: str) -> str:
        clauses = [f"{occur}={self.add(self.query(part))}" for part in parts]
        return "{!bool " + " ".join(clauses) + "}" if clauses else empty


def parameters(vector: Vector, limit: int, terms: Sequence[str], where: Filter | None = None) -> dict[str, str]:
    """Return a request whose scores are dot products; a filter takes no part in them.

    Terms and values are parameters of their own, so that none is parsed; nor is ``${...}`` in one replaced.
    """
    numbers = range(len(vector.terms))
    request = {
        "q": "{!bool " + " ".join(f"should=$q{n}" for n in numbers) + "}",
        "fl": f"id,{_TEXT},{_VECTOR},{_JSON},score",
        "rows": str(limit),
        "expandMacros": "false",
        "shards.tolerant": "false",
    }
    for n, term, weight in zip(numbers, vector.terms, vector.weights, strict=True):
        score = f"{{!payload_score f={_TERMS} func=sum includeSpanScore=false v=$t{n}}}"
        request[f"q{n}"] = f"{{!boost b={weight:.9g}}}{score}"
        request[f"t{n}"] = terms[term]
    if where is not None:
        filters = _Filters()
        request["fq"] = filters.query(where)
        request |= filters.request
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
            there, wanted = self._ask("schema")["schema"], schema(metadata)
            types = {field_type["name"] for field_type in there["fieldTypes"]}
            fields = {field["name"]: field["type"] for field in there["fields"]}
            commands = {
                "add-field-type": [type_ for type_ in wanted["add-field-type"] if type_["name"] not in types],
                "add-field": [field for field in wanted["add-field"] if field["name"] not in fields],
                "replace-field": [
                    field for field in wanted["add-field"] if fields.get(field["name"], field["type"]) != field["type"]
                ],
            }
            if any(commands.values()):
                self._ask("schema", {name: values for name, values in commands.items() if values})
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

    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        """A search for each query, of all shards."""
        return [self._search(parameters(query, limit, terms, where)) for query in queries]

    def _search(self, request: dict[str, str]) -> list[Found]:
        with self._calling():
            answer = self._client.search(**request)
        if answer.raw_response["responseHeader"].get("partialResults"):
            raise Busy(f"{self.target}: not all of it was searched")
        return [_found(hit) for hit in answer.docs]

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


def _found(hit: Any) -> Found:
    fields = json.loads(hit[_JSON]) if _JSON in hit else {}
    return Found(Point(hit["id"], hit[_TEXT], unpack(hit[_VECTOR]), fields), hit["score"])
