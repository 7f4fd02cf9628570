"""Problems of the service, by RFC 9457, and what its schema says of them."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import Response

PROBLEMS = {
    400: "The body is not JSON, or the request not HTTP.",
    401: "No token, or not the right one.",
    403: "The server was started without --writable.",
    404: "There is no such document.",
    408: "The body took too long to arrive.",
    409: "A document with one of the ids is in the index already.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    421: "Without a token, only localhost is served.",
    422: "A value is not as it should be.",
    429: "Too many sentences are waiting; Retry-After says when to come again.",
    503: "The request took too long, or the index is being replaced; come again.",
}


class RefusedError(Exception):
    """A request is answered with a problem by a middleware.

    Parameters
    ----------
    status : HTTPStatus
    detail : str
    headers : str
        Headers of the answer by name.
    """

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(status: int, detail: str) -> bytes:
    """Return the JSON of an error (RFC 9457)."""
    title = HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


def problem_answer(status: int, detail: str, **headers: str) -> Response:
    """Return a problem as an answer."""
    return Response(problem(status, detail), status, headers, "application/problem+json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI schema says of some statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": PROBLEMS[status], "content": content} for status in statuses}


#: Problems of every request, and of those with a body.
ALWAYS = (400, 401, 408, 421, 503)
WITH_BODY = (*ALWAYS, 413, 415, 422, 429)
