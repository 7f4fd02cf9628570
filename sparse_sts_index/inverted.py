"""The float vectors by term, in memory: small collections are scored whole faster than Lucene prunes them.

For each term of a query, in order, the weights of its documents times its own are added to the documents' scores: one
pass over the postings and one over the documents, at the speed of memory. Up to some hundred thousand documents that
takes less time than to find out what need not be scored; beyond, Lucene is faster (see ``docs/search.md``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.vectors import VectorStore

_BLOCK = 64  # documents that are looked through together


class InvertedVectors:
    """The rows of a store that count, by term; 12 bytes a posting.

    Parameters
    ----------
    store : VectorStore
    """

    def __init__(self, store: VectorStore) -> None:
        rows = np.flatnonzero(store.live)
        by_term = store.take(rows).T.tocsr()
        self._starts: list[int] = by_term.indptr.tolist()
        self._rows, self._weights = rows[by_term.indices], by_term.data
        self._length = -(-len(store) // _BLOCK) * _BLOCK

    def scores(self, terms: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
        """Dot products of a query with all rows, as :meth:`~sparse_sts_index.vectors.VectorStore.scores` has them.

        Parameters
        ----------
        terms, weights : sequences of int and of float
            Of float32 values.

        Returns
        -------
        ndarray of float64, shape (rows,)
            Rounded up to a multiple of 64 rows; 0 for rows that do not count, or are none.
        """
        in_order = sorted(zip(terms, weights, strict=True))
        ordered = [(self._starts[term], self._starts[term + 1], weight) for term, weight in in_order]
        total = sum(stop - start for start, stop, _ in ordered)
        products, rows = np.empty(total), np.empty(total, np.int64)
        position = 0
        for start, stop, weight in ordered:
            end = position + stop - start
            np.multiply(self._weights[start:stop], weight, out=products[position:end], dtype=np.float64)
            rows[position:end] = self._rows[start:stop]
            position = end
        # bincount adds up in the order of its input: by term, as everywhere
        return np.bincount(rows, products, minlength=self._length).astype(np.float64, copy=False)


def best_rows(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest scores above 0, and of all that equal the last of them.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        None negative.
    """
    whole = len(scores) // _BLOCK * _BLOCK
    blocks = scores[:whole].reshape(-1, _BLOCK)
    candidates = np.arange(len(scores))
    if len(blocks) > count:
        # The count-th highest of the blocks' maxima is no higher than the count-th highest score.
        highest = blocks.max(axis=1)
        least = np.partition(highest, -count)[-count]
        chosen = np.flatnonzero(highest >= least)
        inside = (chosen[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        candidates = np.concatenate((inside, np.arange(whole, len(scores))))
    found = scores[candidates]
    if len(found) > count:
        least = np.partition(found, -count)[-count]
        candidates = candidates[found >= least]
    return candidates[scores[candidates] > 0]
