"""What is found: hits of a query, pairs that are similar, groups that hang together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from sparse_sts_index.data.documents import Document
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.encoding.calibration import Calibration
from sparse_sts_index.search.linkage import Linkage
from sparse_sts_index.vectors.explanations import TermContribution


@dataclass(frozen=True, slots=True)
class Hit:
    """A sentence found.

    Attributes
    ----------
    id, text : str
        The document.
    cosine : float
        With the query, in float.
    score : float or None
        The cosine on the scale that people grade on, if the model has a calibration.
    explanation : tuple of TermContribution, or None
        The shared terms, whose contributions sum to the cosine, if they were asked for.
    fields : mapping of str to str, float, bool, datetime or tuple of str
        What else the document has.
    """

    id: str
    text: str
    cosine: float
    score: float | None = None
    explanation: tuple[TermContribution, ...] | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The hits of one query, a sequence, with what is known of them as a whole.

    Attributes
    ----------
    hits : tuple of Hit
        By cosine descending, equal ones by id.
    certified : bool
        Whether they are proved to be the nearest of all, in the order of brute force.
    bound : float
        No other sentence has a higher cosine.
    """

    hits: tuple[Hit, ...]
    certified: bool
    bound: float

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, item: int) -> Hit: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, item: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[item]


def merge_hits(parts: Sequence[Hits], k: int) -> Hits:
    """The hits of one query in a whole, of its hits in parts that have no document in common, `k` at most in each."""
    hits = sorted((hit for part in parts for hit in part), key=lambda hit: (-hit.cosine, hit.id))
    bound = max([part.bound for part in parts] + [hit.cosine for hit in hits[k : k + 1]])
    return Hits(tuple(hits[:k]), all(part.certified for part in parts), bound)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences that are similar.

    Attributes
    ----------
    first, second : Document
        The one that was added earlier is the first.
    cosine : float
        In float.
    """

    first: Document
    second: Document
    cosine: float


@dataclass(frozen=True, slots=True)
class Group:
    """Sentences that hang together.

    Attributes
    ----------
    ids : tuple of str
        In the order of addition.
    weakest : float
        The lowest cosine that it takes to hold them together.
    """

    ids: tuple[str, ...]
    weakest: float


class Groups:
    """Which sentences of one state of an index hang together above any threshold, from a least one on.

    Made by :meth:`SparseStsIndex.groups`; holds no files.

    Attributes
    ----------
    threshold : float
        The least one.
    """

    def __init__(self, linkage: Linkage, ids: dict[int, str]) -> None:
        self._linkage, self._ids = linkage, ids
        self.threshold = linkage.threshold

    def above(self, threshold: float) -> list[Group]:
        """The groups of sentences that hang together by pairs whose cosine is at least `threshold`, largest first.

        Raises
        ------
        ValueError
            `threshold` is below the least one.
        """
        found = self._linkage.clusters(threshold)
        return [Group(tuple(self._ids[row] for row in rows.tolist()), weakest) for rows, weakest in found]


def scored(hits: Hits, calibration: Calibration) -> Hits:
    """Hits with the scores that a calibration gives to their cosines."""
    scores = calibration(np.array([hit.cosine for hit in hits])).tolist()
    scored = [
        Hit(hit.id, hit.text, hit.cosine, score, hit.explanation) for hit, score in zip(hits, scores, strict=True)
    ]
    return Hits(tuple(scored), hits.certified, hits.bound)
