"""The vectors of a store by term, in memory: small impacts to find candidates by, and the files for their cosines."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.environment import cores
from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index.search.kernels import GROUP, SIDE, Forward, Postings, Scratch, fill, nearest, similar
from sparse_sts_index.storage.vector_files import StoredVectors, VectorStore

WIDTH = 1 << 16  # rows in a window: accumulators of 128 kB, and places of 16 bits
_DENSE = 8  # a term is dense where an eighth of the rows has it, if that takes at most four bytes per posting in all
_BYTES, _MOST_BYTES = 3, 4  # of a posting of a term that is not dense, and of any on average
_DENSE_SPEED = 16  # rows that a dense term is added to, in the time of one posting
_ENOUGH = 0.5  # of a cosine, from the first terms of a join: few rows that are no partners have as much
_FEW = 16  # queries that no threads are started for
_HEAP_ENTRIES = 1 << 20  # of queries that are searched together
_LEAST_SCALE = 64.0  # of queries in accumulators of 16 bits; below it, there are some of 32 bits

#: Rows and cosines, ndarrays of int64 and of float64, of one length.
Rows = tuple[NDArray[np.int64], NDArray[np.float64]]

_Found = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]  # and where those of each query end


@dataclass(frozen=True)
class _Run:
    """Postings of consecutive rows of one store.

    Attributes
    ----------
    start, width : int
        First row, and rows in a window. All windows but the last are complete.
    postings : Postings
    """

    start: int
    width: int
    postings: Postings

    @classmethod
    def build(cls, store: VectorStore, start: int, width: int) -> Self:
        """Build the postings of the rows from `start` on, of which there must be one."""
        stop = len(store)
        width = GROUP * math.ceil((stop - start) / math.ceil((stop - start) / width) / GROUP)  # all about as long
        windows = [(first, min(first + width, stop)) for first in range(start, stop, width)]
        counts = np.stack([np.bincount(store.block(*window).indices, minlength=store.vocabulary) for window in windows])
        dense_windows, dense_terms = np.nonzero(_dense(counts, width))
        counts[dense_windows, dense_terms] = 0
        ends = np.cumsum(counts.T).reshape(counts.T.shape)
        starts = np.hstack((ends[:, :1] - counts[:1].T, ends))
        postings = Postings(
            starts=starts.astype(np.uint32 if ends[-1, -1] < 1 << 32 else np.int64),
            places=np.empty(ends[-1, -1], np.uint16),
            impacts=np.empty(ends[-1, -1], np.uint8),
            dense_ends=np.searchsorted(dense_windows, np.arange(len(windows)), side="right"),
            dense_terms=dense_terms.astype(np.int32),
            dense_impacts=np.zeros((len(dense_terms), width), np.uint8),
            row_errors=np.empty(stop - start, np.float32),
            bounds=np.empty((len(windows), 3)),
        )
        for number, window in enumerate(windows):
            block, places = store.block(*window), np.full(store.vocabulary, -1)
            own = np.flatnonzero(dense_windows == number)
            places[dense_terms[own]] = own
            # copies: whoever changes the files meanwhile must not change what is checked here
            terms, weights, block_ends = block.indices.copy(), block.data.copy(), block.indptr[1:].astype(np.int64)
            if not fill(terms, weights, block_ends, places, number, window[0] - start, postings):
                raise store.damaged("terms.i32")
        return cls(start, width, postings)

    @property
    def windows(self) -> int:
        """Return how many windows there are."""
        return len(self.postings.bounds)

    @property
    def size(self) -> int:
        """Return the number of rows, were all windows complete."""
        return self.width * self.windows

    def until(self, row: int) -> Self:
        """Return the windows that end before a row, or with it."""
        windows = max(0, (row - self.start) // self.width)
        return type(self)(self.start, self.width, self.postings._replace(bounds=self.postings.bounds[:windows]))


class _Part:
    """The rows of one store of several.

    Attributes
    ----------
    first : int
        Its first row, among those of all.
    """

    def __init__(self, store: VectorStore, first: int, width: int, earlier: Sequence[_Run], shared: int) -> None:
        self.first, self.size = first, len(store)
        terms, weights, ends = store.arrays
        self.forward = Forward(_as_writable(terms), _as_writable(weights), _as_writable(ends))
        self.counts = np.zeros(0, bool) if store.live.all() else store.live
        self.runs = [run for run in (run.until(shared) for run in earlier) if run.windows]
        left = self.size - sum(run.size for run in self.runs)
        while self.runs and self.runs[-1].size < left:  # so that there are few, and large ones are seldom built again
            left += self.runs.pop().size
        if left:
            self.runs.append(_Run.build(store, self.size - left, width))


class MemoryIndex:
    """Impacts of all rows of a store, by window and term.

    They take at most 4 bytes per posting, 4 per row, and 4 for each window and term. The last window of `earlier`,
    if it was not complete, keeps its memory until all windows before it are built again, too.

    Several threads may search it.

    Parameters
    ----------
    store : StoredVectors
    width : int
        Rows in a window: a multiple of 64, at most 65,536.
    earlier : MemoryIndex, optional
        That of an earlier state of the store: what is complete there is taken over.
    shared : int
        The number of rows that both states share, from the first.

    Attributes
    ----------
    parts : list
        What is held of each store.
    """

    def __init__(
        self, store: StoredVectors, width: int = WIDTH, earlier: MemoryIndex | None = None, shared: int = 0
    ) -> None:
        runs = () if earlier is None else earlier.parts[0].runs  # an index that changes is one store
        self.parts: list[_Part] = [
            _Part(part, first, width, runs, shared) for part, first in zip(store.stores, store.starts, strict=True)
        ]
        self._rows, self._vocabulary = len(store), store.stores[0].vocabulary
        self._width = max((run.width for part in self.parts for run in part.runs), default=GROUP)
        # As many as leave queries a scale that is not too small, in accumulators of 16 bits.
        length = max((run.postings.bounds[:, 1].max() for part in self.parts for run in part.runs), default=1.0)
        self._most_terms = max(0.0, np.iinfo(np.uint16).max / max(length, 1.0) - _LEAST_SCALE) ** 2
        self._local = threading.local()

    @property
    def nbytes(self) -> int:
        """Return the memory that the postings take."""
        return sum(array.nbytes for part in self.parts for run in part.runs for array in run.postings)

    def nearest(self, queries: csr_array, k: int, among: NDArray[np.bool_] | None = None) -> list[Rows]:
        """Find the nearest rows of each query, many queries on all cores.

        Parameters
        ----------
        queries : csr_array of float32, shape (n, vocab)
            Without negative weights.
        k : int
        among : ndarray of bool, shape (rows,), optional
            The rows that count. Default: all that are not dead.

        Returns
        -------
        list of n Rows
            The k rows of the highest cosines above 0, and all that tie with the last of them; in no order. Cosines
            are those of :meth:`.Vectors.scores`.
        """
        count, k = queries.shape[0], max(1, min(k, self._rows))
        if count == 1:  # without a look at the cores
            return self._nearest(queries, k, among)
        workers = cores()
        size = max(1, min(_HEAP_ENTRIES // k, max(_FEW, -(-count // (4 * workers)))))
        if count <= size:
            return self._nearest(queries, k, among)
        blocks = (queries[start : start + size] for start in range(0, count, size))
        results = overlap(lambda block: self._nearest(block, k, among), blocks, ahead=2 * workers, workers=workers)
        return [found for block in results for found in block]

    def _nearest(self, queries: csr_array, k: int, among: NDArray[np.bool_] | None) -> list[Rows]:
        # Compiled functions are made for one kind of array, that can be written to.
        indptr, terms, weights = queries.indptr.astype(np.int64), queries.indices.astype(np.int32), queries.data.copy()
        best = np.zeros((len(indptr) - 1, k))
        found = []
        with self._scratch(len(terms) if len(terms) <= self._most_terms else int(np.diff(indptr).max())) as scratch:
            for part in self.parts:
                counts = part.counts if among is None else among[part.first : part.first + part.size]
                for run in part.runs:
                    rows, cosines, ends = nearest(
                        indptr, terms, weights,
                        run.postings, run.start, run.width, part.forward, counts, best, scratch,
                    )  # fmt: skip
                    rows += part.first
                    found.append((rows, cosines, ends))
        if len(found) == 1 and len(best) == 1:
            return [found[0][:2]]
        return _merged(found, best[:, 0])

    def partners(
        self,
        vectors: csr_array,
        wanted: NDArray[np.bool_],
        cosine: float,
        first: int | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Find the rows whose cosine with some vectors is at least `cosine`.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
        wanted : ndarray of bool, shape (n,)
            The vectors that count.
        cosine : float
        first : int, optional
            Number of the first vector, if they are rows of this index, all of one store: partners are later rows then.
        among : ndarray of bool, shape (rows,), optional
            The rows that count as partners. Default: all that are not dead.

        Returns
        -------
        numbers, rows, cosines : ndarrays of int64, int64 and float64, of one length
            Numbers of vectors, from 0, and rows that count; ordered by both.
        """
        indptr, terms, weights = vectors.indptr.astype(np.int64), vectors.indices.astype(np.int32), vectors.data.copy()
        if len(terms) and terms.view(np.uint32).max() >= self._vocabulary:
            raise ValueError("vectors have terms beyond the vocabulary")
        numbers, rows, cosines = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
        with self._scratch(int(np.diff(indptr).max(initial=0))) as scratch:
            for part in self.parts:
                if first is not None and part.first + part.size <= first:
                    continue
                later = first is not None and first >= part.first
                begin = first - part.first if first is not None and later else 0
                counts = part.counts if among is None else among[part.first : part.first + part.size]
                for run in part.runs:
                    found = similar(
                        indptr, terms, weights, begin, wanted, self.costs, _ENOUGH, cosine, later,
                        run.postings, run.start, run.width, part.forward, counts, scratch,
                    )  # fmt: skip
                    numbers.append(found[0] - begin)
                    rows.append(found[1] + part.first)
                    cosines.append(found[2])
        joined, partners, values = np.concatenate(numbers), np.concatenate(rows), np.concatenate(cosines)
        order = np.lexsort((partners, joined))
        return joined[order], partners[order], values[order]

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        """Return the time that it takes to add each term to all rows, in that of a posting."""
        costs = np.zeros(self._vocabulary, np.int64)
        for run in (run for part in self.parts for run in part.runs):
            postings = run.postings
            costs += postings.starts[:, run.windows].astype(np.int64) - postings.starts[:, 0]
            dense = postings.dense_terms[: postings.dense_ends[run.windows - 1]]
            np.add.at(costs, dense, run.width // _DENSE_SPEED)
        return costs

    @contextlib.contextmanager
    def _scratch(self, terms: int) -> Iterator[Scratch]:
        """Lend this thread's memory, for queries of at most `terms` terms."""
        dtype: type[np.uint16 | np.uint32] = np.uint16 if terms <= self._most_terms else np.uint32
        scratch: Scratch | None = self._local.__dict__.pop(dtype.__name__, None)
        if scratch is None:
            scratch = Scratch(
                accumulators=np.zeros(self._width + self._width // SIDE + self._width // GROUP, dtype),
                candidates=np.zeros(self._width, np.uint16),
                scaled=np.zeros(self._vocabulary, dtype),
                query=np.zeros(self._vocabulary),
            )
        yield scratch
        self._local.__dict__[dtype.__name__] = scratch  # not after an error: it may have been left in use


class _Writable:
    """Memory that numpy takes to be writable."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # which keeps the memory
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def _as_writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view of read-only memory that says it is writable; nothing may write to it.

    Compiled functions take 20 µs longer for each array that says it is read-only.
    """
    return np.asarray(_Writable(array))


def _dense(counts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Return which terms are dense in which windows, so that postings take at most four bytes on average.

    Parameters
    ----------
    counts : ndarray of int64, shape (windows, vocab)
        Postings.
    width : int
        Bytes of a dense term in a window.
    """
    dense: NDArray[np.bool_] = counts >= width // _DENSE
    larger = (width - _BYTES * counts).sum(axis=1, where=dense) > (_MOST_BYTES - _BYTES) * counts.sum(axis=1)
    dense[larger] = counts[larger] >= width // _MOST_BYTES
    return dense


def _merged(found: list[_Found], least: NDArray[np.float64]) -> list[Rows]:
    """Put together what several runs gave for each query; what is below the least of the best goes."""
    results = []
    for number, lowest in enumerate(least):
        rows, cosines = [np.zeros(0, np.int64)], [np.zeros(0)]
        for all_rows, all_cosines, ends in found:
            own = slice(ends[number - 1] if number else 0, ends[number])
            high = all_cosines[own] >= lowest
            rows.append(all_rows[own][high])
            cosines.append(all_cosines[own][high])
        results.append((np.concatenate(rows), np.concatenate(cosines)))
    return results
