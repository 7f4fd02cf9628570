"""The service over HTTP: routes, JSON, statuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from importlib import metadata, resources
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sparse_sts_index._utils.json import plain
from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.documents import Document
from sparse_sts_index.errors import DataError, SparseStsError
from sparse_sts_index.server import schemas
from sparse_sts_index.server.batching import ClosedError, OverloadedError
from sparse_sts_index.server.metrics import CONTENT_TYPE
from sparse_sts_index.server.middleware import Gate, logger, problem
from sparse_sts_index.server.service import ConflictError, NotComparedError, Service, UnavailableError
from sparse_sts_index.server.settings import LOWEST_THRESHOLD, MAX_PATH_ID_CHARACTERS
from sparse_sts_index.vectors.explanations import PairExplanation

_HITS_AT_ONCE = 1_000  # written as JSON in the event loop's own time
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_DocumentId = Annotated[str, Path(min_length=1, max_length=MAX_PATH_ID_CHARACTERS, examples=["q17"])]
_PROBLEMS = {
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
_DESCRIPTION = """Which sentences mean the same as this one, how similar are they, and why?

The cosine is that of two SPLADE vectors: the sum of what the terms add that the sentences share."""


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in statuses}


_ALWAYS = (400, 401, 408, 421, 503)
_WITH_BODY = (*_ALWAYS, 413, 415, 422, 429)


def create_app(service: Service) -> FastAPI:
    """The application for a service that is loaded, which it closes at its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            service.start()
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="sparse-sts-index",
        description=_DESCRIPTION,
        version=metadata.version("sparse-sts-index"),
        lifespan=lifespan,
        docs_url=None,  # which would load a script from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    _describe(app, service)
    _handle_errors(app)
    _add_queries(app, service)
    _add_documents(app, service)
    _add_operations(app, service)
    _add_page(app)
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics)
    return app


def _json(value: Any, status: int = 200, **headers: str) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain).encode()
    return Response(body, status, {"cache-control": "no-store", **headers}, "application/json")


def _problem(status: int, detail: str, **headers: str) -> Response:
    return Response(problem(status, detail), status, headers, "application/problem+json")


