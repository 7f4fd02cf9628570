"""The service's JSON: what it takes and what it gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from sparse_sts_index.server.settings import (
    LOWEST_THRESHOLD,
    MAX_CHARACTERS,
    MAX_EXPLAINED,
    MAX_HITS,
    MAX_ID_CHARACTERS,
    MAX_K,
    MAX_PAIRS,
    MAX_SENTENCES,
)

Sentence = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARACTERS, pattern=r"\S")]
Threshold = Annotated[float, Field(ge=LOWEST_THRESHOLD, le=1, allow_inf_nan=False)]


def _whole(value: object) -> object:
    """10.0 is a whole number to JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Where = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)] | dict[str, Any] | None
#: ISO 8601 for a date.
FieldBody = bool | float | str | list[str] | None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(_Request):
    """Queries, and what to find for each; at most 10,000 hits in all, or 1,000 explained ones."""

    queries: list[Sentence] = Field(min_length=1, max_length=MAX_SENTENCES, examples=[["Three girls paint a fence."]])
    k: Whole = Field(10, ge=1, le=MAX_K, description="Hits a query.")
    mode: Literal["exact", "two-step", "approximate"] = Field(
        "exact", description="`exact` hits are proved to be the nearest."
    )
    explain: bool = Field(False, description="Give each hit the terms that it shares with the query.")
    where: Where = Field(
        None,
        description="Look only among the sentences whose fields pass this filter; as text or as JSON.",
        examples=['product = "router" and created >= 2026-01-01'],
    )
    min_cosine: float = Field(0.0, ge=0, le=1, allow_inf_nan=False, description="Leave out hits with less.")
    offset: Whole = Field(0, ge=0, le=MAX_K, description="Leave out as many of the nearest: the next page.")

    group_by: Name | None = Field(None, description="Give the nearest sentence of each value of this field.")

    @model_validator(mode="after")
    def check_size(self) -> Self:
        """Bound the answer."""
        most = MAX_EXPLAINED if self.explain else MAX_HITS
        if len(self.queries) * (self.k + self.offset) > most:
            raise ValueError(
                f"queries times k, offset included, may be at most {most:,}" + " to explain" * self.explain
            )
        return self


class CountsRequest(_Request):
    """A field whose values are counted."""

    field: Name = Field(examples=["product"])
    where: Where = Field(None, description="Count only the sentences whose fields pass this filter.")
    limit: Whole = Field(20, ge=1, le=MAX_K, description="Values to give, the most frequent ones.")


class GroupsQuery(BaseModel):
    """The groups that are asked for."""

    model_config = ConfigDict(extra="forbid")

    threshold: Threshold = Field(0.9, description="The least cosine.")
    limit: int = Field(50, ge=1, le=500, description="Groups to show, of at most 2,000 sentences.")


class ValueCount(BaseModel):
    """A value, and the number of sentences that have it."""

    value: str | bool
    count: int


class CountsResponse(BaseModel):
    """Values of a field, the most frequent first."""

    field: str
    values: int = Field(description="In all.")
    shown: list[ValueCount]


class SentencePair(_Request):
    """Two sentences."""

    sentence1: Sentence = Field(examples=["A cat sleeps."])
    sentence2: Sentence = Field(examples=["The kitten is asleep."])


