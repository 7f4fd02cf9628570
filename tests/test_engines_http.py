"""The official clients against a server in this process: what they are made to send, and what becomes of its refusals.

The server holds documents and answers searches by Python's arithmetic; it is no engine. What it cannot tell, whether
the engines take these requests, is for ``test_engines_schemas.py`` (against the published types) and, for the
arithmetic, ``test_engines_lucene.py``.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from support import VOCABULARY, brute_force, build, random_vectors

from sparse_sts_index import EngineError
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.base import Busy, Point, Vector
from sparse_sts_index.engines.export import export_files
from sparse_sts_index.engines.push import push
from sparse_sts_index.engines.remote import RemoteIndex
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.solr import schema
from sparse_sts_index.engines.source import Source
from sparse_sts_index.impact_index import ImpactIndex
from sparse_sts_index.vocabulary import DELIMITER

COUNT = 90
NAMES = ("elasticsearch", "opensearch", "solr")
Answer = tuple[int, Any, dict[str, str]]


class Server:
    """Enough of Elasticsearch, OpenSearch and Solr."""

    def __init__(self) -> None:
        self.mapping: dict[str, Any] | None = None
        self.solr_properties: dict[str, str] = {}
        self.solr_schema: dict[str, list[dict[str, Any]]] = {"fieldTypes": [], "fields": [{"name": "id"}]}
        self.documents: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.trouble: list[Any] = []  # answers to the next writes: (status, headers), or "some" for items refused
        self.shards_failed = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                status, content, headers = outer.answer(self.command, self.path, dict(self.headers), body)
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
            case "PUT", "/glosses":
                self.mapping = json.loads(body)
                return 200, {"acknowledged": True, "index": "glosses"}, {}
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
        query = request["query"]
        if "sparse_vector" in query:
            assert query["sparse_vector"]["prune"] is False
            weights = query["sparse_vector"]["query_vector"]
        else:
            asked = [clause["rank_feature"] for clause in query["bool"]["should"]]
            weights = {clause["field"].split(".")[1]: clause["boost"] for clause in asked}
        scored = [
            (sum(weights.get(name, 0.0) * weight for name, weight in source["terms"].items()), source)
            for source in self.documents.values()
        ]
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[: request["size"]]
        hits = [{"_score": score, "_source": {f: s[f] for f in request["_source"]}} for score, s in best]
        return {"timed_out": False, "_shards": {"failed": self.shards_failed}, "hits": {"hits": hits}}

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
                self.solr_schema["fieldTypes"].append(command["add-field-type"])
                self.solr_schema["fields"].extend(command["add-field"])
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
        weights = {}
        for name in re.findall(r"should=\$(q\d+)", parameters["q"]):
            weight, term = re.fullmatch(
                r"\{!boost b=(.+?)\}\{!payload_score f=sts_terms func=sum includeSpanScore=false v=\$(t\d+)\}",
                parameters[name],
            ).groups()  # type: ignore[union-attr]
            weights[parameters[term]] = float(weight)
        scored = []
        for document in self.documents.values():
            pairs = (pair.split(DELIMITER) for pair in document["sts_terms"].split())
            scored.append((sum(weights.get(term, 0.0) * float(weight) for term, weight in pairs), document))
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[: int(parameters["rows"])]
        docs = [{"score": score, **{name: d[name] for name in ("id", "sts_text", "sts_vector")}} for score, d in best]
        return {**header, "response": {"numFound": len(docs), "docs": docs}}


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ImpactIndex:
    path: Path = tmp_path_factory.mktemp("http") / "index"
    build(path, [f"d{row:03}" for row in range(COUNT)], random_vectors(np.random.default_rng(5), COUNT))
    return ImpactIndex.open(path)


def waiting() -> tuple[BackOff, list[float]]:
    waits: list[float] = []
    return BackOff(sleep=waits.append, random=lambda: 0.0), waits


@pytest.mark.parametrize("name", NAMES)
def test_pushed_and_searched(server: Server, index: ImpactIndex, name: str) -> None:
    source, engine = Source.of_index(index), connect(server.url(name))
    for _ in range(2):
        assert push(source, engine, batch_size=40).documents == COUNT
    assert len(server.documents) == COUNT
    queries = random_vectors(np.random.default_rng(9), 20)
    ids, vectors = [f"d{row:03}" for row in range(COUNT)], next(index.read()).vectors
    remote = RemoteIndex(engine)
    for row, hits in enumerate(remote.search_vectors(queries, VOCABULARY, 5, explain=True)):
        assert hits.certified
        assert [(hit.id, hit.cosine) for hit in hits] == brute_force(ids, vectors, queries[[row]], 5)
        for hit in hits:
            assert hit.text == f"text of {hit.id}"
            assert sum(term.contribution for term in hit.explanation or ()) == pytest.approx(hit.cosine)
    assert remote.metadata == source.metadata
    push(source, engine, overwrite=True)
    assert len(server.documents) == COUNT
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_waits_as_long_as_it_is_told(server: Server, index: ImpactIndex, name: str) -> None:
    server.trouble = [(429, {"Retry-After": "7"}), (503, {}), (502, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"})]
    back_off, waits = waiting()
    engine = connect(server.url(name))
    with pytest.raises(EngineError, match=r"50[23].*given up after 3 attempts"):
        push(Source.of_index(index), engine, back_off=back_off)
    assert waits == [7.0, 0.0]
    push(Source.of_index(index), engine, back_off=back_off)
    assert len(server.documents) == COUNT
    engine.close()


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_only_refused_items_are_sent_again(server: Server, index: ImpactIndex, name: str) -> None:
    server.trouble = ["some", "some"]
    back_off, waits = waiting()
    engine = connect(server.url(name))
    push(Source.of_index(index), engine, back_off=back_off)
    sizes = [body.count('"_id"') for _, path, _, body in server.requests if path.startswith("/glosses/_bulk")]
    assert sizes == [90, 30, 10]
    assert len(waits) == 2
    assert len(server.documents) == COUNT
    engine.close()


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_a_document_that_is_refused_for_good_is_named(server: Server, name: str, tmp_path: Path) -> None:
    build(tmp_path / "bad", ["good", "bad"], random_vectors(np.random.default_rng(5), 2))
    engine = connect(server.url(name))
    with pytest.raises(EngineError, match="document 'bad' is refused: mapper: no"):
        push(Source.of_index(ImpactIndex.open(tmp_path / "bad")), engine)
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_incomplete_answer_is_none(server: Server, index: ImpactIndex, name: str) -> None:
    engine = connect(server.url(name))
    push(Source.of_index(index), engine)
    server.shards_failed = 1
    back_off, waits = waiting()
    remote = RemoteIndex(engine, back_off=back_off)
    with pytest.raises(EngineError, match="not all"):
        remote.search_vectors(random_vectors(np.random.default_rng(9), 1), VOCABULARY)
    assert len(waits) == 9
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_credentials_go_into_headers_only(server: Server, index: ImpactIndex, name: str, tmp_path: Path) -> None:
    basic = "Basic " + base64.b64encode(b"us er:se/cret").decode()
    bearer = "ApiKey key123" if name == "elasticsearch" else "Bearer key123"
    for url, token, expected in (
        (server.url(name, "us%20er:se%2Fcret@"), None, basic),
        (server.url(name), "key123", bearer),
    ):
        server.requests.clear()
        engine = connect(url, token)
        push(Source.of_index(index), engine, journal=tmp_path / "journal")
        sent = [{key.lower(): value for key, value in headers.items()} for _, _, headers, _ in server.requests]
        assert {headers.get("authorization") for headers in sent} == {expected}
        assert "cret" not in f"{engine.target} {engine.target!r}"
        engine.close()
    server.http.shutdown()
    server.http.server_close()
    engine = connect(server.url(name, "us%20er:se%2Fcret@"))
    back_off, waits = waiting()
    with pytest.raises(EngineError, match="given up after 10") as caught:
        push(Source.of_index(index), engine, back_off=back_off)
    assert "cret" not in str(caught.value)
    assert len(waits) == 9
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_what_others_have_made_is_left_alone(server: Server, index: ImpactIndex, name: str) -> None:
    server.mapping = {"mappings": {"properties": {}}}
    server.documents = {"x": {}}
    engine = connect(server.url(name))
    for overwrite in (False, True):
        with pytest.raises(EngineError, match="not made by sparse-sts"):
            push(Source.of_index(index), engine, overwrite=overwrite)
    engine.close()


def test_a_solr_schema_is_added_once(server: Server, index: ImpactIndex) -> None:
    engine = connect(server.url("solr"))
    for _ in range(2):
        push(Source.of_index(index), engine, overwrite=True)
    commands = [
        json.loads(body) for method, path, _, body in server.requests if (method, path[-6:]) == ("POST", "schema")
    ]
    assert commands == [schema()]
    engine.close()


def test_qdrant_over_http_says_when_to_come_back(index: ImpactIndex) -> None:
    """The server's refusals through its client; what it does when all is well, its local mode does as well."""
    server, statuses = Server(), [(429, {"Retry-After": "7"}), (503, {}), (400, {})]
    server.answer = lambda *request: (statuses[0][0], {"status": {"error": "why"}}, statuses[0][1])  # type: ignore[method-assign, assignment]
    engine = connect(f"qdrant+http://127.0.0.1:{server.http.server_port}/glosses", "key123")
    with pytest.raises(Busy, match="429") as busy:
        engine.metadata()
    assert busy.value.retry_after == 7
    del statuses[0]
    with pytest.raises(Busy, match="503"):
        engine.drop()
    del statuses[0]
    with pytest.raises(EngineError, match="400.*why"):
        engine.write([Point("a", "", Vector([1], [1.0]))], VOCABULARY.terms)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(Busy, match="refused|closed|disconnected"):
        engine.metadata()
    engine.close()


def test_qdrant_files_are_what_its_api_takes(index: ImpactIndex, tmp_path: Path) -> None:
    """Against the client's models, which are generated from Qdrant's OpenAPI description."""
    from qdrant_client.http import models

    assert export_files(Source.of_index(index), "qdrant", tmp_path / "out") == COUNT
    created = models.CreateCollection.model_validate_json((tmp_path / "out" / "collection.json").read_text())
    assert created.sparse_vectors is not None
    body = models.PointsList.model_validate_json((tmp_path / "out" / "part-00001.json").read_text())
    assert len(body.points) == COUNT