def _describe(app: FastAPI, service: Service) -> None:
    """The OpenAPI schema, with the errors and the token in it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = schemas.Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            if service.settings.token is not None:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, operations in schema["paths"].items():
                    if path.startswith(("/v1", "/metrics")):
                        for operation in operations.values():
                            operation["security"] = [{"token": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        if any(e["type"] == "json_invalid" for e in errors):
            return _problem(400, "the body is not JSON")
        details = [f"{printable('.'.join(map(str, e['loc'])))}: {e['msg']}" for e in errors[:5]]
        return _problem(422, "; ".join(details))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return _problem(error.status_code, str(error.detail), **headers)

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, error: OverloadedError) -> Response:
        return _problem(429, str(error), **{"retry-after": str(error.retry_after)})

    @app.exception_handler(ConflictError)
    async def conflict(_: Request, error: ConflictError) -> Response:
        return _problem(409, str(error))

    @app.exception_handler(DataError)
    async def bad_data(_: Request, error: DataError) -> Response:
        return _problem(422, str(error))

    async def unavailable(_: Request, error: Exception) -> Response:
        return _problem(503, str(error), **{"retry-after": "1"})

    for kind in (UnavailableError, ClosedError):
        app.exception_handler(kind)(unavailable)

    @app.exception_handler(SparseStsError)
    async def failed(_: Request, error: SparseStsError) -> Response:
        logger.error("the index failed: %s", error)  # with paths in it, which are nobody's business
        return _problem(503, "the index cannot be used; the log says why")


def _add_queries(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/search",
        tags=["queries"],
        response_model=schemas.SearchResponse,
        responses=_problems(*_WITH_BODY),
    )
    async def search(request: schemas.SearchRequest) -> Response:
        """The nearest sentences of each query."""
        found = await service.search(request.queries, request.k, request.mode, explain=request.explain)
        results = [
            {"query": query, "certified": hits.certified, "bound": hits.bound, "hits": hits.hits}
            for query, hits in zip(request.queries, found, strict=True)
        ]
        if sum(map(len, found)) > _HITS_AT_ONCE:  # meanwhile others are served
            return await asyncio.to_thread(_json, {"results": results})
        return _json({"results": results})

    @app.post("/v1/score", tags=["queries"], response_model=schemas.ScoreResponse, responses=_problems(*_WITH_BODY))
    async def score(request: schemas.ScoreRequest) -> Response:
        """How similar the sentences of each pair are."""
        found = await service.cosines([(pair.sentence1, pair.sentence2) for pair in request.pairs])
        return _json({"results": [{"cosine": cosine, "score": graded} for cosine, graded in found]})

    @app.post("/v1/explain", tags=["queries"], response_model=schemas.ExplainResponse, responses=_problems(*_WITH_BODY))
    async def explain(request: schemas.ExplainRequest) -> Response:
        """Why: each pair term by term and word by word."""
        found = await service.explain([(pair.sentence1, pair.sentence2) for pair in request.pairs])
        return await asyncio.to_thread(_explanations, found)

    @app.get(
        "/v1/groups",
        tags=["queries"],
        response_model=schemas.GroupsResponse,
        responses={202: {"model": schemas.Progress, "description": "Not known yet."}, **_problems(*_ALWAYS, 422)},
    )
    async def groups(
        threshold: Annotated[schemas.Threshold, Query(description="The least cosine.")] = 0.9,
        limit: Annotated[int, Query(ge=1, le=500, description="Groups to show, of at most 2,000 sentences.")] = 50,
    ) -> Response:
        """Groups of sentences of the collection that hang together by pairs of at least that cosine."""
        try:
            found = await service.groups(threshold, limit)
        except NotComparedError as error:
            return _json({"progress": error.progress}, 202, **{"retry-after": "1"})
        shown = [
            {"size": len(group.ids), "weakest": group.weakest, "members": [_document(member) for member in members]}
            for group, members in found.shown
        ]
        sentences = sum(len(group.ids) for group in found.groups)
        counts = {"groups": len(found.groups), "sentences": sentences, "current": found.current}
        return _json({"threshold": threshold, **counts, "shown": shown})


def _explanations(found: list[tuple[PairExplanation, float | None]]) -> Response:
    return _json({"results": [{**plain(explained), "score": graded} for explained, graded in found]})


def _document(document: Document) -> dict[str, str]:
    return {"id": document.id, "text": document.text}


def _add_documents(app: FastAPI, service: Service) -> None:
    def check_writable() -> None:
        if not service.settings.writable:
            raise HTTPException(403, "the server is read-only; start it with --writable")

    def documents_of(request: schemas.DocumentsRequest) -> list[Document]:
        return [Document(document.id, document.text) for document in request.documents]

    @app.post(
        "/v1/documents",
        tags=["documents"],
        status_code=201,
        response_model=schemas.Added,
        responses=_problems(*_WITH_BODY, 403, 409),
    )
    async def add(request: schemas.DocumentsRequest) -> Response:
        """Add sentences: all of them or, if an id is there already, none. They are durable when this answers."""
        check_writable()
        await service.write(documents_of(request), replace=False)
        return _json({"added": len(request.documents)}, 201)

    @app.put(
        "/v1/documents",
        tags=["documents"],
        response_model=schemas.Updated,
        responses=_problems(*_WITH_BODY, 403),
    )
    async def update(request: schemas.DocumentsRequest) -> Response:
        """Put sentences in the place of those with their ids; add those whose id is new."""
        check_writable()
        replaced = await service.write(documents_of(request), replace=True)
        return _json({"added": len(request.documents) - replaced, "replaced": replaced})

    @app.post(
        "/v1/documents/delete",
        tags=["documents"],
        response_model=schemas.Deleted,
        responses=_problems(*_WITH_BODY, 403),
    )
    async def delete_many(request: schemas.DeleteRequest) -> Response:
        """Delete sentences."""
        check_writable()
        return _json({"deleted": await service.delete(request.ids)})

    @app.get(
        "/v1/documents/{document_id:path}",
        tags=["documents"],
        response_model=schemas.DocumentResponse,
        responses=_problems(*_ALWAYS, 404, 422),
    )
    async def get(document_id: _DocumentId) -> Response:
        """A sentence by its id."""
        document = await service.get(document_id)
        if document is None:
            raise HTTPException(404, "there is no such document")
        return _json(_document(document))

    @app.delete(
        "/v1/documents/{document_id:path}",
        tags=["documents"],
        response_model=schemas.Deleted,
        responses=_problems(*_ALWAYS, 403, 404, 422, 429),
    )
    async def delete(document_id: _DocumentId) -> Response:
        """Delete a sentence."""
        check_writable()
        if not await service.delete([document_id]):
            raise HTTPException(404, "there is no such document")
        return _json({"deleted": 1})


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/v1/index", tags=["operations"], response_model=schemas.IndexResponse, responses=_problems(*_ALWAYS))
    async def index() -> Response:
        """What is served."""
        manifest, calibration = service.index.manifest, service.encoder.calibration
        return _json(
            {
                "name": service.index.path.name,
                "documents": manifest.documents,
                "empty_documents": manifest.empty_documents,
                "model": manifest.model.rstrip("/").rsplit("/", 1)[-1],  # not where on this machine it is
                "bits": manifest.bits,
                "precision": manifest.precision,
                "writable": service.settings.writable,
                "updated": manifest.updated,
                "scale": None if calibration is None else calibration.scale,
                "version": app.version,
                "lowest_threshold": LOWEST_THRESHOLD,
            }
        )

    @app.get("/healthz", tags=["operations"], response_model=schemas.Status, responses=_problems(408, 421, 503))
    async def health() -> Response:
        """Whether the process lives."""
        return _json({"status": "ok"})

    @app.get("/readyz", tags=["operations"], response_model=schemas.Status, responses=_problems(408, 421, 503))
    async def ready() -> Response:
        """Whether it can answer queries."""
        if service.problem is not None:
            return _problem(503, service.problem, **{"retry-after": "1"})
        return _json({"status": "ready"})

    @app.get(
        "/metrics",
        tags=["operations"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems(*_ALWAYS)},
    )
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        service.metrics.queued.set(service.waiting)
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_page(app: FastAPI) -> None:
    folder = resources.files("sparse_sts_index.server") / "page"
    for path, (name, kind) in _PAGE.items():
        content = (folder / name).read_bytes()
        headers = {"content-security-policy": _PAGE_POLICY, "cache-control": "no-cache"}
        answer = Response(content, headers=headers, media_type=kind)
        app.add_api_route(path, _always(answer), include_in_schema=False)


def _always(answer: Response) -> Any:
    async def page() -> Response:
        return answer

    return page
