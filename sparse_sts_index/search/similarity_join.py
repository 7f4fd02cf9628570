r"""All pairs of documents above a cosine threshold, exactly, and the clusters they make.

For a unit vector :math:`u` split into terms :math:`H` and the rest :math:`T` with :math:`\lVert u_T \rVert < t`, a
document that shares no term of :math:`H` with it has a cosine below :math:`t` (Cauchy, Schwarz). So each document is
joined by a few of its terms only, those that are rare for their weight; of the partners that these give, the ones go
on that can reach :math:`t` by the bound of :mod:`.search.certified`, and these get their float cosine. This is
prefix filtering (Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007) with the L2 bound of
Anastasiu and Karypis ("L2AP", 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from sparse_sts_index._utils.numbers import check_real
from sparse_sts_index.vectors.sparse import Vectors

FLOAT32_ERROR = 2e-6  # what cosines of float32 vectors may lack
_ENTRIES = 1 << 22  # of partial products in memory at a time
_BLOCK = 4096  # rows at a time, at most

#: Rows, rows and cosines of pairs, ndarrays of int64, int64 and float64, all of one length.
RowPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that no join can be made with.

    Raises
    ------
    ValueError
        Not above 0, or above 1.
    """
    check_real("threshold", threshold, 0, 1, above=True)


def similar_rows(
    store: Vectors, threshold: float, *, progress: Callable[[int], None] | None = None
) -> Iterator[RowPairs]:
    """Pairs of rows that count whose cosine is at least `threshold`, block by block.

    Holds all vectors in memory, some 16 bytes a posting.

    Parameters
    ----------
    store : Vectors
    threshold : float
        Above 0. A cosine that lacks up to 2e-6 of it counts: sentences with the same vector are of cosine 1.
    progress : callable, optional
        Called with the number of rows done since its last call.

    Yields
    ------
    RowPairs
        The first row is the lesser one; ordered by it, then by the second.
    """
    rows = np.flatnonzero(store.live)
    vectors = store.take(rows)
    yield from _similar(vectors, rows, vectors, rows, threshold, progress)


def similar_rows_between(first: Vectors, second: Vectors, threshold: float) -> Iterator[RowPairs]:
    """As :func:`similar_rows`, of pairs of a row of `first` and one of `second`, each numbered in its own."""
    rows, others = np.flatnonzero(first.live), np.flatnonzero(second.live)
    yield from _similar(first.take(rows), rows, second.take(others), others, threshold, None)


def _similar(
    vectors: csr_array,
    rows: NDArray[np.int64],
    others: csr_array,
    other_rows: NDArray[np.int64],
    threshold: float,
    progress: Callable[[int], None] | None,
) -> Iterator[RowPairs]:
    """Pairs of a row of `vectors` and one of `others`, the later one if these are the same."""
    if not len(rows):
        return
    least = threshold - FLOAT32_ERROR
    by_term = others.T.tocsr()
    frequencies = np.diff(by_term.indptr)
    heads = _heads(vectors, frequencies, least).astype(np.float64)
    lengths = np.sqrt(_row_sums(heads, heads.data**2))
    rests = np.sqrt(np.maximum(_row_sums(vectors, vectors.data.astype(np.float64) ** 2) - lengths**2, 0))
    for start, stop in _blocks(_row_sums(heads, frequencies[heads.indices].astype(np.float64))):
        partial = coo_array(heads[start:stop] @ by_term)
        first, second = partial.coords[0] + start, partial.coords[1]
        head = partial.data + FLOAT32_ERROR
        if others is vectors:
            later = second > first
            first, second, head = first[later], second[later], head[later]
        angle = np.minimum(head / lengths[first], 1)
        possible = head + rests[first] * np.sqrt(1 - angle * angle) >= least
        possible |= head >= lengths[first] ** 2  # the bound is no longer less than 1
        first, second = first[possible], second[possible]
        cosines = _cosines(vectors, first, others, second)
        found = np.flatnonzero(cosines >= least)
        found = found[np.lexsort((second[found], first[found]))]
        if len(found):
            yield rows[first[found]], other_rows[second[found]], cosines[found]
        if progress is not None:
            progress(stop - start)


def _heads(vectors: csr_array, frequencies: NDArray[np.int64], threshold: float) -> csr_array:
    """Of each row the terms to join it by: cheapest first, until the others are shorter than the threshold."""
    lengths = np.diff(vectors.indptr)
    owners = np.repeat(np.arange(vectors.shape[0]), lengths)
    squares = vectors.data.astype(np.float64) ** 2
    order = np.lexsort((frequencies[vectors.indices] / squares, owners))
    running = np.cumsum(squares[order])
    before = running - squares[order]
    total = _row_sums(vectors, squares)
    # The sum before each row, from the same running sum: another would drift from it over a large collection.
    firsts = vectors.indptr[:-1][lengths > 0]
    offsets = np.repeat(before[firsts], lengths[lengths > 0])
    left = total[owners] - (before - offsets)  # square of the length of this term and those after it
    heads = vectors.copy()
    heads.data[order[left < max(threshold - FLOAT32_ERROR, 0.0) ** 2]] = 0
    heads.eliminate_zeros()
    return heads


def _blocks(costs: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that together cost at most so many entries, or of one row."""
    total = np.cumsum(costs)
    start = 0
    while start < len(costs):
        before = total[start - 1] if start else 0.0
        stop = int(np.searchsorted(total, before + _ENTRIES, side="right"))
        stop = min(max(stop, start + 1), start + _BLOCK, len(costs))
        yield start, stop
        start = stop


def _cosines(
    vectors: csr_array, first: NDArray[np.int64], others: csr_array, second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the cosines of pairs, summed as :meth:`~.vectors.sparse.Vectors.scores` sums them."""
    parts = [np.zeros(0)]
    for start in range(0, len(first), 1 << 16):
        some = slice(start, start + (1 << 16))
        products = vectors[first[some]].astype(np.float64).multiply(others[second[some]].astype(np.float64)).tocsr()
        products.sort_indices()
        parts.append(_row_sums(products, products.data))
    return np.concatenate(parts)


def _row_sums(matrix: csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over each row of values that go with its entries, in their order."""
    owners = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(owners, values, minlength=matrix.shape[0]).astype(np.float64, copy=False)
