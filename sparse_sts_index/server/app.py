"""The application: routers, errors as problems, the OpenAPI schema."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException

from sparse_sts_index._utils.text import printable
from sparse_sts_index.errors import DataError, SparseStsError
from sparse_sts_index.server import schemas
from sparse_sts_index.server.auth import Guard
from sparse_sts_index.server.batching import ClosedError, OverloadedError
from sparse_sts_index.server.middleware import Limits, Observe, logger
from sparse_sts_index.server.problems import problem_answer
from sparse_sts_index.server.routes import documents, operations, queries
from sparse_sts_index.server.routes.page import page_router
from sparse_sts_index.server.service import ConflictError, Service, UnavailableError

_DESCRIPTION = """Which sentences mean the same as this one, how similar are they, and why?

The cosine is that of two SPLADE vectors: the sum of what the terms add that the sentences share."""


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
    app.state.service = service
    for router in (queries.router, documents.router, operations.router, page_router()):
        app.include_router(router)
    settings = service.settings
    app.add_middleware(Limits, timeout=settings.timeout, max_body=settings.max_body)
    app.add_middleware(Guard, token=settings.token)
    app.add_middleware(Observe, metrics=service.metrics)
    return app


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
            return problem_answer(400, "the body is not JSON")
        details = [f"{printable('.'.join(map(str, e['loc'])))}: {e['msg']}" for e in errors[:5]]
        return problem_answer(422, "; ".join(details))

    @app.exception_handler(ResponseValidationError)
    async def misfit(_: Request, error: ResponseValidationError) -> Response:
        logger.error("an answer does not fit its schema: %s", {e["type"] for e in error.errors()})  # no values
        return problem_answer(500, "something went wrong; it is in the log")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return problem_answer(error.status_code, str(error.detail), **headers)

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, error: OverloadedError) -> Response:
        return problem_answer(429, str(error), **{"retry-after": str(error.retry_after)})

    @app.exception_handler(ConflictError)
    async def conflict(_: Request, error: ConflictError) -> Response:
        return problem_answer(409, str(error))

    @app.exception_handler(DataError)
    async def bad_data(_: Request, error: DataError) -> Response:
        return problem_answer(422, str(error))

    async def unavailable(_: Request, error: Exception) -> Response:
        return problem_answer(503, str(error), **{"retry-after": "1"})

    for kind in (UnavailableError, ClosedError):
        app.exception_handler(kind)(unavailable)

    @app.exception_handler(SparseStsError)
    async def failed(_: Request, error: SparseStsError) -> Response:
        logger.error("the index failed: %s", error)  # with paths in it, which are nobody's business
        return problem_answer(503, "the index cannot be used; the log says why")
