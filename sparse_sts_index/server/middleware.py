"""What a request has to pass before it is looked at, and what is said of it afterwards.

Host and token, size and time; a request whose client has gone is dropped. Every answer gets a request id and headers
that keep browsers from guessing, every request a line in the log (of sentences and tokens there is nothing in it) and
its place in the metrics. Pure ASGI (``https://asgi.readthedocs.io``).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from sparse_sts_index.server.metrics import Metrics
from sparse_sts_index.server.settings import ServerSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("sparse_sts_index.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"}
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class _GoneError(Exception):
    """The client has closed the connection."""


def problem(status: int, detail: str) -> bytes:
    """The JSON of an error (RFC 9457)."""
    title = HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


class Gate:
    """Stands before an ASGI application.

    Parameters
    ----------
    app : ASGI application
    settings : ServerSettings
    metrics : Metrics
    """

    def __init__(self, app: App, settings: ServerSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request; what is not HTTP goes on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id), *_HEADERS]
            await send(message)

        try:
            await self._pass(scope, headers, receive, answer)
        except _RefusedError as error:
            if not status:
                await _refuse(answer, error)
        except _GoneError:
            status = status or 499  # as nginx has it: nobody was there to be answered
        except Exception as error:
            logger.error("request failed", exc_info=error, extra={"request_id": request_id.decode()})
            if not status:
                refused = _RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong; it is in the log")
                await _refuse(answer, refused)
        seconds = time.perf_counter() - start
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if logger.isEnabledFor(logging.INFO):
            client = (scope.get("client") or ("",))[0]
            logger.info(
                "request",
                extra={
                    "request_id": request_id.decode(),
                    "client": client,
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(1000 * seconds, 2),
                },
            )

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        if "\n" in scope["path"] or not _is_utf8(scope.get("raw_path")):  # ends for routes; the id of another document
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such path")
        self._check_host(headers)
        self._check_token(scope["path"], headers)
        body = await self._body(headers, receive, deadline)
        _check_type(headers, body)
        arrived = False

        async def replay() -> Message:
            nonlocal arrived
            if arrived:
                return await receive()
            arrived = True
            return {"type": "http.request", "body": body, "more_body": False}

        working = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            remaining = deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({working, gone}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if working in done:
                working.result()
            elif gone in done:
                raise _GoneError
            else:
                seconds = self._settings.timeout
                detail = f"not done within {seconds:g} s"
                raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, detail, **{"retry-after": "1"})
        finally:
            gone.cancel()
            working.cancel()

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Without a token, only names of this machine: another name is a web page's that had it point here."""
        if self._settings.token is not None:
            return
        match = _HOST.fullmatch(headers.get(b"host", b"").decode("latin-1").lower())
        if match is None or not is_loopback(match[1].strip("[]")):
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "without a token, only localhost is served")

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._settings.token is None or not (path.startswith("/v1") or path.startswith("/metrics")):
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(token.strip(), self._settings.token.encode())
        if scheme.lower() != b"bearer" or not right:
            raise _RefusedError(
                HTTPStatus.UNAUTHORIZED, "needs Authorization: Bearer, and the right token",
                **{"www-authenticate": "Bearer"},
            )  # fmt: skip

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, deadline: float) -> bytes:
        most = self._settings.max_body
        too_large = _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have at most {most:,} bytes")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            raise too_large
        body, parts = 0, []
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    part = message.get("body", b"")
                    body += len(part)
                    if body > most:
                        raise too_large
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to arrive") from error


def _is_utf8(raw_path: bytes | None) -> bool:
    """Whether a path says what it seems to: servers decode ``%ff`` to U+FFFD, which is an id like others."""
    try:
        unquote_to_bytes(raw_path or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_type(headers: dict[bytes, bytes], body: bytes) -> None:
    """JSON has to be called JSON: forms and plain text are what a browser sends for any page, unasked."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and kind != b"application/json":
        raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, error: _RefusedError) -> None:
    body = problem(error.status, error.detail)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": int(error.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