class ScoreRequest(_Request):
    """Pairs to score."""

    pairs: list[SentencePair] = Field(min_length=1, max_length=MAX_SENTENCES // 2)


class ExplainRequest(_Request):
    """Pairs to explain."""

    pairs: list[SentencePair] = Field(min_length=1, max_length=MAX_PAIRS)


class DocumentBody(_Request):
    """A sentence with its id."""

    id: Id = Field(examples=["q17"])
    text: Sentence = Field(examples=["How do I reset my router's password?"])
    fields: dict[str, FieldBody] = Field(default_factory=dict, max_length=100, description="Those that the index has.")


class DocumentsRequest(_Request):
    """Documents; no id twice."""

    documents: list[DocumentBody] = Field(min_length=1, max_length=MAX_SENTENCES)


class DeleteRequest(_Request):
    """Ids; those that are not there are passed over."""

    ids: list[Id] = Field(min_length=1, max_length=MAX_SENTENCES, examples=[["q17", "q23"]])


class Term(BaseModel):
    """A term that query and hit share."""

    term: str = Field(examples=["fence"])
    query_weight: float
    document_weight: float
    contribution: float = Field(description="Product of the weights; a hit's contributions sum to its cosine.")


class HitBody(BaseModel):
    """A sentence found."""

    id: str = Field(examples=["s0770"])
    text: str = Field(examples=["Three girls are painting a fence green."])
    cosine: float = Field(examples=[0.8497])
    score: float | None = Field(description="On the scale that people grade on, if the model is calibrated.")
    explanation: list[Term] | None = None
    fields: dict[str, bool | float | str | list[str] | datetime] = {}


class SearchResult(BaseModel):
    """The hits of one query, by cosine descending, equal ones by id."""

    query: str
    certified: bool = Field(description="Whether they are proved to be the nearest of all.")
    bound: float = Field(description="No other sentence has a higher cosine.")
    hits: list[HitBody]


class SearchResponse(BaseModel):
    """A result for each query."""

    results: list[SearchResult]


class Score(BaseModel):
    """How similar a pair is."""

    cosine: float = Field(examples=[0.52])
    score: float | None


class ScoreResponse(BaseModel):
    """A score for each pair."""

    results: list[Score]


class Traced(BaseModel):
    """A term in one sentence."""

    weight: float
    literal: bool = Field(description="One of the sentence's own tokens; otherwise the model has added it.")
    word: int | None = Field(description="The word that it comes from, by its place in `words`.")


class Shared(BaseModel):
    """A term that both sentences have."""

    term: str
    contribution: float
    first: Traced
    second: Traced


class Lone(Traced):
    """A term that only this sentence has."""

    term: str


class WordBody(BaseModel):
    """Where a word is, in Unicode code points, and what the terms that come from it add to the cosine."""

    start: int
    end: int
    contribution: float


class Side(BaseModel):
    """One sentence of a pair."""

    words: list[WordBody]
    alone: list[Lone]


class Explanation(BaseModel):
    """A pair, term by term and word by word."""

    cosine: float
    score: float | None
    shared: list[Shared]
    first: Side
    second: Side


class ExplainResponse(BaseModel):
    """An explanation for each pair."""

    results: list[Explanation]


class Added(BaseModel):
    """How many documents were added."""

    added: int


class Updated(BaseModel):
    """How many documents were added, and how many took the place of others."""

    added: int
    replaced: int


class Deleted(BaseModel):
    """How many documents were deleted."""

    deleted: int


class DocumentResponse(BaseModel):
    """A sentence with its id."""

    id: str
    text: str
    fields: dict[str, bool | float | str | list[str] | datetime] = {}


class GroupBody(BaseModel):
    """Sentences that hang together."""

    size: int
    weakest: float = Field(description="The lowest cosine that it takes to hold them together.")
    members: list[DocumentResponse] = Field(description="At most 100.")


class GroupsResponse(BaseModel):
    """Groups of similar sentences, the largest first."""

    threshold: float
    groups: int = Field(description="In all.")
    sentences: int = Field(description="In all groups.")
    current: bool = Field(description="Otherwise the index has changed since, and is being compared anew.")
    shown: list[GroupBody]


class Progress(BaseModel):
    """The collection is being compared with itself; ask again."""

    progress: float = Field(ge=0, le=1)


class IndexResponse(BaseModel):
    """What is served."""

    name: str
    documents: int
    empty_documents: int = Field(description="Sentences without any term, which are never found.")
    model: str
    bits: int
    precision: str
    writable: bool
    updated: str
    scale: list[float] | None = Field(description="Lowest and highest score, if the model is calibrated.")
    version: str
    lowest_threshold: float
    fields: dict[str, str] = Field(description="The type of each field, by name.")


class Status(BaseModel):
    """How the server is."""

    status: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
