"""The official clients against a server in this process: what they are made to send, and what becomes of its refusals.

The server holds documents and answers searches by Python's arithmetic; it is no engine. What it cannot tell, whether
the engines take these requests, is for ``test_request_schemas.py`` (against the published types) and, for the
arithmetic, ``test_lucene_features.py``.
"""

from __future__ import annotations

import base64
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from engine_server import Answer, Server
from support import VOCABULARY, brute_force, build, chunk, random_vectors, unit_vectors

from sparse_sts_index import EngineError, Manifest, Vocabulary
from sparse_sts_index.data.fields import FieldType
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.backends.solr import schema
from sparse_sts_index.engines.base import Busy, Metadata, Point, Vector
from sparse_sts_index.engines.export.files import export_files
from sparse_sts_index.engines.pushing import push
from sparse_sts_index.engines.remote_index import RemoteIndex
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.storage.impact_index import ImpactIndex

COUNT = 90
NAMES = ("elasticsearch", "opensearch", "solr")


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
    with pytest.raises(EngineError, match="given up after 3") as caught:  # a first contact
        push(Source.of_index(index), engine, back_off=back_off)
    assert "cret" not in str(caught.value)
    assert len(waits) == 2
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
    assert commands == [schema(Source.of_index(index).metadata)]
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


def test_busy_qdrant_gets_its_payload_indexes() -> None:
    """When all is written, at each push: making one that is there does nothing."""
    server, asked = Server(), []
    done = {"result": True, "status": "ok", "time": 0.0}
    refusals = iter([(503, {"status": {"error": "later"}}, {})])

    def answer(method: str, path: str, headers: dict[str, str], body: str) -> Answer:
        if "/index" not in path:
            return 200, done, {}
        asked.append(json.loads(body))
        return next(refusals, (200, {**done, "result": {"operation_id": 1, "status": "completed"}}, {}))

    server.answer = answer  # type: ignore[method-assign]
    engine = connect(f"qdrant+http://127.0.0.1:{server.http.server_port}/glosses")
    fields: dict[str, FieldType] = {"product": "keyword", "made.at": "date"}
    engine.create(Metadata("tiny", "f" * 64, "0" * 64, 40, "float32", 8, fields=fields))
    with pytest.raises(Busy, match="503"):
        engine.flush()
    engine.flush()
    product = {"field_name": "fields.product", "field_schema": "keyword"}
    assert asked == [product, product, {"field_name": 'fields."made.at"', "field_schema": "datetime"}]
    engine.close()
    server.http.shutdown()
    server.http.server_close()


def test_qdrant_files_are_what_its_api_takes(index: ImpactIndex, tmp_path: Path) -> None:
    """Against the client's models, which are generated from Qdrant's OpenAPI description."""
    from qdrant_client.http import models

    assert export_files(Source.of_index(index), "qdrant", tmp_path / "out") == COUNT
    created = models.CreateCollection.model_validate_json((tmp_path / "out" / "collection.json").read_text())
    assert created.sparse_vectors is not None
    body = models.PointsList.model_validate_json((tmp_path / "out" / "part-00001.json").read_text())
    assert len(body.points) == COUNT


@pytest.mark.parametrize("name", NAMES)
def test_what_was_done_but_not_answered_is_not_done_twice(server: Server, index: ImpactIndex, name: str) -> None:
    """Creating and dropping are errors where they have been done already."""
    if name == "solr":
        creation, removal = ["POST /solr/glosses/schema", "POST /solr/glosses/config"], ["POST /solr/glosses/update/"]
    else:
        creation, removal = ["PUT /glosses"], ["DELETE /glosses"]
    engine = connect(server.url(name))
    for overwrite, lost in ((False, creation), (True, [*creation, *removal])):
        server.lost = [request for request in lost if not (overwrite and request.endswith("schema"))]
        back_off, waits = waiting()
        push(Source.of_index(index), engine, overwrite=overwrite, back_off=back_off)
        assert (server.lost, bool(waits)) == ([], True)
        assert len(server.documents) == COUNT
    engine.close()


def test_solr_is_asked_again_when_the_second_of_two_requests_has_no_answer(server: Server, index: ImpactIndex) -> None:
    """The first one's status says nothing of it."""
    engine = connect(server.url("solr"))
    server.lost = ["GET /solr/glosses/select/"]
    with pytest.raises(Busy):
        engine.metadata()
    assert server.lost == []
    server.lost = ["GET /solr/glosses/select/"]
    back_off, waits = waiting()
    push(Source.of_index(index), engine, back_off=back_off)
    assert len(waits) == 1
    engine.close()


