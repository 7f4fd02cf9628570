r"""Float term weights to small integers and back, with the error that costs.

For a sentence with non-negative term weights :math:`w` and unit vector :math:`v = w / \lVert w \rVert_2`, the impacts
are :math:`q_t = \mathrm{round}(v_t S)` with scale :math:`S = 2^{bits} - 1`: the largest possible weight, 1, becomes the
largest integer. Lucene sums the products of query and document impacts; over both scales, that is the cosine,

.. math:: \frac{\sum_t q^{query}_t\, q^{doc}_t}{S_q S_d} = \hat u \cdot \hat v \approx u \cdot v = \cos(u, v).

**Bound.** With :math:`\hat u = u + d` and :math:`\hat v = v + e`:
:math:`\hat u \cdot \hat v - u \cdot v = \hat u \cdot e + d \cdot v`, so by Cauchy and Schwarz

.. math:: |\hat u \cdot \hat v - u \cdot v| \le \lVert \hat u \rVert \lVert e \rVert + \lVert d \rVert.

Rounding moves a weight by at most :math:`1/2S`, so a sentence with :math:`n` active terms has
:math:`\lVert e \rVert \le \sqrt n / 2S`: 0.01 at 8 bits and 25 terms, and in practice half of that. Weights that
round to zero are in the bound too. Integer sums below 2\ :sup:`24` are exact in the float32 that Lucene scores in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.numbers import check_whole

MIN_BITS, MAX_BITS = 2, 16


def l2_normalize(weights: csr_array) -> csr_array:
    """Scale each row to unit length; rows without any weight stay empty.

    Parameters
    ----------
    weights : csr_array of float, shape (n, vocab)

    Returns
    -------
    csr_array of float32, shape (n, vocab)
    """
    rows = _rows(weights)
    data = weights.data.astype(np.float64)
    norms = np.sqrt(np.bincount(rows, data * data, minlength=weights.shape[0]))
    norms[norms == 0] = 1
    scaled = (data / norms[rows]).astype(np.float32)
    return csr_array((scaled, weights.indices, weights.indptr), shape=weights.shape)


def keep_largest(weights: csr_array, count: int) -> csr_array:
    """Keep the `count` largest weights of each row; of equal ones, those of the lower terms.

    Parameters
    ----------
    weights : csr_array of float, shape (n, vocab)
        With sorted indices.
    count : int

    Returns
    -------
    csr_array, shape (n, vocab)
    """
    order = np.lexsort((-weights.data, _rows(weights)))  # stable; rows stay together, each with its largest first
    rank = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], np.diff(weights.indptr))
    kept = weights.copy()
    kept.data[order[rank >= count]] = 0
    kept.eliminate_zeros()
    return kept


@dataclass(frozen=True)
class Quantizer:
    """Linear quantization of unit vectors to ``bits`` bits.

    Parameters
    ----------
    bits : int
        Bits of the largest impact, 2 to 16. Up to 11 bits any two quantized vectors have a score below 2**24,
        which Lucene's float32 holds exactly; beyond, scores are rounded to 24 bits.

    Raises
    ------
    ValueError
        `bits` outside 2..16.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, MIN_BITS, MAX_BITS)

    @property
    def scale(self) -> int:
        """The impact of weight 1: ``2**bits - 1``."""
        return int(2**self.bits) - 1

    def quantize(self, vectors: csr_array) -> csr_array:
        """Impacts of L2-normalised vectors.

        Parameters
        ----------
        vectors : csr_array of float, shape (n, vocab)
            Rows of unit length (see :func:`l2_normalize`) or empty; no negative weights.

        Returns
        -------
        csr_array of int32, shape (n, vocab)
            Impacts in 1..scale; weights that round to zero are not stored.
        """
        impacts = np.rint(vectors.data.astype(np.float64) * self.scale).astype(np.int32)
        quantized = csr_array((impacts, vectors.indices.copy(), vectors.indptr.copy()), shape=vectors.shape)
        quantized.eliminate_zeros()
        return quantized

    def dequantize(self, impacts: csr_array) -> csr_array:
        """The vectors that `impacts` stand for: csr_array of float64, shape (n, vocab), weights in 0..1."""
        return csr_array((impacts.data / self.scale, impacts.indices, impacts.indptr), shape=impacts.shape)

    def errors(self, vectors: csr_array) -> NDArray[np.float64]:
        r"""Length of each row's rounding error, :math:`\lVert \hat v - v \rVert_2`; ndarray of float64, shape (n,).

        Parameters
        ----------
        vectors : csr_array of float, shape (n, vocab)
            As for :meth:`quantize`.
        """
        data = vectors.data.astype(np.float64)
        error = np.rint(data * self.scale) / self.scale - data
        return np.sqrt(np.bincount(_rows(vectors), error * error, minlength=vectors.shape[0]))


def cosine_error_bound(queries: csr_array, quantizer: Quantizer, document_error: float) -> NDArray[np.float64]:
    r"""How far a quantized score can lie from the float cosine, for each query and any document of a collection.

    The bound :math:`\lVert \hat u \rVert \lVert e \rVert + \lVert d \rVert` of this module's head, plus 1e-6 for unit
    vectors being stored in float32.

    Parameters
    ----------
    queries : csr_array of float, shape (n, vocab)
        L2-normalised query vectors.
    quantizer : Quantizer
        The queries' quantizer.
    document_error : float
        The largest :meth:`Quantizer.errors` among the documents.

    Returns
    -------
    ndarray of float64, shape (n,)
        In units of cosine.
    """
    quantized = quantizer.dequantize(quantizer.quantize(queries))
    lengths = np.sqrt(np.bincount(_rows(quantized), quantized.data**2, minlength=queries.shape[0]))
    bound: NDArray[np.float64] = lengths * document_error + quantizer.errors(queries) + 1e-6
    return bound


def pairwise_dot(a: csr_array, b: csr_array) -> NDArray[np.float64]:
    """Dot product of each row of `a` with the same row of `b`; ndarray of float64, shape (n,).

    For L2-normalised vectors this is the cosine, for impacts it is Lucene's score.
    """
    products = a.astype(np.float64).multiply(b.astype(np.float64))
    return np.asarray(products.sum(axis=1), dtype=np.float64).reshape(-1)


def _rows(matrix: csr_array) -> NDArray[np.intp]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
