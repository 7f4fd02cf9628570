"""Clusters of documents above any cosine threshold (single linkage)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from sparse_sts_index._utils.numbers import check_real
from sparse_sts_index.search.similarity_join import FLOAT32_ERROR, RowPairs, similar_rows
from sparse_sts_index.storage.vector_files import StoredVectors

_WAITING_PAIRS = 1 << 20  # that have not been taken into a forest yet


class Linkage:
    """Single-linkage clusters of rows, for every threshold from a lowest one up.

    Holds the heaviest edges that connect the rows (a maximum spanning forest), at most one fewer than there are rows:
    the clusters above a threshold are those of the forest's edges above it (Gower and Ross, "Minimum spanning trees and
    single linkage cluster analysis", 1969).

    Parameters
    ----------
    store : StoredVectors
    threshold : float
        The least that :meth:`clusters` can be asked for.
    among : ndarray of bool, shape (rows,), optional
        The rows that count. Default: all that are not dead.
    progress : callable, optional
        Called with the number of rows done since its last call.
    """

    def __init__(
        self,
        store: StoredVectors,
        threshold: float,
        *,
        among: NDArray[np.bool_] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.threshold = threshold
        self._size = len(store)
        self._first, self._second = np.empty(0, np.int64), np.empty(0, np.int64)
        self._cosines = np.empty(0)
        waiting: list[RowPairs] = []
        for pairs in similar_rows(store, threshold, among=among, progress=progress):
            waiting.append(pairs)
            if sum(len(cosines) for _, _, cosines in waiting) > _WAITING_PAIRS:
                self._grow(waiting)
                waiting = []
        self._grow(waiting)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Return the rows that have a pair above the lowest threshold, in order."""
        return np.unique(np.concatenate((self._first, self._second)))

    def _grow(self, pairs: list[RowPairs]) -> None:
        """Take in more edges, and drop those that close a circle of heavier ones."""
        from scipy.sparse.csgraph import minimum_spanning_tree  # a tenth of a second, which no search should wait for

        all_pairs = [(self._first, self._second, self._cosines), *pairs]
        first, second, cosines = (np.concatenate(part) for part in zip(*all_pairs, strict=True))
        # An edge is named by its rank: as the weights of csgraph, 0 would be no edge and equal ones as good as another.
        order = np.argsort(-cosines, kind="stable")
        rank = np.empty(len(order))
        rank[order] = np.arange(1, len(order) + 1)
        tree = minimum_spanning_tree(coo_array((rank, (first, second)), shape=(self._size, self._size)).tocsr())
        kept = order[tree.data.astype(np.int64) - 1]
        self._first, self._second, self._cosines = first[kept], second[kept], cosines[kept]

    def clusters(self, threshold: float) -> list[tuple[NDArray[np.int64], float]]:
        """Return the connected components of the rows by pairs whose cosine is at least `threshold`.

        Returns
        -------
        list of (ndarray of int64, float)
            Clusters of two rows or more, each in order, with the lowest cosine that it takes to hold it together; the
            largest cluster first, equally large ones by their first row.

        Raises
        ------
        ValueError
            `threshold` is below the least one.
        """
        from scipy.sparse.csgraph import connected_components  # see above

        check_real("threshold", threshold, self.threshold)
        kept = self._cosines >= threshold - FLOAT32_ERROR
        first, second, cosines = self._first[kept], self._second[kept], self._cosines[kept]
        if not len(first):
            return []
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(self._size, self._size))
        labels = connected_components(graph, directed=False)[1]
        weakest = np.ones(labels.max() + 1)
        np.minimum.at(weakest, labels[first], cosines)
        members = np.unique(np.concatenate((first, second)))
        members = members[np.argsort(labels[members], kind="stable")]
        borders = np.flatnonzero(np.diff(labels[members])) + 1
        found = [(rows, float(weakest[labels[rows[0]]])) for rows in np.split(members, borders)]
        return sorted(found, key=lambda cluster: (-len(cluster[0]), cluster[0][0]))
