"""Say what is served, and how the service does."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import APIRouter, Response

from sparse_sts_index.server import schemas
from sparse_sts_index.server.dependencies import ServiceOf
from sparse_sts_index.server.metrics import CONTENT_TYPE
from sparse_sts_index.server.problems import ALWAYS, problems
from sparse_sts_index.server.service import UnavailableError
from sparse_sts_index.server.settings import LOWEST_THRESHOLD

_VERSION = metadata.version("sparse-sts-index")
router = APIRouter(tags=["operations"])


@router.get("/v1/index", response_model=schemas.IndexResponse, responses=problems(*ALWAYS))
async def index(service: ServiceOf) -> dict[str, Any]:
    """Describe the index that is served."""
    manifest, calibration = service.index.manifest, service.encoder.calibration
    return {
        "name": service.index.path.name,
        "documents": manifest.documents,
        "empty_documents": manifest.empty_documents,
        "model": manifest.model.rstrip("/").rsplit("/", 1)[-1],  # not where on this machine it is
        "bits": manifest.bits,
        "precision": manifest.precision,
        "writable": service.settings.writable,
        "updated": manifest.updated,
        "scale": None if calibration is None else calibration.scale,
        "version": _VERSION,
        "lowest_threshold": LOWEST_THRESHOLD,
        "fields": manifest.fields,
    }


@router.get("/healthz", response_model=schemas.Status, responses=problems(408, 421, 503))
async def health() -> dict[str, Any]:
    """Tell that the process is alive."""
    return {"status": "ok"}


@router.get("/readyz", response_model=schemas.Status, responses=problems(408, 421, 503))
async def ready(service: ServiceOf) -> dict[str, Any]:
    """Tell whether queries can be answered."""
    if service.problem is not None:
        raise UnavailableError(service.problem)
    return {"status": "ready"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(*ALWAYS)},
)
async def metrics(service: ServiceOf) -> Response:
    """Report counts and times, for Prometheus."""
    service.metrics.queued.set(service.waiting)
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})
