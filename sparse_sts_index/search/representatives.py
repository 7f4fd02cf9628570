"""One row that stays for all that are similar to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.search.similarity_join import similar_rows
from sparse_sts_index.storage.vector_files import StoredVectors


def representatives(store: StoredVectors, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose the rows that stay: each, from the first on, that is not similar to one that stays already.

    So no two rows that stay are a pair, and each row that goes is one of a pair with an earlier row that stays; where
    there are several, the one of greatest cosine stands for it, the earlier one of equals. This is the greedy maximal
    independent set of the graph that the pairs are.

    Memory is that of the join, and in it of the pairs of a few hundred rows. For a row that goes, no pairs are looked
    for any more.

    Parameters
    ----------
    store : StoredVectors
        Without dead rows.
    threshold : float
        As for :func:`~.search.similarity_join.similar_rows`.

    Returns
    -------
    ndarray of int64, shape (rows,)
        The row that stands for each: itself for one that stays.
    ndarray of float64, shape (rows,)
        The cosine with it; 1 for a row that stays.
    """
    rows = len(store)
    standing, cosines, stays = np.arange(rows), np.zeros(rows), np.ones(rows, bool)
    for firsts, seconds, found in similar_rows(store, threshold, firsts=stays):
        begins = np.flatnonzero(np.diff(firsts, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(firsts)], strict=True):
            first, others = firsts[begin], seconds[begin:end]
            if not stays[first]:
                continue
            stays[others] = False
            nearer = found[begin:end] > cosines[others]
            standing[others[nearer]] = first
            cosines[others[nearer]] = found[begin:end][nearer]
    cosines[stays] = 1
    return standing, cosines
