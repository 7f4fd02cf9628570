"""The service, over real sockets: what it answers, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from serving import Server, serving

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsIndex

Run = Callable[..., subprocess.CompletedProcess[str]]
TOKEN = "a-token-of-more-than-sixteen"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202e\u200b 😀 '\"\\ \x00 ../../etc"


@pytest.fixture(scope="module")
def index(sample_index: SparseStsIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(sample_index, tmp_path_factory)


@pytest.fixture(scope="module")
def writable(sample_index: SparseStsIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(sample_index, tmp_path_factory)


def copy_of(index: SparseStsIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("served") / "questions"
    shutil.copytree(index.path, copy)
    return copy


@pytest.fixture(scope="module")
def server(writable: Path) -> Iterator[Server]:
    with serving(writable, "--writable", "--max-body", 200_000) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def found(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert "Traceback" not in body["detail"]
    detail: str = body["detail"]
    return detail


def test_search_gives_what_the_library_gives(client: httpx.Client, sample_index: SparseStsIndex) -> None:
    queries = ["Three girls paint a fence.", "I was billed twice in March.", "", "Three girls paint a fence."]
    body = {"queries": queries, "k": 7, "explain": True}
    results = found(client.post("/v1/search", json=body))["results"]
    for query, result, hits in zip(queries, results, sample_index.search(queries, 7, explain=True), strict=True):
        assert result["query"] == query
        assert result["certified"] == hits.certified
        assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in hits]
        assert [hit["text"] for hit in result["hits"]] == [hit.text for hit in hits]
        assert [hit["cosine"] for hit in result["hits"]] == pytest.approx([hit.cosine for hit in hits], abs=1e-5)
        for hit in result["hits"]:
            assert sum(term["contribution"] for term in hit["explanation"]) == pytest.approx(hit["cosine"])
    for mode in ("two-step", "approximate"):
        (result,) = found(client.post("/v1/search", json={"queries": queries[:1], "mode": mode}))["results"]
        assert len(result["hits"]) == 10
        assert result["hits"][0]["explanation"] is None


@pytest.mark.parametrize("options", [(), ("--format", "jsonl", "--explain"), ("--format", "trec", "-k", 300)])
def test_search_by_url_shows_the_same(
    server: Server, index: Path, sparse_sts: Run, options: tuple[object, ...]
) -> None:
    texts = ("A cat sleeps.", "Three girls paint a fence.", " ")
    expected = sparse_sts("search", index, *texts, *options)
    found = sparse_sts("search", "--url", server.url, *texts, *options)
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout
    assert not found.stderr


def test_search_by_url_in_several_requests(
    server: Server, index: Path, sparse_sts: Run, sample_index: SparseStsIndex, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(document.text for document in list(next(sample_index.read()).documents)[:600]))
    options = ("--queries", queries, "--format", "jsonl", "-k", 20)
    expected = sparse_sts("search", index, *options).stdout
    assert sparse_sts("search", "--url", server.url, *options).stdout == expected
    assert expected.count("\n") > 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-k", 5000), "k: Input should be less than or equal to 1000 (status 422)"),
        (("--model", "tiny"), "--model and --precision cannot be used with --url of a service"),
        (("--memory", "1GiB"), "--memory cannot be used with --url"),
        (("--engine", "spark"), "cannot be used with --url of an engine"),
    ],
)
def test_search_by_url_refuses_in_one_line(
    server: Server, sparse_sts: Run, options: tuple[object, ...], message: str
) -> None:
    found = sparse_sts("search", "--url", server.url, "A cat sleeps.", *options)
    assert found.returncode != 0
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_scores_and_explanations(client: httpx.Client, sample_index: SparseStsIndex) -> None:
    pairs = [("A cat sleeps.", "The kitten is asleep."), ("", "x"), ("Same.", "Same."), ("😀 naïve café", "A café")]
    body = {"pairs": [{"sentence1": a, "sentence2": b} for a, b in pairs]}
    expected = sample_index.score_pairs([a for a, _ in pairs], [b for _, b in pairs])
    scores = found(client.post("/v1/score", json=body))["results"]
    assert [score["cosine"] for score in scores] == pytest.approx(expected.tolist(), abs=1e-5)
    explained = found(client.post("/v1/explain", json=body))["results"]
    for pair, explanation, cosine in zip(pairs, explained, expected, strict=True):
        assert explanation["cosine"] == pytest.approx(cosine, abs=1e-5)
        assert sum(term["contribution"] for term in explanation["shared"]) == pytest.approx(cosine, abs=1e-5)
        for text, side in zip(pair, ("first", "second"), strict=True):
            words = [text[word["start"] : word["end"]] for word in explanation[side]["words"]]
            assert "".join(words) == text.replace(" ", "")


def test_many_at_once_get_each_their_own(server: Server, sample_index: SparseStsIndex) -> None:
    """Micro-batches of different k, modes and kinds, from many threads."""
    texts = [document.text for document in sample_index.get_many([f"s{n:04}" for n in range(1, 121)]) if document]

    def ask(number: int) -> None:
        k = 1 + number % 3
        with server.client() as client:
            (result,) = found(client.post("/v1/search", json={"queries": [texts[number]], "k": k}))["results"]
            assert result["hits"][0]["text"] == texts[number]
            assert len(result["hits"]) == k
            body = {"pairs": [{"sentence1": texts[number], "sentence2": texts[number]}]}
            path = "/v1/score" if number % 2 else "/v1/explain"
            assert found(client.post(path, json=body))["results"][0]["cosine"] == pytest.approx(1)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(len(texts))))
    sizes = server.metrics()
    batches = sizes['sparse_sts_batch_size_count{stage="query"}']
    assert sizes['sparse_sts_batch_size_sum{stage="query"}'] > 1.2 * batches  # they were encoded together
    assert sizes["sparse_sts_index_documents"] == 1000
    assert sizes["sparse_sts_index_bytes"] > 10_000
    assert sizes['sparse_sts_requests_total{method="POST",route="/v1/search",status="200"}'] >= 120


def test_documents_come_and_go(client: httpx.Client) -> None:
    name = "../a b/😀?#%2F"
    path = "/v1/documents/" + "".join(f"%{byte:02X}" for byte in name.encode())
    refused(client.get(path), 404)
    document = {"id": name, "text": HOSTILE}
    assert found(client.post("/v1/documents", json={"documents": [document]}), 201) == {"added": 1}
    assert found(client.get(path)) == {**document, "fields": {}}
    (result,) = found(client.post("/v1/search", json={"queries": [HOSTILE], "k": 1}))["results"]
    assert result["hits"][0]["text"] == HOSTILE
    assert result["hits"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    both = [{"id": "new", "text": "x"}, document]
    assert "already" in refused(client.post("/v1/documents", json={"documents": both}), 409)
    refused(client.get("/v1/documents/new"), 404)  # all or none
    assert found(client.put("/v1/documents", json={"documents": both})) == {"added": 1, "replaced": 1}
    assert "duplicate" in refused(client.put("/v1/documents", json={"documents": [document, document]}), 422)
    assert found(client.get("/v1/index"))["documents"] == 1002
    assert found(client.request("DELETE", path)) == {"deleted": 1}
    refused(client.request("DELETE", path), 404)
    refused(client.request("DELETE", "/v1/documents/new%0A"), 404)
    assert found(client.post("/v1/documents/delete", json={"ids": ["new", "none"]})) == {"deleted": 1}
    assert found(client.get("/v1/index"))["documents"] == 1000


def groups(client: httpx.Client, threshold: float) -> Any:
    for _ in range(600):
        answer = client.get("/v1/groups", params={"threshold": threshold, "limit": 500})
        if answer.status_code == 200 and answer.json()["current"]:
            return found(answer)
        if answer.status_code == 202:
            assert 0 <= found(answer, 202)["progress"] <= 1
            assert answer.headers["retry-after"] == "1"
        time.sleep(0.05)
    raise AssertionError("never compared")


def test_groups_are_the_librarys_clusters(client: httpx.Client, sample_index: SparseStsIndex) -> None:
    refused(client.get("/v1/groups", params={"where": "a = 1"}), 422)  # and not passed over
    for threshold in (0.9, 0.8, 0.95, 0.69999999995):
        expected = [[document.id for document in members] for members in sample_index.clusters(threshold)]
        answer = groups(client, threshold)
        assert [[member["id"] for member in group["members"]] for group in answer["shown"]] == [
            ids[:100] for ids in expected
        ]
        assert [group["size"] for group in answer["shown"]] == list(map(len, expected))
        assert all(threshold - 2e-6 <= group["weakest"] <= 1 for group in answer["shown"])
        assert answer["groups"] == len(expected)
        assert answer["sentences"] == sum(map(len, expected))
    twin = {"id": "twin", "text": "Wholly new words: zebra xylophone."}
    client.post("/v1/documents", json={"documents": [twin, {**twin, "id": "twin2"}]})
    after = groups(client, 0.95)
    assert ["twin", "twin2"] in [[member["id"] for member in group["members"]] for group in after["shown"]]
    client.post("/v1/documents/delete", json={"ids": ["twin", "twin2"]})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"\xff\xfe{}", 400),
        (b"[" * 100_000, 400),
        (b'{"queries": [' + b"9" * 5000 + b"]}", 400),
        (b"[]", 422),
        (b'{"queries": []}', 422),
        (b'{"queries": "text"}', 422),
        (b'{"queries": ["x"], "k": 0}', 422),
        (b'{"queries": ["x"], "k": 1.5}', 422),
        (b'{"queries": ["x"], "k": "5"}', 422),
        (b'{"queries": ["x"], "k": NaN}', 422),
        (b'{"queries": ["x"], "mode": "fast"}', 422),
        (b'{"queries": ["x"], "kk": 3}', 422),
        (json.dumps({"queries": ["x"] * 11, "k": 1000}).encode(), 422),
        (json.dumps({"queries": ["x"] * 2, "k": 501, "explain": True}).encode(), 422),
        (b'{"queries": [null]}', 422),
        (rb'{"queries": ["\ud800"]}', 422),
        (json.dumps({"queries": ["x"] * 257}).encode(), 422),
        (json.dumps({"queries": ["x" * 10_001]}).encode(), 422),
        (json.dumps({"queries": ["x" * 210_000]}).encode(), 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_bodies_are_refused_in_one_line(client: httpx.Client, body: bytes, status: int) -> None:
    detail = refused(client.post("/v1/search", content=body, headers={"content-type": "application/json"}), status)
    assert "\n" not in detail
    assert len(detail) < 500


def test_other_kinds_of_body_are_refused(client: httpx.Client) -> None:
    """A form or text of another site is not taken for JSON: it could be sent without the browser asking."""
    body = json.dumps({"documents": [{"id": "x", "text": "x"}]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        refused(client.post("/v1/documents", content=body, headers={"content-type": kind}), 415)
    refused(client.post("/v1/documents", content=body), 415)
    refused(client.get("/v1/documents/x"), 404)


def test_a_body_without_a_length_is_cut_off(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    with contextlib.suppress(httpx.WriteError):  # it does not read on to be polite
        refused(client.post("/v1/search", content=parts()), 413)
    found(client.get("/healthz"))


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/page.js/../../../settings.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/static/x",
     "/page.css%00.py", "/docs", "/v1/../metrics/x", "/etc/passwd", "/\\..\\..\\x", "/v1/documents"],
)  # fmt: skip
def test_paths_lead_nowhere_else(server: Server, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in (400, 404, 405)
    assert b"root:" not in answer


def test_broken_http_leaves_it_running(server: Server, client: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for junk in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            try:
                connection.sendall(junk)
                answer = connection.recv(65536)
            except ConnectionError:
                answer = b""
            assert not answer.startswith(b"HTTP/1.1 5")
    found(client.get("/readyz"))


def test_only_this_machines_names_are_served_without_a_token(client: httpx.Client) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "a@localhost"):
        refused(client.get("/v1/index", headers={"host": host}), 421)
    for host in ("localhost", "localhost:123", "127.0.0.1:8080", "[::1]:80"):
        found(client.get("/v1/index", headers={"host": host}))


def test_answers_carry_what_keeps_browsers_from_guessing(client: httpx.Client, server: Server) -> None:
    answer = client.get("/healthz", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/healthz", "/v1/index", "/nosuch", "/metrics", "/openapi.json"):
        assert client.get(path).headers.get_list("cache-control") == ["no-store"]
    assert client.get("/healthz", headers={"x-request-id": "a b\t<"}).headers["x-request-id"] != "a b\t<"
    page = client.get("/")
    assert page.headers.get_list("cache-control") == ["no-cache"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    client.post("/v1/search", json={"queries": ["a secret sentence"]})
    client.get("/v1/documents/a-secret-id")
    assert server.events("request")
    assert "secret" not in json.dumps(server.lines)


def test_the_schema_describes_it_and_its_examples_work(client: httpx.Client) -> None:
    schema = found(client.get("/openapi.json"))
    paths = {*(f"/v1/{name}" for name in ("search", "score", "explain", "counts", "groups", "index")), "/healthz",
             "/readyz", "/v1/documents", "/v1/documents/delete", "/v1/documents/{document_id}", "/metrics"}  # fmt: skip
    assert set(schema["paths"]) == paths
    examples = schema["components"]["schemas"]["SearchRequest"]["properties"]["queries"]["examples"]
    found(client.post("/v1/search", json={"queries": examples[0]}))
    assert "HTTPValidationError" not in json.dumps(schema)


def test_schemathesis_finds_no_way_to_break_it(index: Path, sample_index: SparseStsIndex, tmp_path: Path) -> None:
    """Requests made from its own schema, good and bad and in sequences: no 5xx, and answers as the schema has them."""
    copy = tmp_path / "fuzzed"
    shutil.copytree(sample_index.path, copy)
    checks = ("not_a_server_error", "status_code_conformance", "response_schema_conformance", "ignored_auth")
    with serving(copy, "--writable", SPARSE_STS_TOKEN=TOKEN) as server:
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json", "--no-color"]
        command += ["--max-examples", "20", "--checks", ",".join(checks), "--seed", "1"]
        command += ["--header", f"Authorization: Bearer {TOKEN}"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        statuses = {line["status"] for line in server.events("request")}
    assert run.returncode == 0, "\n".join(line[:300] for line in run.stdout.splitlines()[-80:])
    assert max(statuses) < 500
    assert {200, 201, 404, 422} <= statuses
    assert len(server.events("request")) > 300


def test_a_token_is_asked_for_and_compared(index: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with serving(index, "--token-file", file, "--refresh", 0, "--host", "0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for path in ("/healthz", "/readyz", "/openapi.json", "/", "/page.js", "/page.css"):
                assert client.get(path).status_code == 200
            for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN,
                          "Bearer \xe9"):  # fmt: skip
                for path in ("/v1/index", "/metrics", "/v1/none", "/v1/documents/s0001"):
                    answer = client.get(path, headers={"authorization": given.encode("latin-1")})
                    assert refused(answer, 401)
                    assert answer.headers["www-authenticate"] == "Bearer"
            right = {"authorization": f"Bearer {TOKEN}", "host": "search.example"}
            assert found(client.get("/v1/index", headers=right))["writable"] is False
            body = {"documents": [{"id": "x", "text": "x"}]}
            assert "--writable" in refused(client.post("/v1/documents", json=body, headers=right), 403)
            refused(client.put("/v1/documents", json=body, headers=right), 403)
            refused(client.request("DELETE", "/v1/documents/s0001", headers=right), 403)
            refused(client.post("/v1/documents/delete", json={"ids": ["s0001"]}, headers=right), 403)
            assert found(client.get("/v1/documents/s0001", headers=right))["id"] == "s0001"
            schema = found(client.get("/openapi.json"))
            assert schema["paths"]["/v1/search"]["post"]["security"] == [{"token": []}]
        assert TOKEN not in json.dumps(server.lines)


def test_past_its_capacity_it_refuses_and_recovers(index: Path) -> None:
    with serving(index, "--max-queue", 4, "--max-batch", 2) as server, server.client() as client:
        statuses: list[int] = []

        def ask(number: int) -> None:
            with server.client() as mine:
                body = {"queries": [f"sentence {number} {n} " + "of many words " * 50 for n in range(4)]}
                answer = mine.post("/v1/search", json=body)
                statuses.append(answer.status_code)
                if answer.status_code == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                    refused(answer, 429)
                else:
                    assert len(found(answer)["results"]) == 4

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(96)))
        assert set(statuses) == {200, 429}
        found(client.post("/v1/search", json={"queries": ["calm"] * 4}))


def test_what_takes_too_long_is_given_up(index: Path) -> None:
    with serving(index, "--timeout", 0.1) as server, server.client() as client:
        answer = client.post("/v1/search", json={"queries": ["many words " * 900] * 90})
        assert "0.1" in refused(answer, 503)
        assert answer.headers["retry-after"] == "1"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:  # and a body that never comes
            connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        until = time.monotonic() + 120
        while client.post("/v1/search", json={"queries": ["short"]}).status_code != 200:
            assert time.monotonic() < until, "it does not recover"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_took(index: Path, how: signal.Signals) -> None:
    with serving(index, "--max-batch", 1, "--max-queue", 10_000) as server:
        answers: list[httpx.Response] = []

        def ask() -> None:
            with server.client() as client, contextlib.suppress(httpx.TransportError):  # the last may come too late
                answers.append(client.post("/v1/search", json={"queries": [f"number {n}" for n in range(200)]}))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        with server.client() as client:
            client.get("/healthz")
            for thread in threads:
                thread.start()
            while _queued(client) < 300:  # more than one request: until it has taken two at least
                if len(answers) == 3:
                    pytest.skip("too fast to be interrupted")
        assert server.stop(how) == 0
        for thread in threads:
            thread.join(60)
        assert len(answers) >= 2
        assert {len(found(answer)["results"]) for answer in answers} == {200}
        assert server.lines[-1]["event"] == "stopped"


def _queued(client: httpx.Client) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith("sparse_sts_queued")]
    return float(line.split()[1])


def test_changes_of_other_processes_show(index: Path, sparse_sts: Run, tmp_path: Path) -> None:
    with serving(index, "--refresh", 0.2) as server, server.client() as client:
        more = tmp_path / "more.jsonl"
        more.write_text('{"id": "later", "text": "Quite another zebra."}\n')
        assert sparse_sts("add", index, more).returncode == 0
        for _ in range(100):
            if client.get("/v1/documents/later").status_code == 200:
                break
            time.sleep(0.1)
        (result,) = found(client.post("/v1/search", json={"queries": ["Quite another zebra."], "k": 1}))["results"]
        assert result["hits"][0]["id"] == "later"
        assert sparse_sts("delete", index, "later").returncode == 0


def test_what_keeps_it_from_starting_is_one_line(
    index: Path, writable: Path, sparse_sts: Run, tmp_path: Path, server: Server
) -> None:
    port = server.url.rsplit(":", 1)[1]
    (tmp_path / "short").write_text("short")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 20)
    for arguments, said in (
        ((tmp_path / "none",), "no index at"),
        ((index, "--host", "0.0.0.0"), "takes a token"),
        ((index, "--host", "::"), "takes a token"),
        ((index, "--port", port, "--refresh", 0), "cannot listen"),
        ((index, "--host", "203.0.113.7", "--token-file", tmp_path / "short"), "at least 16"),
        ((index, "--token-file", tmp_path / "bytes"), "not a text"),
        ((writable, "--writable", "--port", 0), "another writer"),
        ((index, "--model", tmp_path / "none", "--port", 0), "none"),
    ):
        run = sparse_sts("serve", *arguments)
        assert run.returncode == 1, run.stderr
        assert run.stderr.startswith("Error: "), run.stderr
        assert run.stderr.count("\n") == 1
        assert said in run.stderr
