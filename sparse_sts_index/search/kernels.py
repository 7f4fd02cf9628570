r"""Loops over postings in memory, compiled: nearest rows of a query, and pairs of rows above a threshold.

Rows are scored a window at a time, so that the accumulators of a window stay in the cache. Accumulators are integers of
16 bits: small enough for many to fit into one register, and coarse, so what they say is bounded and then completed from
the float vectors.

**Accumulators.** A weight :math:`v_i` of a row becomes the impact :math:`\hat v_i = \max(1, \lfloor 255 v_i \rceil)`,
at most 255, whatever the bits of the index. For each window :math:`w`, :math:`E_w` is the largest :math:`\lVert 255 v -
\hat v \rVert_2` and :math:`D_w` the largest :math:`\lVert \hat v \rVert_2` of its rows. A query :math:`u` of n terms
becomes :math:`\hat u_i = \max(1, \lfloor s u_i \rceil)` with

.. math:: s = \Bigl(\frac{M}{\max_w D_w} - \sqrt n\Bigr) / \lVert u \rVert_2,

where M is the largest number that an accumulator holds. No weight changes by more than 1, so :math:`\lVert \hat u
\rVert_2 \le s \lVert u \rVert_2 + \sqrt n`, and by Cauchy and Schwarz :math:`\hat u \cdot \hat v \le \lVert \hat u
\rVert_2 \lVert \hat v \rVert_2 \le M`. Nothing in the sum is negative, so no part of it exceeds M either: accumulators
never wrap, whatever the weights. (With a scale of 255 for both they would: 41 equal weights become 40 each, and the sum
of their squares is 65,600.)

**What an accumulator says.** From :math:`255 s \, u \cdot v - \hat u \cdot \hat v = s u \cdot (255 v - \hat v) + (s u -
\hat u) \cdot \hat v` follows

.. math:: | 255 s \cos(u, v) - \hat u \cdot \hat v |
          \le m_w = s \lVert u \rVert_2 E_w + \lVert s u - \hat u \rVert_2 D_w.

No length is assumed to be 1 here, and no weight to be positive: what rounding and clipping do is in :math:`E_w`. As no
impact is below 1, an accumulator is 0 just where no term is shared.

**The k nearest.** :math:`\hat u \cdot \hat v - m_w` is at most the scaled cosine. Of these lower bounds, the k-th
highest so far is a score that k rows reach; a row of which :math:`\hat u \cdot \hat v + m_w` is below it is not among
the k nearest, and does not tie with one. All others get their float cosine.

**Blocks.** The maxima of groups of accumulators say where to look. A group is every width/64-th row, so that the maxima
of many groups are compared at once.

**Dense terms.** A term that an eighth of a window has is held as one impact for each row of it, 0 where it is not:
adding them all, many at once, takes less time than adding the postings one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.search.compiled import kernel, part

IMPACT_SCALE = 255
GROUP = 64  # accumulators whose maximum is taken


class Forward(NamedTuple):
    """Rows of a store, as its files have them.

    Attributes
    ----------
    terms : ndarray of int32, shape (entries,)
    weights : ndarray of float32, shape (entries,)
    ends : ndarray of int64, shape (rows,)
    """

    terms: NDArray[np.int32]
    weights: NDArray[np.float32]
    ends: NDArray[np.int64]


class Postings(NamedTuple):
    """Impacts by window and term.

    Attributes
    ----------
    starts : ndarray of uint32, shape (windows, vocab + 1)
        Where the postings of a term begin, from the window's offset.
    offsets : ndarray of int64, shape (windows,)
    places : ndarray of uint16, shape (postings,)
        Rows, from the first of the window.
    impacts : ndarray of uint8, shape (postings,)
    dense_ends : ndarray of int64, shape (windows,)
        Where the dense terms of a window end.
    dense_terms : ndarray of int32, shape (dense,)
    dense_impacts : ndarray of uint8, shape (dense, width)
    row_errors : ndarray of float32, shape (rows,)
        E of each row; see this module's head.
    errors, lengths : ndarray of float64, shape (windows,)
        E and D of each window.
    """

    starts: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    places: NDArray[np.uint16]
    impacts: NDArray[np.uint8]
    dense_ends: NDArray[np.int64]
    dense_terms: NDArray[np.int32]
    dense_impacts: NDArray[np.uint8]
    row_errors: NDArray[np.float32]
    errors: NDArray[np.float64]
    lengths: NDArray[np.float64]


class Scratch(NamedTuple):
    """Memory of one thread. The last two are all zeros between calls.

    Attributes
    ----------
    accumulators : ndarray of uint16 or uint32, shape (width,)
    maxima : ndarray of the same dtype, shape (width / 64,)
    candidates : ndarray of uint16, shape (width,)
    scaled : ndarray of the same dtype, shape (vocab,)
        The query's integer weights.
    query : ndarray of float64, shape (vocab,)
    """

    accumulators: NDArray[Any]
    maxima: NDArray[Any]
    candidates: NDArray[np.uint16]
    scaled: NDArray[Any]
    query: NDArray[np.float64]


# Building


def _fill(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    ends: NDArray[Any],
    counts: NDArray[np.int64],
    limit: int,
    window: int,
    first: int,
    offset: int,
    dense: int,
    postings: Postings,
) -> None:
    """Put the rows of one window, from `first` on, into postings, from `offset` and dense term `dense` on.

    A term is in `counts` of the rows, and dense from `limit` on.
    """
    next_ = np.empty(len(counts), np.int64)  # of each term's postings, or of the dense terms, counted down from -1
    place = 0
    for term in range(len(counts)):
        postings.starts[window, term] = place
        if counts[term] >= limit:
            postings.dense_terms[dense] = term
            dense += 1
            next_[term] = -dense
        else:
            next_[term] = offset + place
            place += counts[term]
    postings.starts[window, len(counts)] = place
    postings.offsets[window], postings.dense_ends[window] = offset, dense
    error = length = 0.0
    start = np.int64(0)
    for row in range(len(ends)):
        row_error = row_length = 0.0
        for entry in range(start, ends[row]):
            term = terms[entry]
            exact = np.float64(weights[entry]) * IMPACT_SCALE
            impact = min(max(np.rint(exact), 1.0), 255.0)
            row_error += (exact - impact) ** 2
            row_length += impact * impact
            where = next_[term]
            if where < 0:
                postings.dense_impacts[-1 - where, row] = np.uint8(impact)
            else:
                postings.places[where] = row
                postings.impacts[where] = np.uint8(impact)
                next_[term] = where + 1
        row_error = np.sqrt(row_error) * 1.000001  # no less once it is a float32
        postings.row_errors[first + row] = row_error
        error, length = max(error, row_error), max(length, row_length)
        start = ends[row]
    postings.errors[window], postings.lengths[window] = error, np.sqrt(length)


fill = kernel(_fill)


# Scoring


def _add(accumulators: NDArray[Any], places: NDArray[np.uint16], impacts: NDArray[np.uint8], weight: Any) -> None:
    """Add a term to the accumulators of the rows that have it."""
    for posting in range(np.uint64(len(places))):  # unsigned: numba need not look whether an index is negative
        accumulators[places[posting]] += impacts[posting] * weight


add = part(_add)


def _add_dense(accumulators: NDArray[Any], impacts: NDArray[np.uint8], weight: Any) -> None:
    """Add a term to the accumulators of all rows."""
    for row in range(np.uint64(len(accumulators))):
        accumulators[row] += impacts[row] * weight


add_dense = part(_add_dense)


def _take_maxima(accumulators: NDArray[Any], maxima: NDArray[Any]) -> None:
    """Take the maximum of each group of accumulators, which are as far apart as there are groups."""
    groups = np.uint64(len(maxima))
    for group in range(groups):
        maxima[group] = accumulators[group]
    for start in range(groups, np.uint64(len(accumulators)), groups):
        for group in range(groups):
            maxima[group] = max(maxima[group], accumulators[start + group])


take_maxima = part(_take_maxima)


def _accumulate(
    postings: Postings, window: int, terms: NDArray[np.int32], accumulators: NDArray[Any], scaled: NDArray[Any]
) -> None:
    """Score the rows of a window by the terms of a query whose integer weights are in `scaled`."""
    accumulators[:] = 0
    for dense in range(postings.dense_ends[window - 1] if window else 0, postings.dense_ends[window]):
        weight = scaled[postings.dense_terms[dense]]
        if weight:
            add_dense(accumulators, postings.dense_impacts[dense], weight)
    offset, starts = postings.offsets[window], postings.starts[window]
    for term in terms:
        some = slice(offset + starts[term], offset + starts[term + 1])
        add(accumulators, postings.places[some], postings.impacts[some], scaled[term])


accumulate = part(_accumulate)


def _scale(
    weights: NDArray[np.float32], terms: NDArray[np.int32], postings: Postings, scaled: NDArray[Any], largest: float
) -> tuple[float, float, float]:
    """Put the integer weights of a query into `scaled`; see this module's head.

    Returns
    -------
    tuple of float
        The scale s, the length of the scaled query, and the length of what was rounded.
    """
    square = error = 0.0
    for weight in weights:
        square += np.float64(weight) ** 2
    length = np.sqrt(square)
    scale = (largest / max(postings.lengths.max(), 1.0) - np.sqrt(len(weights))) / length
    for entry in range(len(weights)):
        exact = np.float64(weights[entry]) * scale
        rounded = max(np.rint(exact), 1.0)
        error += (exact - rounded) ** 2
        scaled[terms[entry]] = rounded
    return scale, scale * length, np.sqrt(error)


scale_query = part(_scale)


def _cosine(forward: Forward, row: int, query: NDArray[np.float64]) -> float:
    """Return the dot product with a row, as :meth:`.Vectors.scores` has it. Files that change do no harm."""
    start = max(forward.ends[row - 1], 0) if row else 0
    total = 0.0
    for entry in range(np.uint64(start), np.uint64(max(start, min(forward.ends[row], len(forward.terms))))):
        term = np.uint32(forward.terms[entry])
        if term < len(query):
            total += np.float64(forward.weights[entry]) * query[term]
    return total


cosine_of = part(_cosine)


def _replace_least(heap: NDArray[Any], value: Any) -> None:
    """Replace the least element of a binary heap, its first."""
    place, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = value


replace_least = part(_replace_least)


def _reached(nearest: NDArray[np.float64], unit: float, lowest: NDArray[np.int64]) -> None:
    """Begin a heap of lower bounds with the cosines that are known."""
    for place in range(len(lowest)):
        lowest[place] = max(int(nearest[place] * unit) - 1, 0)


reached = part(_reached)


def _grown(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy with as much room again."""
    larger = np.empty(2 * len(values), values.dtype)
    larger[: len(values)] = values
    return larger


