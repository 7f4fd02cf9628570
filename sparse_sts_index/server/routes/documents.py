"""Add, update, get and delete sentences."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path

from sparse_sts_index.data.documents import Document
from sparse_sts_index.server import schemas
from sparse_sts_index.server.dependencies import ServiceOf, check_writable
from sparse_sts_index.server.problems import ALWAYS, WITH_BODY, problems
from sparse_sts_index.server.settings import MAX_PATH_ID_CHARACTERS

_DocumentId = Annotated[str, Path(min_length=1, max_length=MAX_PATH_ID_CHARACTERS, examples=["q17"])]
router = APIRouter(tags=["documents"])


@router.post(
    "/v1/documents",
    dependencies=[Depends(check_writable)],
    status_code=201,
    response_model=schemas.Added,
    responses=problems(*WITH_BODY, 403, 409),
)
async def add(request: schemas.DocumentsRequest, service: ServiceOf) -> dict[str, Any]:
    """Add sentences: all of them or, if an id is there already, none. They are durable when this answers."""
    await service.write(_documents(request), replace=False)
    return {"added": len(request.documents)}


@router.put(
    "/v1/documents",
    dependencies=[Depends(check_writable)],
    response_model=schemas.Updated,
    responses=problems(*WITH_BODY, 403),
)
async def update(request: schemas.DocumentsRequest, service: ServiceOf) -> dict[str, Any]:
    """Put sentences in the place of those with their ids; add those whose id is new."""
    replaced = await service.write(_documents(request), replace=True)
    return {"added": len(request.documents) - replaced, "replaced": replaced}


@router.post(
    "/v1/documents/delete",
    dependencies=[Depends(check_writable)],
    response_model=schemas.Deleted,
    responses=problems(*WITH_BODY, 403),
)
async def delete_many(request: schemas.DeleteRequest, service: ServiceOf) -> dict[str, Any]:
    """Delete sentences."""
    return {"deleted": await service.delete(request.ids)}


@router.get(
    "/v1/documents/{document_id:path}",
    response_model=schemas.DocumentResponse,
    responses=problems(*ALWAYS, 404, 422),
)
async def get(document_id: _DocumentId, service: ServiceOf) -> Document:
    """Get a sentence by its id."""
    document = await service.get(document_id)
    if document is None:
        raise HTTPException(404, "there is no such document")
    return document


@router.delete(
    "/v1/documents/{document_id:path}",
    dependencies=[Depends(check_writable)],
    response_model=schemas.Deleted,
    responses=problems(*ALWAYS, 403, 404, 422, 429),
)
async def delete(document_id: _DocumentId, service: ServiceOf) -> dict[str, Any]:
    """Delete a sentence."""
    if not await service.delete([document_id]):
        raise HTTPException(404, "there is no such document")
    return {"deleted": 1}


def _documents(request: schemas.DocumentsRequest) -> list[Document]:
    return [Document(document.id, document.text, "", document.fields) for document in request.documents]
