"""One row that stays for all that are similar to it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.search.similarity_join import RowPairs


def representatives(pairs: Iterable[RowPairs], rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose the rows that stay: each, from the first on, that is not similar to one that stays already.

    So no two rows that stay are a pair, and each row that goes is one of a pair with an earlier row that stays; where
    there are several, the one of greatest cosine stands for it, the earlier one of equals. This is the greedy maximal
    independent set of the graph that the pairs are. Memory is that of the result.

    Parameters
    ----------
    pairs : iterable of RowPairs
        Ordered by their first row, which is the lesser one, as :func:`~.search.similarity_join.similar_rows` yields
        them.
    rows : int

    Returns
    -------
    ndarray of int64, shape (rows,)
        The row that stands for each: itself for one that stays.
    ndarray of float64, shape (rows,)
        The cosine with it; 1 for a row that stays.
    """
    standing = np.arange(rows)
    cosines = np.zeros(rows)
    for firsts, seconds, found in pairs:
        begins = np.flatnonzero(np.diff(firsts, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(firsts)], strict=True):
            first, others = firsts[begin], seconds[begin:end]
            if standing[first] != first:
                continue
            nearer = found[begin:end] > cosines[others]
            standing[others[nearer]] = first
            cosines[others[nearer]] = found[begin:end][nearer]
    cosines[standing == np.arange(rows)] = 1
    return standing, cosines
