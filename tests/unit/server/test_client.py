"""The client of the service, against servers that are busy, gone or no service at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from sparse_sts_index.errors import DataError, ServerError
from sparse_sts_index.server import client
from sparse_sts_index.server.client import ServedIndex

Answer = tuple[int, dict[str, str], bytes]
FOUND = {
    "query": "a",
    "certified": True,
    "bound": 0.25,
    "hits": [{"id": "1", "text": "A cat.", "cosine": 0.5, "score": None, "explanation": None}],
}


@contextmanager
def answering(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[str]:
    """Serve what a function of the number of the request and its body says."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            count += 1
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, headers, content = answer(count, body | {"token": self.headers.get("authorization")})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def found(body: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps({"results": [FOUND for _ in body["queries"]]}).encode()


def test_search_asks_with_the_token_in_parts_that_are_allowed() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(_: int, body: dict[str, Any]) -> Answer:
        bodies.append(body)
        return found(body)

    with answering(answer) as url:
        hits = ServedIndex(url + "/", "secret").search(["a"] * 25, 100, mode="two-step", explain=True)
    assert [len(body["queries"]) for body in bodies] == [10, 10, 5]
    assert bodies[0] | {"queries": []} == {
        **{"queries": [], "k": 100, "mode": "two-step", "explain": True, "token": "Bearer secret"}
    }
    assert len(hits) == 25
    assert [(hit.id, hit.text, hit.cosine, hit.score, hit.explanation) for hit in hits[0]] == [
        ("1", "A cat.", 0.5, None, None)
    ]
    assert (hits[0].certified, hits[0].bound) == (True, 0.25)


def test_a_busy_service_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(client, "sleep", slept.append)
    busy = [(429, {"retry-after": "3"}), (503, {"retry-after": "\u00b2"}), (503, {"retry-after": "999"})]
    waited: list[float] = []
    with answering(lambda n, body: (*busy[n - 1], b"{}") if n <= 3 else found(body)) as url:
        assert len(ServedIndex(url, waiting=waited.append).search(["a"])) == 1
    assert slept == waited == [3.0, 2.0, 60.0]


def test_a_service_that_stays_busy_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "sleep", lambda _: None)
    with (
        answering(lambda *_: (429, {}, b'{"detail": "come again"}')) as url,
        pytest.raises(ServerError, match=r"come again \(status 429\)"),
    ):
        ServedIndex(url).search(["a"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((422, {}, b'{"detail": "too\\nlong"}'), r"too\\nlong \(status 422\)"),
        ((404, {}, b"<html>"), r"no service of sparse-sts there \(status 404\)"),
        ((307, {"location": "http://127.0.0.1:1/v1/search"}, b""), r"status 307"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((400, {}, b"[" * 60_000), r"no service of sparse-sts there \(status 400\)"),
        ((200, {}, b'{"results": [{"hits": [{"id": "1", "text": "", "cosine": 1%s}]}]}' % (b"0" * 400)), "not one of"),
        ((200, {}, b"[1]"), "not one of sparse-sts serve"),
        ((200, {}, b'{"results": [{"hits": [{"id": "1"}]}]}'), "not one of sparse-sts serve"),
        ((200, {}, b'{"results": []}'), "0 results for 1 queries"),
    ],
)
def test_other_answers_are_errors_in_one_line(answer: Answer, message: str) -> None:
    with answering(lambda *_: answer) as url, pytest.raises(ServerError, match=message) as caught:
        ServedIndex(url).search(["a"])
    assert "\n" not in str(caught.value)


def test_a_service_that_is_gone_is_an_error() -> None:
    with answering(lambda *_: (200, {}, b"")) as url:
        pass
    with pytest.raises(ServerError, match="cannot be reached: .*refused"):
        ServedIndex(url).search(["a"])


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "ftp://host",
        "host:8080",
        "http://host:99999",
        "http://host:0",
        "http://u:p@host",
        "http://a b",
        "http://h?q",
        "http://a..b",
        "http://h/\u00fc",
        f"http://{'a' * 64}.de",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match="http://HOST:PORT"):
        ServedIndex(url)


def test_arguments_are_checked_before_the_service_is_asked() -> None:
    served = ServedIndex("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="k must be"):
        served.search(["a"], 0)
    with pytest.raises(DataError, match="surrogate"):
        served.search(["\ud800"])
    assert served.search([]) == []


@pytest.mark.parametrize("token", ["abc\n", "a b", "\u20ac"])
def test_a_token_that_no_header_holds_is_refused(token: str) -> None:
    with pytest.raises(ServerError, match="a token is of printable ASCII"):
        ServedIndex("http://127.0.0.1:1", token)
