"""The page, and what it loads."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import APIRouter, Response

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def page_router() -> APIRouter:
    """Return the routes of the page; its files are read once."""
    router = APIRouter(include_in_schema=False)
    folder = resources.files("sparse_sts_index.server") / "page"
    for path, (name, kind) in _PAGE.items():
        content = (folder / name).read_bytes()
        headers = {"content-security-policy": _PAGE_POLICY, "cache-control": "no-cache"}
        answer = Response(content, headers=headers, media_type=kind)
        router.add_api_route(path, _always(answer))
    return router


def _always(answer: Response) -> Any:
    async def page() -> Response:
        return answer

    return page
