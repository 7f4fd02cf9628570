"""Access to the service: the host, and the token."""

from __future__ import annotations

import hmac
import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from sparse_sts_index.server.problems import RefusedError
from sparse_sts_index.server.settings import is_loopback

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")


class Guard:
    """Refuse requests for other hosts, without the token, or for paths that no route can have.

    A middleware and not a dependency of the routes, because FastAPI reads and parses the body before dependencies run.

    Parameters
    ----------
    app : ASGI application
    token : str or None
        Without a token, only this machine's own names are served.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that may be served."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if "\n" in scope["path"] or not _is_utf8(scope.get("raw_path")):  # ends for routes; another document's id
                raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such path")
            if self._token is None:
                _check_host(headers.get(b"host", b""))
            elif scope["path"].startswith(("/v1", "/metrics")):
                _check_token(headers.get(b"authorization", b""), self._token)
        await self._app(scope, receive, send)


def _check_host(host: bytes) -> None:
    """Refuse other names than this machine's own: a web page can have its own name point here."""
    match = _HOST.fullmatch(host.decode("latin-1").lower())
    if match is None or not is_loopback(match[1].strip("[]")):
        raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "without a token, only localhost is served")


def _check_token(authorization: bytes, token: str) -> None:
    scheme, _, given = authorization.partition(b" ")
    right = hmac.compare_digest(given.strip(), token.encode())
    if scheme.lower() != b"bearer" or not right:
        raise RefusedError(
            HTTPStatus.UNAUTHORIZED, "needs Authorization: Bearer, and the right token",
            **{"www-authenticate": "Bearer"},
        )  # fmt: skip


def _is_utf8(raw_path: bytes | None) -> bool:
    """Return whether a path is valid UTF-8: servers decode ``%ff`` to U+FFFD, which could be the id of a document."""
    try:
        unquote_to_bytes(raw_path or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
