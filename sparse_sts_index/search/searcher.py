"""Search one snapshot of an index: in memory where that pays, by Lucene otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from sparse_sts_index.search.certified import Mode, Neighbours, best_first, search
from sparse_sts_index.storage.snapshot import MEMORY_INDEX, Snapshot

if TYPE_CHECKING:
    from sparse_sts_index.search.memory_index import MemoryIndex

DEFAULT_MEMORY = 1 << 30  # bytes that an index in memory may take
_BYTES = 4  # per posting, at most, and per row; windows take little beside
_QUERIES_THAT_PAY = 100  # for making it


class Searcher:
    """Nearest neighbours in one snapshot.

    Searchers of one snapshot share what they hold in memory, and several threads may use them.

    Parameters
    ----------
    snapshot : Snapshot
        Must be open while :meth:`search` runs; see :meth:`.storage.impact_index.ImpactIndex.using`.
    in_memory : bool, optional
        Hold the impacts by term in memory (:class:`~.search.memory_index.MemoryIndex`), and search them there, exactly
        in every mode; otherwise search with Lucene. Exact search finds the same either way. Default: in memory if
        that takes no more than `memory`, after the first 100 queries or :meth:`prepare`.
    memory : int
        Bytes.

    Attributes
    ----------
    snapshot : Snapshot
    """

    def __init__(self, snapshot: Snapshot, in_memory: bool | None = None, memory: int = DEFAULT_MEMORY) -> None:
        self.snapshot = snapshot
        self._in_memory, self._memory = in_memory, memory

    def search(self, vectors: csr_array, k: int, mode: Mode = "exact") -> list[Neighbours]:
        """Return the nearest documents of each query.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised queries; see :func:`~.search.certified.check_vectors`.
        k : int
            Number of neighbours per query. Documents of cosine 0 are not neighbours, so there may be fewer.
        mode : {"exact", "two-step", "approximate"}

        Returns
        -------
        list of n Neighbours
            Certified in mode ``exact``, and whenever the search runs in memory.
        """
        index = self._memory_index(vectors.shape[0])
        if index is None:
            return search(self.snapshot, vectors, k, mode)
        store = self.snapshot.store
        return [best_first(store, rows, cosines, k) for rows, cosines in index.nearest(vectors, k + 1)]

    def prepare(self) -> None:
        """Make what searches in memory need, compiled code too, if they are to be there."""
        index, store = self._memory_index(_QUERIES_THAT_PAY), self.snapshot.store
        if index is not None:
            index.nearest(store.take(np.flatnonzero(store.live)[:1]), 1)

    def _memory_index(self, queries: int) -> MemoryIndex | None:
        snapshot = self.snapshot
        if self._in_memory is False:
            return None
        with snapshot.deriving:
            held: MemoryIndex | None = snapshot.derived.get(MEMORY_INDEX)
            if held is not None:
                return held
            if self._in_memory is None and not self._pays(queries):
                return None
            from sparse_sts_index.search.memory_index import MemoryIndex  # imports numba, which takes a while

            earlier, shared = snapshot.earlier or (None, 0)
            held = snapshot.derived[MEMORY_INDEX] = MemoryIndex(snapshot.store, earlier=earlier, shared=shared)
            snapshot.earlier = None
            return held

    def _pays(self, queries: int) -> bool:
        """Return whether to search in memory from now on: the first queries do not repay the making."""
        snapshot = self.snapshot
        entries = len(snapshot.store) + sum(len(store.arrays[0]) for store in snapshot.store.stores)
        if entries * _BYTES > self._memory:
            snapshot.earlier = None
            return False
        asked = snapshot.derived["queries"] = snapshot.derived.get("queries", 0) + queries
        return snapshot.earlier is not None or asked >= _QUERIES_THAT_PAY
