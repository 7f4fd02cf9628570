"""A server in this process that the clients of Elasticsearch, OpenSearch and Solr can talk to; it is no engine."""

from __future__ import annotations

import json
import operator
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sparse_sts_index.vectors.vocabulary import DELIMITER

Answer = tuple[int, Any, dict[str, str]]


class Server:
    """Enough of Elasticsearch, OpenSearch and Solr."""

    def __init__(self) -> None:
        self.mapping: dict[str, Any] | None = None
        self.solr_properties: dict[str, str] = {}
        self.solr_schema: dict[str, list[dict[str, Any]]] = {
            "fieldTypes": [],
            "fields": [{"name": "id", "type": "string"}],
        }
        self.documents: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.trouble: list[Any] = []  # answers to the next writes: (status, headers), or "some" for items refused
        self.lost: list[str] = []  # methods and paths of which the next request is carried out, but not answered
        self.shards_failed = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                status, content, headers = outer.answer(self.command, self.path, dict(self.headers), body)
                if (request := f"{self.command} {urlsplit(self.path).path}") in outer.lost:
                    outer.lost.remove(request)
                    self.close_connection = True
                    return
                payload = json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, engine: str, credentials: str = "") -> str:
        path = "/solr/glosses" if engine == "solr" else "/glosses"
        return f"{engine}+http://{credentials}127.0.0.1:{self.http.server_port}{path}"

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> Answer:
        parts = urlsplit(path)
        self.requests.append((method, path, headers, body))
        if parts.path.startswith("/solr/glosses/"):
            return self.solr(method, parts.path.removeprefix("/solr/glosses/"), parts.query, body)
        return self.elastic(method, parts.path, parts.query, body)

    def refused(self) -> Answer | None:
        if self.trouble and self.trouble[0] != "some":
            status, headers = self.trouble.pop(0)
            return status, {"error": {"type": "too_many", "reason": "later"}, "status": status}, headers
        return None

    def elastic(self, method: str, path: str, query: str, body: str) -> Answer:
        match method, path:
            case "HEAD", "/glosses":
                return (200 if self.mapping else 404), {}, {}
            case "GET", "/glosses/_mapping":
                return 200, {"glosses-000001": self.mapping}, {}
            case "PUT", "/glosses" if self.mapping:
                return 400, {"error": {"type": "resource_already_exists_exception"}, "status": 400}, {}
            case "PUT", "/glosses":
                self.mapping = json.loads(body)
                return 200, {"acknowledged": True, "index": "glosses"}, {}
            case "DELETE", "/glosses" if not self.mapping:
                return 404, {"error": {"type": "index_not_found_exception"}, "status": 404}, {}
            case "DELETE", "/glosses":
                self.mapping, self.documents = None, {}
                return 200, {"acknowledged": True}, {}
            case "POST", "/glosses/_refresh":
                return 200, {"_shards": {"failed": 0}}, {}
            case (("POST" | "PUT"), "/glosses/_bulk"):
                return self.refused() or (200, {"errors": True, "items": list(self.bulk(body))}, {})
            case "POST", "/glosses/_search":
                assert "allow_partial_search_results=false" in query
                return 200, self.search(json.loads(body)), {}
        raise AssertionError((method, path))

    def bulk(self, body: str) -> Iterator[dict[str, Any]]:
        lines = [json.loads(line) for line in body.splitlines()]
        some = bool(self.trouble) and self.trouble.pop(0) == "some"
        for number, (action, source) in enumerate(zip(lines[::2], lines[1::2], strict=True)):
            doc_id = action["index"]["_id"]
            if some and number % 3 == 0:
                error = {"type": "es_rejected_execution_exception", "reason": "queue full"}
                yield {"index": {"_id": doc_id, "status": 429, "error": error}}
            elif doc_id == "bad":
                yield {"index": {"_id": doc_id, "status": 400, "error": {"type": "mapper", "reason": "no"}}}
            else:
                self.documents[doc_id] = source
                yield {"index": {"_id": doc_id, "status": 201}}

    def search(self, request: dict[str, Any]) -> dict[str, Any]:
        query, conditions = request["query"], []
        if "must" in query.get("bool", {}):
            conditions, (query,) = query["bool"]["filter"], query["bool"]["must"]
        if "sparse_vector" in query:
            assert query["sparse_vector"]["prune"] is False
            weights = query["sparse_vector"]["query_vector"]
        else:
            asked = [clause["rank_feature"] for clause in query["bool"]["should"]]
            weights = {clause["field"].split(".")[1]: clause["boost"] for clause in asked}
        scored = [
            (sum(weights.get(name, 0.0) * weight for name, weight in source["terms"].items()), source)
            for source in self.documents.values()
            if all(self.passes(condition, source) for condition in conditions)
        ]
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[: request["size"]]
        hits = [{"_score": score, "_source": {f: s[f] for f in request["_source"] if f in s}} for score, s in best]
        return {"timed_out": False, "_shards": {"failed": self.shards_failed}, "hits": {"hits": hits}}

    def passes(self, condition: dict[str, Any], source: dict[str, Any]) -> bool:
        """Return whether a document passes, as Elasticsearch's reference defines each condition."""
        ((kind, body),) = condition.items()
        if kind == "bool":
            assert body.get("minimum_should_match", 1) == 1
            return (
                all(self.passes(part, source) for part in body.get("filter", []))
                and not any(self.passes(part, source) for part in body.get("must_not", []))
                and ("should" not in body or any(self.passes(part, source) for part in body["should"]))
            )
        if kind in ("match_all", "match_none"):
            return kind == "match_all"
        path, wanted = (body["field"], None) if kind == "exists" else next(iter(body.items()))
        within, _, name = path.partition(".")
        assert self.mapping is not None
        type_ = self.mapping["mappings"]["properties"][within]["properties"][name]["type"]
        given = source.get(within, {}).get(name)
        held = [] if given is None else given if isinstance(given, list) else [given]
        if kind == "exists":
            return bool(held)
        if kind == "terms":
            return any(value in wanted for value in held)
        if kind == "term":
            assert type_ != "date"
            return wanted["value"] in held
        assert kind == "range"
        assert type_ in ("double", "long")
        return any(all(COMPARISONS[key](value, bound) for key, bound in wanted.items()) for value in held)

    def solr(self, method: str, path: str, query: str, body: str) -> Answer:
        match method, path.rstrip("/"):
            case "GET", "config/overlay":
                return 200, {"overlay": {"userProps": self.solr_properties}}, {}
            case "POST", "config":
                command = json.loads(body)
                self.solr_properties.update(command.get("set-user-property", {}))
                self.solr_properties.pop(command.get("unset-user-property", ""), None)
                return 200, {}, {}
            case "GET", "schema":
                return 200, {"schema": self.solr_schema}, {}
            case "POST", "schema":
                command = json.loads(body)
                there = {field["name"] for kind in self.solr_schema.values() for field in kind}
                types, fields = command.get("add-field-type", []), command.get("add-field", [])
                if any(field["name"] in there for field in (*types, *fields)):
                    return 400, {"error": {"msg": "already exists"}}, {}
                changed = {field["name"]: field for field in command.get("replace-field", [])}
                if not changed.keys() <= there:
                    return 400, {"error": {"msg": "no such field"}}, {}
                self.solr_schema["fieldTypes"].extend(types)
                fields += [changed.get(field["name"], field) for field in self.solr_schema["fields"]]
                self.solr_schema["fields"] = fields
                return 200, {}, {}
            case "POST", "update":
                if body.startswith("["):
                    if refusal := self.refused():
                        return refusal
                    self.documents.update({document["id"]: document for document in json.loads(body)})
                elif "delete" in body:
                    self.documents = {}
                return 200, {"responseHeader": {"status": 0}}, {}
            case _, "select":
                parameters = {name: values[0] for name, values in parse_qs(query or body).items()}
                return 200, self.select(parameters), {}
        raise AssertionError((method, path))

    def select(self, parameters: dict[str, str]) -> dict[str, Any]:
        header = {"responseHeader": {"status": 0, "partialResults": bool(self.shards_failed)}}
        if parameters["q"] == "*:*":
            return {**header, "response": {"numFound": len(self.documents), "docs": []}}
        if parameters.get("expandMacros") != "false":  # Solr's default
            parameters = {
                name: re.sub(r"\$\{(\w*)\}", lambda macro: parameters.get(macro[1], ""), value)
                for name, value in parameters.items()
            }
        weights = {}
        for name in re.findall(r"should=\$(q\d+)", parameters["q"]):
            weight, term = re.fullmatch(
                r"\{!boost b=(.+?)\}\{!payload_score f=sts_terms func=sum includeSpanScore=false v=\$(t\d+)\}",
                parameters[name],
            ).groups()  # type: ignore[union-attr]
            weights[parameters[term]] = float(weight)
        scored = []
        for document in self.documents.values():
            if "fq" in parameters and not self.holds(parameters["fq"], parameters, document):
                continue
            pairs = (pair.split(DELIMITER) for pair in document["sts_terms"].split())
            scored.append((sum(weights.get(term, 0.0) * float(weight) for term, weight in pairs), document))
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[: int(parameters["rows"])]
        asked = parameters["fl"].split(",")
        docs = [{"score": score, **{name: d[name] for name in asked if name in d}} for score, d in best]
        return {**header, "response": {"numFound": len(docs), "docs": docs}}

    def holds(self, query: str, parameters: dict[str, str], document: dict[str, Any]) -> bool:
        """What Solr's reference says of the query parsers ``bool`` and ``term``, ranges and ``*``."""
        if query in ("*:*", "-*:*"):
            return query == "*:*"
        if query.startswith("{!bool "):
            clauses: dict[str, list[bool]] = {"must": [], "must_not": [], "should": []}
            for clause in query.removeprefix("{!bool ").removesuffix("}").split():
                occur, _, part = clause.partition("=")
                part = parameters[part[1:]] if part.startswith("$") else part
                clauses[occur].append(self.holds(part, parameters, document))
            assert clauses["must"] or clauses["should"]  # a clause that only forbids finds nothing
            optional = not clauses["should"] or any(clauses["should"]) or bool(clauses["must"])
            return all(clauses["must"]) and not any(clauses["must_not"]) and optional
        types = {field["name"]: field["type"] for field in self.solr_schema["fields"]}
        if match := re.fullmatch(r"\{!term f=(\S+) v=\$(f\d+)\}", query):
            name, wanted = match[1], parameters[match[2]]
            assert types[name] in ("sparse_sts_keyword", "sparse_sts_keywords", "sparse_sts_boolean")
            return wanted in [
                json.dumps(value) if value in (True, False) else value for value in values_of(document, name)
            ]
        name, _, wanted = query.partition(":")
        held = values_of(document, name)
        if wanted == "*":
            return bool(held)
        assert types[name] in ("sparse_sts_number", "sparse_sts_microseconds")
        convert = int if types[name] == "sparse_sts_microseconds" else float
        low, high = wanted[1:-1].split(" TO ")
        lower = "gte" if wanted[0] == "[" else "gt"
        upper = "lte" if wanted[-1] == "]" else "lt"
        return any(
            (low == "*" or COMPARISONS[lower](convert(value), convert(low)))
            and (high == "*" or COMPARISONS[upper](convert(value), convert(high)))
            for value in held
        )


COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def values_of(document: dict[str, Any], name: str) -> list[Any]:
    given = document.get(name)
    return [] if given is None else given if isinstance(given, list) else [given]
