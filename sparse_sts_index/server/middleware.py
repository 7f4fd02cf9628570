"""Middleware in pure ASGI (``https://asgi.readthedocs.io``), around and behind :class:`.auth.Guard`.

Every answer gets a request id and headers that keep browsers from guessing; nothing is kept unless a route says so.
The log holds neither sentences nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparse_sts_index.server.metrics import Metrics
from sparse_sts_index.server.problems import RefusedError, problem

logger = logging.getLogger("sparse_sts_index.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"}
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class _GoneError(Exception):
    """The client has closed the connection."""


class Observe:
    """Give each request an id, a line in the log and a place in the metrics, and turn refusals into problems.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id), *_HEADERS]
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except RefusedError as error:
            if not status:
                await _refuse(answer, error)
        except _GoneError:
            status = status or 499  # nginx's status for a closed connection
        except Exception as error:
            logger.error("request failed", exc_info=error, extra={"request_id": request_id.decode()})
            if not status:
                refused = RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong; it is in the log")
                await _refuse(answer, refused)
        self._record(scope, request_id, status, time.perf_counter() - start)

    def _record(self, scope: Scope, request_id: bytes, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        logger.info(
            "request",
            extra={
                "request_id": request_id.decode(),
                "client": (scope.get("client") or ("",))[0],
                "method": method,
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 2),
            },
        )


class Limits:
    """Bound a request's time and the size of its body, and drop it when its client has gone.

    Parameters
    ----------
    app : ASGI application
    timeout : float
        Seconds that a request may take.
    max_body : int
        Bytes that its body may have.
    """

    def __init__(self, app: ASGIApp, timeout: float, max_body: int) -> None:
        self._app, self._timeout, self._max_body = app, timeout, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then serve the request until it is done, too late or without a client."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._timeout
        headers = dict(scope["headers"])
        body = await self._body(headers, receive, deadline)
        _check_type(headers, body)
        arrived = False

        async def replay() -> Message:
            nonlocal arrived
            if arrived:
                return await receive()
            arrived = True
            return {"type": "http.request", "body": body, "more_body": False}

        working, has_gone = asyncio.current_task(), False
        assert working is not None

        async def watch() -> None:
            nonlocal has_gone
            while (await receive())["type"] != "http.disconnect":
                pass
            has_gone = True
            working.cancel()

        watching = asyncio.ensure_future(watch())
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                await self._app(scope, replay, send)
        except asyncio.CancelledError:
            if has_gone and not working.uncancel():
                raise _GoneError from None
            raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            detail = f"not done within {self._timeout:g} s"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, detail, **{"retry-after": "1"}) from error
        finally:
            watching.cancel()

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, deadline: float) -> bytes:
        detail = f"a body may have at most {self._max_body:,} bytes"
        too_large = RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._max_body:
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
                    if body > self._max_body:
                        raise too_large
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to arrive") from error


def _check_type(headers: dict[bytes, bytes], body: bytes) -> None:
    """JSON has to be called JSON: forms and plain text are what a browser sends for any page, unasked."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and kind != b"application/json":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json")


async def _refuse(send: Send, error: RefusedError) -> None:
    body = problem(error.status, error.detail)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": int(error.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
