"""Search, score, explain and group."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from sparse_sts_index.data.filters import as_filter
from sparse_sts_index.server import schemas
from sparse_sts_index.server.dependencies import ServiceOf
from sparse_sts_index.server.problems import ALWAYS, WITH_BODY, problems
from sparse_sts_index.server.service import Asked, NotComparedError

router = APIRouter(tags=["queries"])


@router.post("/v1/search", response_model=schemas.SearchResponse, responses=problems(*WITH_BODY))
async def search(request: schemas.SearchRequest, service: ServiceOf) -> dict[str, Any]:
    """Find the nearest sentences of each query."""
    asked = Asked(
        request.k,
        request.mode,
        request.explain,
        as_filter(request.where),
        request.min_cosine,
        request.offset,
        request.group_by,
    )
    found = await service.search(request.queries, asked)
    results = [
        {"query": query, "certified": hits.certified, "bound": hits.bound, "hits": hits.hits}
        for query, hits in zip(request.queries, found, strict=True)
    ]
    return {"results": results}


@router.post("/v1/counts", response_model=schemas.CountsResponse, responses=problems(*WITH_BODY))
async def counts(request: schemas.CountsRequest, service: ServiceOf) -> dict[str, Any]:
    """Count the sentences with each value of a field."""
    found = await service.counts(request.field, as_filter(request.where))
    values = [{"value": value, "count": count} for value, count in itertools.islice(found.items(), request.limit)]
    return {"field": request.field, "values": len(found), "shown": values}


@router.post("/v1/score", response_model=schemas.ScoreResponse, responses=problems(*WITH_BODY))
async def score(request: schemas.ScoreRequest, service: ServiceOf) -> dict[str, Any]:
    """Score how similar the sentences of each pair are."""
    found = await service.cosines([(pair.sentence1, pair.sentence2) for pair in request.pairs])
    return {"results": [{"cosine": cosine, "score": graded} for cosine, graded in found]}


@router.post("/v1/explain", response_model=schemas.ExplainResponse, responses=problems(*WITH_BODY))
async def explain(request: schemas.ExplainRequest, service: ServiceOf) -> dict[str, Any]:
    """Explain each pair term by term and word by word."""
    found = await service.explain([(pair.sentence1, pair.sentence2) for pair in request.pairs])
    results = [
        {"cosine": pair.cosine, "score": graded, "shared": pair.shared, "first": pair.first, "second": pair.second}
        for pair, graded in found
    ]
    return {"results": results}


@router.get(
    "/v1/groups",
    response_model=schemas.GroupsResponse,
    responses={202: {"model": schemas.Progress, "description": "Not known yet."}, **problems(*ALWAYS, 422)},
)
async def groups(service: ServiceOf, query: Annotated[schemas.GroupsQuery, Query()]) -> dict[str, Any] | Response:
    """Group the sentences of the collection by pairs of at least that cosine."""
    try:
        found = await service.groups(query.threshold, query.limit)
    except NotComparedError as error:
        progress = schemas.Progress(progress=error.progress)
        return Response(progress.model_dump_json(), 202, {"retry-after": "1"}, "application/json")
    return {
        "threshold": query.threshold,
        "groups": len(found.groups),
        "sentences": sum(len(group.ids) for group in found.groups),
        "current": found.current,
        "shown": [
            {"size": len(group.ids), "weakest": group.weakest, "members": members} for group, members in found.shown
        ],
    }