def test_solr_leaves_terms_as_they_are(server: Server, tmp_path: Path) -> None:
    """What looks like a macro is none: a query without that term would be certified all the same."""
    vocabulary = Vocabulary(["plain", "${q}", "a${b}c", *(f"t{column}" for column in range(37))])
    vectors = unit_vectors(np.eye(3, 40))
    ImpactIndex.build(
        tmp_path / "index", [chunk(["a", "b", "c"], vectors)], Manifest.without_model(vocabulary, 8), vocabulary
    )
    engine = connect(server.url("solr"))
    push(Source.of_index(ImpactIndex.open(tmp_path / "index")), engine)
    found = RemoteIndex(engine).search_vectors(vectors, vocabulary, 2)
    assert [[hit.id for hit in hits] for hits in found] == [["a"], ["b"], ["c"]]
    engine.close()


class NoTls(socketserver.BaseRequestHandler):
    """What a server answers that is asked for TLS and has none."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("name", [*NAMES, "qdrant"])
def test_what_waiting_does_not_mend_is_an_error_at_once(index: ImpactIndex, name: str) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), NoTls) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine = connect(f"{name}+https://127.0.0.1:{server.server_address[1]}/glosses")
        back_off, waits = waiting()
        with pytest.raises(EngineError, match="(?i)ssl"):
            push(Source.of_index(index), engine, back_off=back_off)
        assert waits == []
        engine.close()
        server.shutdown()


@pytest.mark.parametrize("name", [*NAMES, "qdrant"])
def test_each_wait_is_said_and_a_wrong_address_soon(index: ImpactIndex, name: str) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), NoTls) as server:
        port = server.server_address[1]
    engine = connect(f"{name}+http://127.0.0.1:{port}/glosses")  # where nothing listens any more
    said: list[tuple[str, float]] = []
    back_off = BackOff(
        sleep=lambda seconds: None, random=lambda: 1.0, waiting=lambda busy, seconds: said.append((str(busy), seconds))
    )
    with pytest.raises(EngineError, match="refused.*given up after 3 attempts"):
        push(Source.of_index(index), engine, back_off=back_off)
    with pytest.raises(EngineError, match="given up after 3 attempts"):
        RemoteIndex(engine, back_off=back_off)
    assert [seconds for _, seconds in said] == [1.0, 2.0, 1.0, 2.0]
    assert all("refused" in reason and str(engine.target) in reason for reason, _ in said)
    engine.close()


@pytest.mark.parametrize("name", [*NAMES, "qdrant"])
def test_a_host_that_its_client_takes_for_none(name: str) -> None:
    """Each has its own opinion; none comes out as another error than ours, whether now or when it is asked."""
    for host in ("999.1.1.1", "\N{ARABIC-INDIC DIGIT THREE}.de"):
        with pytest.raises((EngineError, Busy)):
            connect(f"{name}+http://{host}:9/glosses").metadata()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("UNAVAILABLE", "glosses: "),
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED: why"),
        ("UNAUTHENTICATED", "UNAUTHENTICATED: why"),
    ],
)
def test_milvus_is_waited_for_as_long_as_is_said(
    index: ImpactIndex, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    """Its client does that by itself, and would for minutes; what it does not wait for, it does not name its own."""
    pytest.importorskip("pymilvus")
    import grpc

    class Refuses(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                if not details.method.endswith("/Connect"):
                    context.abort(grpc.StatusCode[code], "why")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    monkeypatch.setattr("sparse_sts_index.engines.backends.milvus.TIMEOUT", 2)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Refuses()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    engine = connect(f"milvus+http://127.0.0.1:{port}/glosses")
    metadata = Source.of_index(index).metadata
    point = Point("a", "", Vector([1], [1.0]))
    for call in (
        engine.metadata,
        lambda: engine.create(metadata),
        engine.drop,
        lambda: engine.write([point], VOCABULARY.terms),
    ):
        start = time.monotonic()
        with pytest.raises(EngineError, match=message):
            call()
        assert time.monotonic() - start < 30
    engine.close()
    server.stop(None)
