r"""Nearest neighbours by float cosine, out of integer impacts, and the proof that none was missed.

Lucene finds candidates by their impacts, the float vectors score them, and a bound says what an unseen document can
have at most. For a unit query :math:`u`, split into the terms :math:`H` that Lucene is asked for and the rest,
:math:`T`, and a unit document :math:`v` with impacts :math:`q`, :math:`\hat v = q / S`, Lucene's score is

.. math:: s = u_H \cdot \hat v, \qquad |u_H \cdot v - s| \le \delta
          = \min(\lVert u_H \rVert_2 \, \epsilon, \; \lVert u_H \rVert_1 / 2S),

where :math:`\epsilon` is the largest :math:`\lVert \hat v - v \rVert_2` of the collection, and no weight is rounded by
more than half a step. A document that Lucene did not return has no higher a score than the last that it did, so
:math:`h = u_H \cdot v \le \bar h = s_{last} + \delta`. As :math:`\lVert v_H \rVert \ge h / \lVert u_H \rVert` and
:math:`v` is of unit length, what the rest of the terms can add is, by Cauchy and Schwarz, at most :math:`\lVert u_T
\rVert \sqrt{1 - (h / \lVert u_H \rVert)^2}`. The sum of both grows with :math:`h` until :math:`h = \lVert u_H
\rVert^2`, where it is 1, so

.. math:: \cos(u, v) \le \bar h + \lVert u_T \rVert \sqrt{1 - (\bar h / \lVert u_H \rVert)^2}
          \quad \text{if } \bar h < \lVert u_H \rVert^2, \text{ else } 1.

When the k-th best candidate's cosine is above that bound, the k best candidates are the k nearest of all: certified.
Leaving out light terms makes Lucene's work much less and the bound a little looser. Splitting off terms is the first
step of Two-Step SPLADE (Lassance, Dejean, Clinchant and Tonellotto 2024, arXiv:2404.13357); the bound is this module's.
"""

from __future__ import annotations

import bisect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from sparse_sts_index._utils.numbers import check_whole
from sparse_sts_index.data.filters import Filter
from sparse_sts_index.storage.snapshot import Snapshot
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.sparse import Vectors

Mode = Literal["exact", "two-step", "approximate"]

#: Allows for vectors in float32, whose length is not quite 1, and for Lucene's sums in float32.
_FLOAT32 = 2e-6
_TINY = np.finfo(np.float64).tiny  # the least cosine that counts


@dataclass(frozen=True, slots=True)
class Step:
    """How one step of a search is made.

    Attributes
    ----------
    rest : float
        The lightest terms of the query are left out, as many as have at most this length together.
    factor, extra : int
        Candidates to fetch for k hits: ``factor * k + extra``.
    """

    rest: float
    factor: int
    extra: int

    def candidates(self, k: int) -> int:
        """Return how many candidates to fetch for `k` hits."""
        return self.factor * k + self.extra


#: The steps of each mode, each taken if the one before it has proved nothing. After the last one of ``exact`` come all.
STEPS: dict[Mode, tuple[Step, ...]] = {
    "exact": (Step(0.01, 1, 20), Step(0.0, 8, 160)),
    "two-step": (Step(0.25, 2, 20),),
    "approximate": (Step(0.4, 2, 0),),
}


#: How far from 1 the length of a unit vector may be: far above float32's rounding.
_LENGTH_ERROR = 1e-4


def check_search(k: int, mode: str) -> None:
    """Refuse what no search can be made with.

    Raises
    ------
    ValueError
        `k` is not a whole number of at least 1, or no such `mode`.
    """
    check_whole("k", k, 1, math.inf)  # beyond the number of documents, all of them
    if mode not in STEPS:
        raise ValueError(f"mode must be one of {', '.join(STEPS)}, not {mode!r}")


