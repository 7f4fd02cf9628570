"""Search one snapshot of an index: in memory where that pays, by Lucene otherwise."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.data.filters import Filter, filter_for
from sparse_sts_index.errors import DataError
from sparse_sts_index.search.certified import NONE, Mode, Neighbours, best_first, search
from sparse_sts_index.search.filtering import passing, value_counts
from sparse_sts_index.storage.snapshot import MEMORY_INDEX, Snapshot

if TYPE_CHECKING:
    from sparse_sts_index.search.memory_index import MemoryIndex

DEFAULT_MEMORY = 1 << 30  # bytes that an index in memory may take
_BYTES = 4  # per posting, at most, and per row; windows take little beside
_QUERIES_THAT_PAY = 100  # for making it
_MASK_BYTES = 1 << 25  # of the rows that the last filters let through


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

    def search(self, vectors: csr_array, k: int, mode: Mode = "exact", where: Filter | None = None) -> list[Neighbours]:
        """Return the nearest documents of each query.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised queries; see :func:`~.search.certified.check_vectors`.
        k : int
            Number of neighbours per query. Documents of cosine 0 are not neighbours, so there may be fewer.
        mode : {"exact", "two-step", "approximate"}
        where : Filter, optional
            The documents to look among, by their fields.

        Returns
        -------
        list of n Neighbours
            Certified in mode ``exact``, and whenever the search runs in memory; of the documents to look among.

        Raises
        ------
        DataError
            The filter does not fit the fields.
        """
        where = filter_for(where, self.snapshot.manifest.fields)
        among = self._passing(where)
        index = self._memory_index(vectors.shape[0])
        if index is None:
            return search(self.snapshot, vectors, k, mode, where, among)
        store = self.snapshot.store
        return [best_first(store, rows, cosines, k) for rows, cosines in index.nearest(vectors, k + 1, among)]

    def search_groups(
        self, vectors: csr_array, k: int, field: str, mode: Mode = "exact", where: Filter | None = None
    ) -> list[Neighbours]:
        """Return the nearest document of each value of a field, of the k values that have the nearest ones.

        Parameters are those of :meth:`search`; documents without a value are a group of their own.

        Returns
        -------
        list of n Neighbours
            Certified if each is proved to be the nearest of its group, and these to be the nearest groups. No document
            of another group has a higher cosine than `bound`.

        Raises
        ------
        DataError
            No such field, or one of several values; a filter that does not fit the fields.
        """
        types = self.snapshot.manifest.fields
        if types.get(field, "keywords") == "keywords":
            why = "has several values for a document" if field in types else "is not there"
            raise DataError(f"cannot group by {printable(field, 40)}, which {why}")
        results: list[Neighbours] = [NONE] * vectors.shape[0]
        left, some = list(range(vectors.shape[0])), 4 * k
        while left:
            found = self.search(vectors[left], some, mode, where)
            for row, near in zip(left, found, strict=True):
                results[row] = near.firsts(self._values(near.rows, field))
            left = [
                row
                for row, near in zip(left, found, strict=True)
                if len(near.rows) == some and len(results[row].rows) <= k
            ]
            some *= 4
        return [near.first(k) for near in results]

    def _values(self, rows: list[int], field: str) -> list[FieldValue | None]:
        return [fields.get(field) for fields in self.snapshot.store.fields_of(np.array(rows, np.int64))]

    def counts(self, field: str, where: Filter | None = None) -> dict[FieldValue, int]:
        """Count the documents with each value of a field, the most frequent value first, equal ones in order.

        Raises
        ------
        DataError
            No such field, or one of numbers or dates; a filter that does not fit the fields.
        """
        types = self.snapshot.manifest.fields
        if types.get(field, "number") in ("number", "date"):
            why = f"is a {types[field]}" if field in types else "is not there"
            raise DataError(f"cannot count the values of {printable(field, 40)}, which {why}")
        store = self.snapshot.store
        among = self.passing(where)
        mask = store.live if among is None else among
        counts: Counter[FieldValue] = Counter()
        for part, first in zip(store.stores, store.starts, strict=True):
            counts.update(value_counts(part.fields, field, mask[first : first + len(part)]))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def passing(self, where: Filter | None) -> NDArray[np.bool_] | None:
        """Return which rows count and pass a filter: ndarray of bool, shape (rows,), not to be changed.

        None where there is no filter: then all that are not dead count.

        Raises
        ------
        DataError
            The filter does not fit the fields.
        """
        return self._passing(filter_for(where, self.snapshot.manifest.fields))

    def _passing(self, where: Filter | None) -> NDArray[np.bool_] | None:
        if where is None:
            return None
        snapshot = self.snapshot
        with snapshot.deriving:
            held: dict[Filter, NDArray[np.bool_]] = snapshot.derived.setdefault("passing", {})
            mask = held.pop(where, None)
        if mask is None:
            mask = np.concatenate([passing(where, store.fields) for store in snapshot.store.stores])
            mask &= snapshot.store.live
        with snapshot.deriving:
            held[where] = mask  # the last used last
            while len(held) * len(mask) > _MASK_BYTES and len(held) > 1:
                del held[next(iter(held))]
        return mask

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