grown = part(_grown)


def _nearest(
    indptr: NDArray[Any],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    postings: Postings,
    first: int,
    width: int,
    forward: Forward,
    counts: NDArray[np.bool_],
    best: NDArray[np.float64],
    scratch: Scratch,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Find the rows of some postings that may be among the nearest of queries.

    Parameters
    ----------
    indptr, indices, data : ndarrays of int, int32 and float32
        The queries (CSR).
    postings : Postings
        Of rows of `forward`, from `first` on.
    first, width : int
        `width` rows are in a window.
    forward : Forward
    counts : ndarray of bool, shape (rows,) or (0,)
        Which rows of `forward` count, or nothing if all do.
    best : ndarray of float64, shape (queries, k)
        Heaps of the highest cosines so far, 0 for want of others; brought up to date.
    scratch : Scratch

    Returns
    -------
    rows, cosines : ndarray of int64 and of float64, shape (found,)
        Rows of `forward` whose cosine is above 0 and at least the least in `best`.
    ends : ndarray of int64, shape (queries,)
        Where those of each query end.
    """
    candidates, scaled, query = scratch.candidates, scratch.scaled, scratch.query
    accumulators, maxima = scratch.accumulators[:width], scratch.maxima[: width // GROUP]
    groups = len(maxima)
    lowest = np.empty(best.shape[1], np.int64)
    found_rows, found_cosines = np.empty(64, np.int64), np.empty(64, np.float64)
    ends = np.empty(len(indptr) - 1, np.int64)
    found = 0
    for number in range(len(ends)):
        some = slice(indptr[number], indptr[number + 1])
        terms, weights, nearest = indices[some], data[some], best[number]
        if not len(terms):
            ends[number] = found
            continue
        scale, length, error = scale_query(weights, terms, postings, scaled, 2.0 ** (8 * accumulators.itemsize) - 1)
        unit = scale * IMPACT_SCALE
        for entry in range(len(terms)):
            query[terms[entry]] = np.float64(weights[entry])

        begin = found
        for window in range(len(postings.offsets)):
            accumulate(postings, window, terms, accumulators, scaled)
            start = first + window * width
            if len(counts):
                for place in range(min(width, len(counts) - start)):
                    accumulators[place] *= counts[start + place]
            take_maxima(accumulators, maxima)

            fixed = error * postings.lengths[window] + 2
            margin = np.int64(length * postings.errors[window] + fixed) + 1
            reached(nearest, unit, lowest)
            for group in range(groups):
                if maxima[group] - margin > lowest[0]:
                    replace_least(lowest, maxima[group] - margin)
            least = max(lowest[0] - margin, 1)
            reached(nearest, unit, lowest)
            count = 0
            for group in range(groups):
                if maxima[group] >= least:
                    for place in range(group, width, groups):
                        score = np.int64(accumulators[place])
                        if score >= least:
                            candidates[count] = place
                            count += 1
                            low = score - np.int64(length * postings.row_errors[window * width + place] + fixed) - 1
                            if low > lowest[0]:
                                replace_least(lowest, low)

            for place in candidates[:count]:
                high = accumulators[place] + length * postings.row_errors[window * width + place] + fixed
                if high >= max(lowest[0], nearest[0] * unit):
                    cosine = cosine_of(forward, start + place, query)
                    if cosine > 0 and cosine >= nearest[0]:
                        if cosine > nearest[0]:
                            replace_least(nearest, cosine)
                        if found == len(found_rows):
                            found_rows, found_cosines = grown(found_rows), grown(found_cosines)
                        found_rows[found], found_cosines[found] = start + place, cosine
                        found += 1

        kept = begin  # those that later ones have beaten go
        for place in range(begin, found):
            if found_cosines[place] >= nearest[0]:
                found_rows[kept], found_cosines[kept] = found_rows[place], found_cosines[place]
                kept += 1
        ends[number] = found = kept
        for term in terms:
            scaled[term], query[term] = 0, 0.0
    return found_rows[:found], found_cosines[:found], ends


nearest = kernel(_nearest)
