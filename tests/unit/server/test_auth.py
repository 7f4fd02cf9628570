"""Access to the service: refused before any of the body is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import build, unit_vectors

from sparse_sts_index import SparseStsIndex
from sparse_sts_index.server.app import create_app
from sparse_sts_index.server.service import Service
from sparse_sts_index.server.settings import ServerSettings

TOKEN = "correct-horse-battery"


@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Service]:
    build(folder, ["a"], unit_vectors(np.eye(1, 40)))
    service = Service(SparseStsIndex.open(folder), ServerSettings(**settings))
    yield service
    asyncio.run(service.close())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "index", token=TOKEN, max_body=100) as service:
        yield service


def ask(
    service: Service, headers: dict[str, str], *, path: str = "/v1/score", body: bytes | None = None
) -> tuple[int, Any, dict[bytes, bytes]]:
    """Return status, JSON and headers of an answer; a body of None must not be read."""
    sent: list[Any] = []
    messages = iter([] if body is None else [{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if body is None:
            raise AssertionError("the body is read")
        for message in messages:
            return message
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(create_app(service)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong-horse-battery", f"Basic {TOKEN}"])
def test_wrong_token_is_refused_before_the_body(service: Service, authorization: str) -> None:
    status, problem, headers = ask(service, {"authorization": authorization, "content-length": "101"})
    assert status == problem["status"] == 401
    assert headers[b"www-authenticate"] == b"Bearer"


def test_right_token_reaches_the_size_limit(service: Service) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    assert ask(service, headers, body=b" " * 101)[0] == 413
    assert ask(service, {**headers, "content-length": "101"})[0] == 413
    assert ask(service, headers, body=b"[")[0] == 400


def test_other_host_is_refused_before_the_body(tmp_path: Path) -> None:
    with serving(tmp_path / "index") as service:
        for host in ("example.com", "127.0.0.1.example.com", "", "localhost:80:80"):
            assert ask(service, {"host": host})[0] == 421
        assert ask(service, {"host": "[::1]:8080", "content-type": "text/plain"}, body=b"x")[0] == 415


def test_odd_path_is_refused_before_the_body(service: Service) -> None:
    assert ask(service, {}, path="/v1/documents/a\nb")[0] == 404


def test_unfit_answer_leaves_no_sentence_in_the_log(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def cosines(_: object) -> list[tuple[Any, None]]:
        return [("a secret sentence", None)]

    monkeypatch.setattr(service, "cosines", cosines)
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    with caplog.at_level(logging.INFO, "sparse_sts_index.server"):
        status, problem, answered = ask(service, headers, body=b'{"pairs":[{"sentence1":"a","sentence2":"b"}]}')
    assert status == problem["status"] == 500
    assert answered[b"cache-control"] == b"no-store"
    assert "float" in caplog.text
    assert "secret" not in caplog.text