def check_vectors(vectors: csr_array, vocabulary: int) -> csr_array:
    """Queries that the bound holds for, as csr_array of float32 with sorted indices.

    Raises
    ------
    ValueError
        They are not sparse, not valid, not as wide as the vocabulary, not of unit length (or empty), or have weights
        that are negative or not finite.
    """
    if not issparse(vectors):
        raise ValueError(f"vectors must be a csr_array, not {type(vectors).__name__}")
    try:
        vectors = csr_array(vectors)
        vectors.check_format(full_check=True)  # compiled code and scipy believe what is said of places
    except ValueError as error:
        raise ValueError(f"vectors is no valid csr_array: {error}") from error
    if vectors.shape[1:] != (vocabulary,):
        raise ValueError(f"vectors must have {vocabulary} columns, not the shape {vectors.shape}")
    if not vectors.has_canonical_format:
        vectors = vectors.copy()
        vectors.sum_duplicates()
    vectors = vectors.astype(np.float32, copy=False)
    if vectors.nnz and not (vectors.data.min() >= 0 and np.isfinite(vectors.data).all()):
        raise ValueError("weights must be numbers, and not negative")
    lengths = np.sqrt(vectors.multiply(vectors).sum(axis=1, dtype=np.float64))
    for row in np.flatnonzero((lengths > 0) & (np.abs(lengths - 1) > _LENGTH_ERROR)):
        raise ValueError(f"vectors must be L2-normalised (l2_normalize); row {row} has length {lengths[row]:.6g}")
    return vectors


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What was found for one query.

    Attributes
    ----------
    rows : list of int, length m <= k
        Rows of the vectors.
    ids : list of str, length m
    cosines : list of float, length m
        Float cosines, descending; equal ones by id, ascending.
    certified : bool
        Whether this is proved to be what brute force would find.
    bound : float
        No document that is not among the hits, nor nearer than the first of them, has a higher cosine.
    """

    rows: list[int]
    ids: list[str]
    cosines: list[float]
    certified: bool
    bound: float

    def firsts(self, values: Sequence[object]) -> Neighbours:
        """Return it with the first of each value alone.

        Parameters
        ----------
        values : sequence, length m
        """
        places: dict[object, int] = {}
        for place, value in enumerate(values):
            places.setdefault(value, place)
        return self._only([*places.values()], self.bound)

    def first(self, k: int) -> Neighbours:
        """Return it with the first k alone."""
        return self._only(range(min(k, len(self.rows))), max(self.bound, *self.cosines[k : k + 1], 0.0))

    def _only(self, places: Sequence[int], bound: float) -> Neighbours:
        rows, ids = [self.rows[place] for place in places], [self.ids[place] for place in places]
        return Neighbours(rows, ids, [self.cosines[place] for place in places], self.certified, bound)

    def part(self, offset: int, min_cosine: float) -> Neighbours:
        """Return it without the first `offset`, and without those below `min_cosine`."""
        stop = bisect.bisect_right(self.cosines, -min_cosine, key=operator.neg) if min_cosine > 0 else len(self.cosines)
        if offset == 0 and stop == len(self.cosines):
            return self
        return self._only(range(offset, stop), max(self.bound, *self.cosines[stop : stop + 1], 0.0))


#: Of a query without a term.
NONE = Neighbours([], [], [], True, 0.0)


class _Certifiable(Protocol):
    @property
    def certified(self) -> bool: ...


Result = TypeVar("Result", bound=_Certifiable)


class _Query:
    """A query, its heaviest terms first."""

    def __init__(self, vectors: csr_array, row: int) -> None:
        entries = slice(vectors.indptr[row], vectors.indptr[row + 1])
        weights, terms = vectors.data[entries].tolist(), vectors.indices[entries].tolist()
        heaviest = sorted(zip(weights, terms, strict=True), reverse=True)
        self.weights, self.terms = [weight for weight, _ in heaviest], [term for _, term in heaviest]
        self.length = math.hypot(*self.weights)

    def heaviest(self, step: Step) -> int:
        """How many terms to search for in a step."""
        left, square = len(self.weights), step.rest * step.rest
        for weight in reversed(self.weights):
            square -= weight * weight
            if square < 0 or left == 1:
                break
            left -= 1
        return left

    def bound(self, score: float, searched: int, scale: int, error: float) -> float:
        """The highest cosine of a document that scores at most `score`; see this module's head.

        Parameters
        ----------
        score : float
            Lucene's, over the documents' scale, for the first `searched` terms.
        searched : int
        scale : int
            Of the documents' quantizer.
        error : float
            The largest rounding error of a document, :meth:`~sparse_sts_index.vectors.quantizer.Quantizer.errors`.
        """
        head, tail = math.hypot(*self.weights[:searched]), math.hypot(*self.weights[searched:])
        highest = score + min(head * error, sum(self.weights[:searched]) / (2 * scale)) + _FLOAT32
        if highest * self.length >= head * head:
            return float(self.length + _FLOAT32)
        return float(highest + tail * math.sqrt(1 - (highest / head) ** 2) + _FLOAT32)


def search(
    snapshot: Snapshot,
    vectors: csr_array,
    k: int,
    mode: Mode,
    where: Filter | None = None,
    among: NDArray[np.bool_] | None = None,
) -> list[Neighbours]:
    """Return the nearest documents of each query, found by Lucene.

    Parameters
    ----------
    snapshot : Snapshot
    vectors : csr_array of float32, shape (n, vocab)
        L2-normalised queries without negative weights.
    k : int
        Number of neighbours per query. Documents of cosine 0 are not neighbours, so there may be fewer.
    mode : {"exact", "two-step", "approximate"}
    where : Filter, optional
        Of :func:`~sparse_sts_index.data.filters.typed_filter`: the documents to look among.
    among : ndarray of bool, shape (rows,), optional
        The same by row.

    Returns
    -------
    list of n Neighbours
        All certified in mode ``exact``.
    """
    store, manifest, terms = snapshot.store, snapshot.manifest, snapshot.vocabulary.terms
    scale, error = Quantizer(manifest.bits).scale, manifest.max_document_error
    results = [NONE] * vectors.shape[0]
    queries = _queries(vectors)
    dense = np.zeros(vectors.shape[1])

    def find(step: Step, rows: list[int]) -> Iterator[Neighbours]:
        kept = {row: queries[row].heaviest(step) for row in rows}
        limit = step.candidates(k)
        asked = (
            ([terms[term] for term in queries[row].terms[:count]], queries[row].weights[:count])
            for row, count in kept.items()
        )
        found = snapshot.reader.search_impacts(asked, limit, filter_=where)
        for (row, count), matches in zip(kept.items(), found, strict=True):
            query = queries[row]
            last = float(matches.scores[-1]) / scale if len(matches) == limit else 0.0
            unseen = query.bound(last, count, scale, error)
            dense[query.terms] = query.weights
            nearest = _nearest(store, matches.rows, store.scores(matches.rows, dense), k, unseen)
            dense[query.terms] = 0
            yield nearest

    left = certify(results, list(queries), STEPS[mode], find)
    if mode == "exact":
        for row in left:
            query = queries[row]
            dense[query.terms] = query.weights
            results[row] = _best_of_all(store, _all_cosines(store, dense, store.live if among is None else among), k)
            dense[query.terms] = 0
    return results


def certify(
    results: list[Result], rows: list[int], steps: Iterable[Step], find: Callable[[Step, list[int]], Iterable[Result]]
) -> list[int]:
    """Find results step by step, each step for the queries that the one before it has not certified.

    Parameters
    ----------
    results : list of Neighbours or Hits
        Results by query, to be replaced by better ones.
    rows : list of int
        The queries to find results for.
    steps : iterable of Step
    find : callable
        Takes a step and queries; gives a result for each.

    Returns
    -------
    list of int
        The queries whose results are not certified.
    """
    for step in steps:
        if rows:
            for row, result in zip(rows, find(step, rows), strict=True):
                results[row] = result
            rows = [row for row in rows if not results[row].certified]
    return rows


def _queries(vectors: csr_array) -> dict[int, _Query]:
    """Return the queries that have a term, by row."""
    return {row: _Query(vectors, row) for row in np.flatnonzero(np.diff(vectors.indptr)).tolist()}


def _best_of_all(store: Vectors, cosines: NDArray[np.float64], k: int) -> Neighbours:
    least = np.partition(cosines, -k - 1)[-k - 1] if len(cosines) > k else 0.0
    rows = np.flatnonzero((cosines >= least) & (cosines > 0))
    return best_first(store, rows, cosines[rows], k)


def best_first(store: Vectors, rows: NDArray[np.int64], cosines: NDArray[np.float64], k: int) -> Neighbours:
    """Return the k best of rows that hold the k + 1 best of all and those that tie with them; certified.

    Parameters
    ----------
    store : Vectors
    rows : ndarray of int64, shape (m,)
    cosines : ndarray of float64, shape (m,)
        All above 0.
    k : int
    """
    found = sorted(zip((-cosines).tolist(), store.ids(rows), rows.tolist(), strict=True))
    bound = -found[k][0] if len(found) > k else 0.0
    return _neighbours(found[:k], certified=True, bound=bound)


def _neighbours(found: list[tuple[float, str, int]], certified: bool, bound: float) -> Neighbours:
    """Take negative cosines, ids and rows apart."""
    return Neighbours(
        [row for _, _, row in found],
        [doc_id for _, doc_id, _ in found],
        [-negative for negative, _, _ in found],
        certified,
        bound,
    )


def _nearest(
    store: Vectors, candidates: NDArray[np.int64], cosines: NDArray[np.float64], k: int, unseen: float
) -> Neighbours:
    """The k best of some candidates, where none of the other documents has more than `unseen`."""
    order = np.argsort(-cosines)
    ranked = cosines[order]
    count = int(np.count_nonzero(ranked >= max(ranked[k - 1], _TINY) if len(ranked) > k else ranked > 0))
    rows = candidates[order[:count]]  # all that tie with the k-th are among them
    found = sorted(zip((-ranked[:count]).tolist(), store.ids(rows), rows.tolist(), strict=True))
    beyond = -found[k][0] if count > k else float(ranked[count]) if count < len(ranked) else 0.0
    del found[k:]
    certified = len(found) == k and -found[-1][0] > unseen
    return _neighbours(found, certified, max(beyond, unseen))


def _all_cosines(store: Vectors, query: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    cosines = np.concatenate([np.zeros(0), *(block @ query for _, block in store.blocks())])
    cosines[~among] = 0
    return cosines
