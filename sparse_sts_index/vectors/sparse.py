"""Sparse unit vectors to read, wherever they are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


class Vectors(ABC):
    """Rows of vectors, numbered from 0, deleted ones among them."""

    @abstractmethod
    def __len__(self) -> int:
        """Rows, dead ones included."""

    @property
    @abstractmethod
    def live(self) -> NDArray[np.bool_]:
        """Return a mask of the rows that are not deleted; ndarray of bool, shape (rows,)."""

    @abstractmethod
    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Document ids of rows, an ndarray of int64."""

    @abstractmethod
    def scores(self, rows: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        """Dot products of a query with some rows, in float64.

        Products of float32 are exact in float64, and are added up in the order of the terms: a score depends on the
        terms that are shared and on nothing else, so that documents which tie do so in every computation.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
        query : ndarray of float64, shape (vocab,)
            Dense, of float32 values.

        Returns
        -------
        ndarray of float64, shape (m,)
        """

    @abstractmethod
    def take(self, rows: NDArray[np.int64]) -> csr_array:
        """Some rows, in this order: csr_array of float32, shape (len(rows), vocab)."""

    @abstractmethod
    def blocks(self, size: int = 1 << 17) -> Iterator[tuple[int, csr_array]]:
        """All rows, at most `size` at a time, each time with the number of the first."""

    def live_rows(self, size: int, skip: int = 0) -> Iterator[NDArray[np.int64]]:
        """Rows that count, in order, `size` at a time, but for the first `skip` of them."""
        rows = np.flatnonzero(self.live)[skip:]
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
