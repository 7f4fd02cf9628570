"""The float vectors by term, in memory: small collections are scored whole faster than Lucene prunes them.

For each term of a query, in order, the weights of its documents times its own are added to the documents' scores: one
pass over the postings and one over the documents, at the speed of memory. Up to some hundred thousand documents that
takes less time than to find out what need not be scored; beyond, it takes more memory than anybody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.vectors.sparse import Vectors

_BLOCK = 64  # documents in a group


class InvertedVectors:
    """The rows of a store that count, by term; 16 bytes a posting.

    Parameters
    ----------
    store : Vectors
    """

    def __init__(self, store: Vectors) -> None:
        rows = np.flatnonzero(store.live)
        by_term = store.take(rows).T.tocsr()
        self._starts: list[int] = by_term.indptr.tolist()
        self._rows, self._weights = rows[by_term.indices], by_term.data.astype(np.float64)
        self._length = -(-len(store) // _BLOCK) * _BLOCK

    def scores(self, terms: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
        """Dot products of a query with all rows, as :meth:`~.vectors.sparse.Vectors.scores` has them.

        Parameters
        ----------
        terms, weights : sequences of int and of float
            Of float32 values.

        Returns
        -------
        ndarray of float64, shape (rows,)
            Rounded up to a multiple of 64 rows; 0 for rows that do not count, or are none.
        """
        if not terms:
            return np.zeros(self._length)
        products, rows = [], []
        for term, weight in sorted(zip(terms, weights, strict=True)):
            postings = slice(self._starts[term], self._starts[term + 1])
            products.append(self._weights[postings] * weight)
            rows.append(self._rows[postings])
        # bincount adds up in the order of its input: by term, as everywhere
        sums = np.bincount(np.concatenate(rows), np.concatenate(products), minlength=self._length)
        return sums.astype(np.float64, copy=False)


def best_rows(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest scores above 0, and of all that equal the last of them.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        None negative.
    """
    width = len(scores) // _BLOCK  # documents width apart are looked through together: the processor likes it so
    whole = width * _BLOCK
    if width > count:
        # The count-th highest of the groups' maxima is no higher than the count-th highest score.
        highest = scores[:whole].reshape(_BLOCK, width).max(axis=0)
        least = np.partition(highest, -count)[-count]
        chosen = np.flatnonzero(highest >= least)
        inside = (np.arange(0, whole, width)[:, None] + chosen).ravel()
        candidates = np.concatenate((inside, np.arange(whole, len(scores))))
    else:
        candidates = np.arange(len(scores))
    found = scores[candidates]
    least = np.partition(found, -count)[-count] if len(found) > count else 0.0
    return candidates[(found >= least) & (found > 0)]
