"""Search, score, explain and group."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from sparse_sts_index._utils.json import plain
from sparse_sts_index.server import schemas
from sparse_sts_index.server.answers import ALWAYS, WITH_BODY, json_answer, problems
from sparse_sts_index.server.dependencies import ServiceOf
from sparse_sts_index.server.routes.documents import document_body
from sparse_sts_index.server.service import NotComparedError
from sparse_sts_index.vectors.explanations import PairExplanation

_HITS_AT_ONCE = 1_000  # written as JSON in the event loop's own time
router = APIRouter(tags=["queries"])


@router.post(
    "/v1/search",
    response_model=schemas.SearchResponse,
    responses=problems(*WITH_BODY),
)
async def search(request: schemas.SearchRequest, service: ServiceOf) -> Response:
    """Find the nearest sentences of each query."""
    found = await service.search(request.queries, request.k, request.mode, explain=request.explain)
    results = [
        {"query": query, "certified": hits.certified, "bound": hits.bound, "hits": hits.hits}
        for query, hits in zip(request.queries, found, strict=True)
    ]
    if sum(map(len, found)) > _HITS_AT_ONCE:  # meanwhile others are served
        return await asyncio.to_thread(json_answer, {"results": results})
    return json_answer({"results": results})


@router.post("/v1/score", response_model=schemas.ScoreResponse, responses=problems(*WITH_BODY))
async def score(request: schemas.ScoreRequest, service: ServiceOf) -> Response:
    """Score how similar the sentences of each pair are."""
    found = await service.cosines([(pair.sentence1, pair.sentence2) for pair in request.pairs])
    return json_answer({"results": [{"cosine": cosine, "score": graded} for cosine, graded in found]})


@router.post("/v1/explain", response_model=schemas.ExplainResponse, responses=problems(*WITH_BODY))
async def explain(request: schemas.ExplainRequest, service: ServiceOf) -> Response:
    """Explain each pair term by term and word by word."""
    found = await service.explain([(pair.sentence1, pair.sentence2) for pair in request.pairs])
    return await asyncio.to_thread(_explanations, found)


@router.get(
    "/v1/groups",
    response_model=schemas.GroupsResponse,
    responses={202: {"model": schemas.Progress, "description": "Not known yet."}, **problems(*ALWAYS, 422)},
)
async def groups(
    service: ServiceOf,
    threshold: Annotated[schemas.Threshold, Query(description="The least cosine.")] = 0.9,
    limit: Annotated[int, Query(ge=1, le=500, description="Groups to show, of at most 2,000 sentences.")] = 50,
) -> Response:
    """Group the sentences of the collection by pairs of at least that cosine."""
    try:
        found = await service.groups(threshold, limit)
    except NotComparedError as error:
        return json_answer({"progress": error.progress}, 202, **{"retry-after": "1"})
    shown = [
        {"size": len(group.ids), "weakest": group.weakest, "members": [document_body(member) for member in members]}
        for group, members in found.shown
    ]
    sentences = sum(len(group.ids) for group in found.groups)
    counts = {"groups": len(found.groups), "sentences": sentences, "current": found.current}
    return json_answer({"threshold": threshold, **counts, "shown": shown})


def _explanations(found: list[tuple[PairExplanation, float | None]]) -> Response:
    return json_answer({"results": [{**plain(explained), "score": graded} for explained, graded in found]})
