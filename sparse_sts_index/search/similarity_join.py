"""All pairs of rows above a cosine threshold, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.environment import cores
from sparse_sts_index._utils.numbers import check_real
from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index.storage.vector_files import StoredVectors

FLOAT32_ERROR = 2e-6  # what cosines of float32 vectors may lack
_BLOCK = 128  # rows at a time: each may have as many partners as there are rows

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
    store: StoredVectors,
    threshold: float,
    *,
    among: NDArray[np.bool_] | None = None,
    firsts: NDArray[np.bool_] | None = None,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Iterator[RowPairs]:
    """Pairs of rows that count whose cosine is at least `threshold`, block by block.

    Holds the impacts of all rows in memory; see :class:`~.search.memory_index.MemoryIndex`.

    Parameters
    ----------
    store : StoredVectors
    threshold : float
        Above 0. A cosine that lacks up to 2e-6 of it counts: sentences with the same vector are of cosine 1. Rows that
        share no term are never a pair.
    among : ndarray of bool, shape (rows,), optional
        The rows that count. Default: all that are not dead.
    firsts : ndarray of bool, shape (rows,), optional
        The rows that may be the first of a pair. Looked at block by block, some blocks ahead, so that a caller may
        clear what it has no more use for. Default: those of `among`.
    progress : callable, optional
        Called with the number of rows done since its last call.
    workers : int, optional
        Number of threads. Default: one for each core.

    Yields
    ------
    RowPairs
        The first row is the lesser one; ordered by it, then by the second.
    """
    yield from _similar(store, store, threshold, (among if firsts is None else firsts, among), progress, workers)


def similar_rows_between(
    first: StoredVectors,
    second: StoredVectors,
    threshold: float,
    *,
    among: Sequence[NDArray[np.bool_] | None] = (None, None),
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Iterator[RowPairs]:
    """As :func:`similar_rows`, of pairs of a row of `first` and one of `second`, each numbered in its own."""
    yield from _similar(first, second, threshold, among, progress, workers)


def _similar(
    store: StoredVectors,
    other: StoredVectors,
    threshold: float,
    among: Sequence[NDArray[np.bool_] | None],
    progress: Callable[[int], None] | None,
    workers: int | None,
) -> Iterator[RowPairs]:
    """Pairs of a row of one store and one of the other, the later one if these are the same."""
    from sparse_sts_index.search.memory_index import MemoryIndex  # imports numba, which takes a while

    index, others_among = MemoryIndex(other), among[1]
    counts = store.live if among[0] is None else among[0]

    def partners(block: tuple[int, int, int]) -> RowPairs:
        number, start, stop = block
        first = store.starts[number] + start
        vectors, wanted = store.stores[number].block(start, stop), counts[first : first + stop - start]
        rows, others, cosines = index.partners(
            vectors, wanted, threshold - FLOAT32_ERROR, first if other is store else None, others_among
        )
        return rows + first, others, cosines

    blocks = [
        (number, start, min(start + _BLOCK, len(part)))
        for number, part in enumerate(store.stores)
        for start in range(0, len(part), _BLOCK)
    ]
    workers = workers or cores()
    for (number, start, stop), found in zip(
        blocks, overlap(partners, blocks, ahead=workers, workers=workers), strict=True
    ):
        if len(found[0]):
            yield found
        if progress is not None:
            first = store.starts[number] + start
            progress(int(np.count_nonzero(counts[first : first + stop - start])))
