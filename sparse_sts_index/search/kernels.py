r"""Loops over postings in memory, compiled: nearest rows of a query, and pairs of rows above a threshold.

Rows are scored a window at a time, so that the accumulators of a window stay in the cache. Accumulators are integers of
16 bits: small enough for many to fit into one register, and coarse, so what they say is bounded and then completed from
the float vectors. For queries of very many terms 16 bits are too coarse, and there are 32.

**Accumulators.** A weight :math:`v_i` of a row becomes the impact :math:`\hat v_i = \max(1, \lfloor 255 v_i \rceil)`,
at most 255, whatever the bits of the index. For each window :math:`w`, :math:`E_w` is the largest :math:`\lVert 255 v -
\hat v \rVert_2` and :math:`D_w` the largest :math:`\lVert \hat v \rVert_2` of its rows. A query :math:`u` of n terms
becomes :math:`\hat u_i = \max(1, \lfloor s u_i \rceil)` with

.. math:: s = \Bigl(\frac{M}{\max_w D_w} - \sqrt n\Bigr) / \lVert u \rVert_2,

where M is the largest number that an accumulator holds. No weight changes by more than 1, so :math:`\lVert \hat u
\rVert_2 \le s \lVert u \rVert_2 + \sqrt n`, and by Cauchy and Schwarz :math:`\hat u \cdot \hat v \le \lVert \hat u
\rVert_2 \lVert \hat v \rVert_2 \le M`. Nothing in the sum is negative, so no part of it exceeds M either: accumulators
never wrap, whatever the weights. (With a scale of 255 for both they would: 41 equal weights become 40 each, and the sum
of their squares is 65,600.) This needs s to be above 0. With 16 bits :math:`s \lVert u \rVert_2` is 64 at least: where
it would be less, :class:`.MemoryIndex` takes 32 bits. As a row of m terms has :math:`\lVert \hat v \rVert_2 \le 255
\sqrt m`, these are enough for rows and queries of up to 2\ :sup:`24` terms.

**What an accumulator says.** From :math:`255 s \, u \cdot v - \hat u \cdot \hat v = s u \cdot (255 v - \hat v) + (s u -
\hat u) \cdot \hat v` follows

.. math:: | 255 s \, u \cdot v - \hat u \cdot \hat v |
          \le m_w = s \lVert u \rVert_2 E_w + \lVert s u - \hat u \rVert_2 D_w.

No length is assumed to be 1 here, and no weight to be positive: what rounding and clipping do is in :math:`E_w`. As no
impact is below 1, an accumulator is 0 just where no term is shared. 1 is allowed for what these sums lose in float64:
below 0.1 for 100,000 terms and 32 bits.

**The k nearest.** Window by window, rows whose accumulators are among the k highest so far get their float cosines
first. From then on the k-th highest cosine so far is a score that k rows reach: a row with :math:`\hat u \cdot \hat v +
m_w` below it is not among the k nearest, and does not tie with one. All others get their float cosines, too; with the
error of the row itself for :math:`E_w`, these are few.

**Groups.** The maxima of groups of 64 accumulators say where to look. The window is laid out in 8 lines of width/8
rows: first the maxima of its columns are taken, many at once, and then those of 8 neighbouring columns.

**Dense terms.** A term that an eighth of a window has is held as one impact for each row of it, 0 where it is not:
adding them all, many at once, takes less time than adding the postings one by one.

**Pairs.** For a row :math:`u`, split into the terms :math:`H` and the rest :math:`T`, and a row :math:`v` of length at
most L, let :math:`h = u_H \cdot v`. As in :mod:`.search.certified`,
:math:`u \cdot v \le h + \lVert u_T \rVert \sqrt{L^2
- (h / \lVert u_H \rVert)^2}`. With :math:`h = L \lVert u_H \rVert \cos\theta` and :math:`\lVert u_H \rVert = \lVert u
\rVert \cos\alpha` the right side is :math:`L \lVert u \rVert \cos(\theta - \alpha)`, which is t at least only where
:math:`\theta \le \alpha + \arccos\tau`, :math:`\tau = t / (L \lVert u \rVert)`. So a partner of a cosine of t has

.. math:: h \ge L \lVert u_H \rVert \cos(\alpha + \arccos\tau)
          = \frac{L \lVert u_H \rVert}{\lVert u \rVert}
            \bigl(\lVert u_H \rVert \tau - \lVert u_T \rVert \sqrt{1 - \tau^2}\bigr),

and is found by the accumulators of :math:`H` alone. Both roots are of differences that may cancel, so each gets 1e-10
of its largest square more: a sum of 100,000 squares loses less. The terms of :math:`H` are the cheapest for their
weight, as few as make the least h a certain number: with fewer there is less to add, and with more there are fewer rows
to complete.

This is prefix filtering (Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007) with the bound of
Anastasiu and Karypis ("L2AP", 2014), but for the accumulators: candidates are read off them, many at once, and not
gathered one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.search.compiled import kernel, part

IMPACT_SCALE = 255
SIDE = 8
GROUP = SIDE * SIDE  # accumulators whose maximum is taken
_LOST = 1e-10  # of a sum of squares, at most


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
    """Impacts by term and window.

    Attributes
    ----------
    starts : ndarray of uint32 or int64, shape (vocab, windows + 1)
        Where the postings of a term begin in each window; those of its next window follow.
    places : ndarray of uint16, shape (postings,)
        Rows, from the first of the window.
    impacts : ndarray of uint8, shape (postings,)
    dense_ends : ndarray of int64, shape (windows,)
        Where the dense terms of a window end.
    dense_terms : ndarray of int32, shape (dense,)
    dense_impacts : ndarray of uint8, shape (dense, width)
    row_errors : ndarray of float32, shape (rows,)
        E of each row; see this module's head.
    bounds : ndarray of float64, shape (windows, 3)
        E and D of each window, and the length of its longest row.
    """

    starts: NDArray[Any]
    places: NDArray[np.uint16]
    impacts: NDArray[np.uint8]
    dense_ends: NDArray[np.int64]
    dense_terms: NDArray[np.int32]
    dense_impacts: NDArray[np.uint8]
    row_errors: NDArray[np.float32]
    bounds: NDArray[np.float64]


class Scratch(NamedTuple):
    """Memory of one thread. The last two are all zeros between calls.

    Attributes
    ----------
    accumulators : ndarray of uint16 or uint32, shape (width + width / 8 + width / 64,)
        Of the rows of a window, with their maxima by column and by group.
    candidates : ndarray of uint16, shape (width,)
    scaled : ndarray of the same dtype, shape (vocab,)
        The query's integer weights.
    query : ndarray of float64, shape (vocab,)
    """

    accumulators: NDArray[Any]
    candidates: NDArray[np.uint16]
    scaled: NDArray[Any]
    query: NDArray[np.float64]


# Building


def _fill(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    ends: NDArray[Any],
    dense: NDArray[np.int64],
    window: int,
    first: int,
    postings: Postings,
) -> bool:
    """Put the rows of one window, from `first` on, into postings.

    `dense` has the place of each term among the dense ones, or -1. Rows that changed since they were counted are
    refused: the places of postings that are missing could be any.

    Returns
    -------
    bool
        Whether the rows are as they were counted, each with its terms in order.
    """
    next_ = postings.starts[:, window].astype(np.int64)
    error = length = longest = 0.0
    start = np.int64(0)
    for row in range(len(ends)):
        row_error = row_length = square = 0.0
        stop = max(start, min(ends[row], len(terms)))
        before = np.int64(-1)
        for entry in range(start, stop):
            term = np.int64(terms[entry])
            if term <= before or term >= len(dense):
                return False
            before = term
            exact = np.float64(weights[entry]) * IMPACT_SCALE
            impact = min(max(np.rint(exact), 1.0), 255.0)
            row_error += (exact - impact) ** 2
            row_length += impact * impact
            square += np.float64(weights[entry]) ** 2
            if dense[term] >= 0:
                postings.dense_impacts[dense[term], row] = np.uint8(impact)
            elif next_[term] == postings.starts[term, window + 1]:
                return False
            else:
                postings.places[next_[term]] = row
                postings.impacts[next_[term]] = np.uint8(impact)
                next_[term] += 1
        row_error = np.sqrt(row_error) * 1.000001  # no less once it is a float32
        postings.row_errors[first + row] = row_error
        error, length, longest = max(error, row_error), max(length, row_length), max(longest, square)
        start = stop
    bounds = postings.bounds[window]
    bounds[0], bounds[1], bounds[2] = error, np.sqrt(length), np.sqrt(longest)
    return bool((next_ == postings.starts[:, window + 1]).all())


fill = kernel(_fill)


# Scoring


def _add(
    accumulators: NDArray[Any],
    places: NDArray[np.uint16],
    impacts: NDArray[np.uint8],
    start: Any,
    stop: Any,
    weight: Any,
) -> None:
    """Add a term to the accumulators of the rows that have it, which the postings from `start` to `stop` name."""
    for posting in range(np.uint64(start), np.uint64(stop)):  # unsigned: numba need not look whether it is negative
        accumulators[places[posting]] += impacts[posting] * weight


add = part(_add)


def _set_dense(accumulators: NDArray[Any], impacts: NDArray[np.uint8], weight: Any) -> None:
    """Set the accumulators of all rows to what a term gives them."""
    for row in range(np.uint64(len(accumulators))):
        accumulators[row] = impacts[row] * weight


set_dense = part(_set_dense)


def _add_dense(accumulators: NDArray[Any], impacts: NDArray[np.uint8], weight: Any) -> None:
    """Add a term to the accumulators of all rows."""
    for row in range(np.uint64(len(accumulators))):
        accumulators[row] += impacts[row] * weight


add_dense = part(_add_dense)


def _take_maxima(accumulators: NDArray[Any], columns: NDArray[Any], maxima: NDArray[Any]) -> None:
    """Take the maximum of each group of accumulators, and before that of each column."""
    width = np.uint64(len(columns))
    for column in range(width):
        columns[column] = accumulators[column]
    for start in range(width, np.uint64(len(accumulators)), width):
        for column in range(width):
            columns[column] = max(columns[column], accumulators[start + column])
    for group in range(np.uint64(len(maxima))):
        maximum = columns[SIDE * group]
        for column in range(SIDE * group + 1, SIDE * group + SIDE):
            maximum = max(maximum, columns[column])
        maxima[group] = maximum


take_maxima = part(_take_maxima)


def _accumulate(
    postings: Postings, window: int, terms: NDArray[np.int32], accumulators: NDArray[Any], scaled: NDArray[Any]
) -> None:
    """Score the rows of a window by the terms of a query whose integer weights are in `scaled`."""
    empty = True
    for dense in range(postings.dense_ends[window - 1] if window else 0, postings.dense_ends[window]):
        weight = scaled[postings.dense_terms[dense]]
        if weight and empty:
            set_dense(accumulators, postings.dense_impacts[dense], weight)
            empty = False
        elif weight:
            add_dense(accumulators, postings.dense_impacts[dense], weight)
    if empty:
        accumulators[:] = 0
    starts, places, impacts = postings.starts, postings.places, postings.impacts
    for term in terms:
        add(accumulators, places, impacts, starts[term, window], starts[term, window + 1], scaled[term])


accumulate = part(_accumulate)


def _collect(
    accumulators: NDArray[Any], maxima: NDArray[Any], least: Any, above: Any, places: NDArray[np.uint16]
) -> int:
    """Put the places of the accumulators that are at least `least`, and below `above`, into `places`; how many."""
    width, side, count = np.uint64(len(accumulators)), np.uint64(SIDE), 0
    for group in range(np.uint64(len(maxima))):
        if maxima[group] >= least:
            for corner in range(side * group, width, width // side):
                for place in range(corner, corner + side):
                    if least <= accumulators[place] < above:
                        places[count] = place
                        count += 1
    return count


collect = part(_collect)


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
    scale = (largest / max(postings.bounds[:, 1].max(), 1.0) - np.sqrt(len(weights))) / length
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
    lines, groups = width // SIDE, width // GROUP
    accumulators, columns = scratch.accumulators[:width], scratch.accumulators[width : width + lines]
    maxima = scratch.accumulators[width + lines : width + lines + groups]
    highest = np.empty(best.shape[1], np.int64)
    largest = (1 << 8 * accumulators.itemsize) - 1
    found_rows, found_cosines = np.empty(64, np.int64), np.empty(64, np.float64)
    ends = np.empty(len(indptr) - 1, np.int64)
    found = 0
    for number in range(len(ends)):
        some = slice(indptr[number], indptr[number + 1])
        terms, weights, nearest = indices[some], data[some], best[number]
        if not len(terms):
            ends[number] = found
            continue
        scale, length, error = scale_query(weights, terms, postings, scaled, np.float64(largest))
        unit = scale * IMPACT_SCALE
        for entry in range(len(terms)):
            query[terms[entry]] = np.float64(weights[entry])

        begin = found
        highest[:] = 0
        for window in range(len(postings.bounds)):
            accumulate(postings, window, terms, accumulators, scaled)
            start = first + window * width
            if len(counts):
                for place in range(min(width, len(counts) - start)):
                    accumulators[place] *= counts[start + place]
            take_maxima(accumulators, columns, maxima)

            fixed = error * postings.bounds[window, 1] + 1
            margin = length * postings.bounds[window, 0] + fixed
            for score in maxima if len(highest) < groups // 4 else accumulators:
                if score > highest[0]:
                    replace_least(highest, score)
            above = np.int64(largest + 1)
            for low in (highest[0], 0):  # first as many as are wanted, which say what the rest must reach
                # 1.0 comes first, and is what is left where a bound is not a number.
                least = np.int64(min(max(1.0, low, nearest[0] * unit - margin), np.float64(largest)))
                for place in candidates[: collect(accumulators, maxima, least, above, candidates)]:
                    high = accumulators[place] + length * postings.row_errors[window * width + place] + fixed
                    if high >= nearest[0] * unit:
                        cosine = cosine_of(forward, start + place, query)
                        if cosine > 0 and cosine >= nearest[0]:
                            if cosine > nearest[0]:
                                replace_least(nearest, cosine)
                            if found == len(found_rows):
                                found_rows, found_cosines = grown(found_rows), grown(found_cosines)
                            found_rows[found], found_cosines[found] = start + place, cosine
                            found += 1
                above = least

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


# Joining


def _heads(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    costs: NDArray[np.int64],
    cosine: float,
    longest: float,
    enough: float,
) -> tuple[NDArray[np.int64], float]:
    """Choose the terms of a row that find its partners, the cheapest for their weight first.

    These contribute at least `enough` to a cosine of `cosine`, or are all; see this module's head.

    Returns
    -------
    chosen : ndarray of int64
        Places in `terms`.
    least : float
        The least that they contribute.
    """
    squares = weights.astype(np.float64) ** 2
    order = np.argsort(costs[terms] / squares, kind="mergesort")  # stable
    square = squares.sum()
    length = np.sqrt(square)
    ratio = min(cosine / (length * longest), 1.0)
    beside = np.sqrt(1 - ratio * ratio + _LOST)
    head = 0.0
    for entry in range(len(terms)):
        head += squares[order[entry]]
        kept, left = np.sqrt(head), np.sqrt(max(square - head, 0.0) + _LOST * square)
        least = longest * kept * (kept * ratio - left * beside) / length
        if least >= enough:
            return order[: entry + 1], least
    return order, cosine


heads = part(_heads)


def _similar(
    indptr: NDArray[Any],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    first_row: int,
    wanted: NDArray[np.bool_],
    costs: NDArray[np.int64],
    enough: float,
    cosine: float,
    later: bool,
    postings: Postings,
    first: int,
    width: int,
    forward: Forward,
    counts: NDArray[np.bool_],
    scratch: Scratch,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Find the partners of some rows among the rows of some postings.

    Parameters
    ----------
    indptr, indices, data : ndarrays of int, int32 and float32
        The rows (CSR), from number `first_row` on.
    wanted : ndarray of bool, shape (rows,) or (0,)
        Which of them count, or nothing if all do.
    costs : ndarray of int64, shape (vocab,)
        Time that it takes to add each term, in any unit.
    enough : float
        What the terms looked for contribute to a cosine, if it is above that.
    cosine : float
        The least cosine of a pair.
    later : bool
        Whether a partner comes after the row, in the same store.
    postings, first, width, forward, counts, scratch
        See :func:`nearest`.

    Returns
    -------
    rows, partners, cosines : ndarray of int64, int64 and float64, shape (found,)
        By row.
    """
    candidates, scaled, query = scratch.candidates, scratch.scaled, scratch.query
    lines, groups = width // SIDE, width // GROUP
    accumulators, columns = scratch.accumulators[:width], scratch.accumulators[width : width + lines]
    maxima = scratch.accumulators[width + lines : width + lines + groups]
    largest = (1 << 8 * accumulators.itemsize) - 1
    longest = postings.bounds[:, 2].max()
    found_rows, partners, cosines = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float64)
    found = 0
    for number in range(len(indptr) - 1):
        some, row = slice(indptr[number], indptr[number + 1]), first_row + number
        own, weights = indices[some], data[some]
        if not len(own) or (len(wanted) and not wanted[number]):
            continue
        for entry in range(len(own)):
            query[own[entry]] = np.float64(weights[entry])
        chosen, least = heads(own, weights, costs, cosine, longest, enough)
        terms = own[chosen]
        scale, length, error = scale_query(weights[chosen], terms, postings, scaled, np.float64(largest))
        least *= scale * IMPACT_SCALE
        for window in range(max(row - first, 0) // width if later else 0, len(postings.bounds)):
            accumulate(postings, window, terms, accumulators, scaled)
            take_maxima(accumulators, columns, maxima)
            fixed = error * postings.bounds[window, 1] + 1
            # As in _nearest, 1.0 comes first.
            low = np.int64(min(max(1.0, least - length * postings.bounds[window, 0] - fixed), np.float64(largest)))
            for place in candidates[: collect(accumulators, maxima, low, np.int64(largest + 1), candidates)]:
                partner = first + window * width + place
                high = accumulators[place] + length * postings.row_errors[window * width + place] + fixed
                if high >= least and (partner > row or not later) and (not len(counts) or counts[partner]):
                    value = cosine_of(forward, partner, query)
                    if value >= cosine:
                        if found == len(cosines):
                            found_rows, partners, cosines = grown(found_rows), grown(partners), grown(cosines)
                        found_rows[found], partners[found], cosines[found] = row, partner, value
                        found += 1
        for term in own:
            scaled[term], query[term] = 0, 0.0
    return found_rows[:found], partners[:found], cosines[:found]


similar = kernel(_similar)
