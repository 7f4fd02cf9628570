"""Correlation with human judgement: of the model's cosine, and of what Lucene makes of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.json import plain
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.calibration import Calibration
from sparse_sts_index.evaluation.correlation import (
    Correlation,
    Difference,
    Interval,
    check_pairs,
    compare,
    correlation,
    is_constant,
    spearman_interval,
)
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.storage.lucene.temporary import scratch_index
from sparse_sts_index.vectors.quantizer import Quantizer, cosine_error_bound, pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder


@dataclass(frozen=True, slots=True)
class CosineEvaluation:
    """How well a model's cosine agrees with gold scores.

    Attributes
    ----------
    pairs : int
        Number of sentence pairs.
    cosine : Correlation
        Of the float cosine.
    active_dims : float
        Mean number of terms with weight, over all sentences.
    sparsity : float
        Share of the vocabulary without weight: ``1 - active_dims / vocab``.
    """

    pairs: int
    cosine: Correlation
    active_dims: float
    sparsity: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How well calibrated scores agree with gold scores.

    Attributes
    ----------
    pearson : float
        Pearson's r.
    mean_error : float
        Mean distance from the gold score, on the calibration's scale.
    scale : (float, float)
        Lowest and highest score.
    """

    pearson: float
    mean_error: float
    scale: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Another model on the same pairs.

    Attributes
    ----------
    model, model_fingerprint : str
    cosine : Correlation
        Of the other model's float cosine.
    active_dims : float
        Of the other model.
    difference : Difference
        This model's Spearman correlation minus the other's.
    """

    model: str
    model_fingerprint: str
    cosine: Correlation
    active_dims: float
    difference: Difference


@dataclass(frozen=True, slots=True)
class Evaluation(CosineEvaluation):
    """How well a model, and its quantized form in Lucene, agree with gold scores.

    Attributes
    ----------
    spearman_interval : Interval
        Of the float cosine's Spearman correlation.
    quantized : Correlation
        Of Lucene's scores over the two scales.
    bits : int
        Bits of the quantized impacts.
    quantized_active_dims : float
        Mean number of terms whose weight does not round to zero.
    max_difference : float
        Largest distance between the two similarities over the pairs, in units of cosine.
    error_bound : float
        What :func:`~sparse_sts_index.vectors.quantizer.cosine_error_bound` allows for.
    calibrated : Calibrated or None
        Of the scores, if the model has a calibration.
    against : Comparison or None
        With another model, if one was given.
    """

    spearman_interval: Interval
    quantized: Correlation
    bits: int
    quantized_active_dims: float
    max_difference: float
    error_bound: float
    calibrated: Calibrated | None = None
    against: Comparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, with the differences of the correlations; NaN becomes None."""
        values = dataclasses.asdict(self)
        values["difference"] = {
            name: values["quantized"][name] - values["cosine"][name] for name in ("pearson", "spearman")
        }
        cleaned: dict[str, Any] = plain(values)
        return cleaned


def evaluate_cosine(encoder: SparseStsEncoder, pairs: Pairs) -> CosineEvaluation:
    """Compare a model's float cosines with the gold scores of pairs; no Lucene involved.

    Parameters and errors are those of :func:`evaluate`.
    """
    first, second = encoder.encode_pairs(pairs.sentence1, pairs.sentence2)
    return _evaluate_vectors(first, second, pairs.gold)


def _evaluate_vectors(first: csr_array, second: csr_array, gold: NDArray[np.float64]) -> CosineEvaluation:
    active_dims = _mean_active_dims(first, second)
    return CosineEvaluation(
        pairs=len(gold),
        cosine=correlation(pairwise_dot(first, second), gold),
        active_dims=active_dims,
        sparsity=1 - active_dims / first.shape[1],
    )


def _mean_active_dims(first: csr_array, second: csr_array) -> float:
    return (first.nnz + second.nnz) / (first.shape[0] + second.shape[0])


def evaluate(
    encoder: SparseStsEncoder,
    pairs: Pairs,
    *,
    quantizer: Quantizer | None = None,
    against: SparseStsEncoder | None = None,
) -> Evaluation:
    """Compare a model's cosines, and their quantized form as Lucene computes it, with the gold scores of pairs.

    For the latter the second sentences are written to a temporary Lucene index, and each first sentence is scored
    against its partner there.

    Parameters
    ----------
    encoder : SparseStsEncoder
    pairs : Pairs
        With scores.
    quantizer : Quantizer, optional
        Default: 8 bits.
    against : SparseStsEncoder, optional
        Another model, to test whether the difference is more than chance.

    Raises
    ------
    DataError
        The pairs have no scores, or fewer than two different ones.
    JavaError
        No Java to run Lucene with.
    """
    gold = check_pairs(pairs)
    quantizer = quantizer or Quantizer()
    first, second = encoder.encode_pairs(pairs.sentence1, pairs.sentence2)
    impacts = quantizer.quantize(first), quantizer.quantize(second)
    quantized = _lucene_scores(*impacts, encoder.vocabulary.terms) / quantizer.scale**2
    bounds = cosine_error_bound(first, quantizer, float(quantizer.errors(second).max()))
    base = _evaluate_vectors(first, second, gold)
    cosines = pairwise_dot(first, second)
    return Evaluation(
        pairs=base.pairs,
        cosine=base.cosine,
        active_dims=base.active_dims,
        sparsity=base.sparsity,
        spearman_interval=spearman_interval(cosines, gold),
        quantized=base.cosine if is_constant(cosines) else correlation(quantized, gold),
        bits=quantizer.bits,
        quantized_active_dims=_mean_active_dims(*impacts),
        max_difference=float(np.abs(quantized - cosines).max()),
        error_bound=float(bounds.max()),
        calibrated=None if encoder.calibration is None else _calibrated(encoder.calibration, cosines, gold),
        against=None if against is None else _compare(cosines, against, pairs),
    )


def _calibrated(calibration: Calibration, cosines: NDArray[np.float64], gold: NDArray[np.float64]) -> Calibrated:
    low, high = calibration.scale
    scores = calibration(cosines)
    error = float(np.abs(scores - (low + gold * (high - low))).mean())
    return Calibrated(correlation(scores, gold).pearson, error, calibration.scale)


def _compare(cosines: NDArray[np.float64], other: SparseStsEncoder, pairs: Pairs) -> Comparison:
    first, second = other.encode_pairs(pairs.sentence1, pairs.sentence2)
    others = pairwise_dot(first, second)
    return Comparison(
        other.name,
        other.fingerprint,
        correlation(others, pairs.gold),
        _mean_active_dims(first, second),
        compare(cosines, others, pairs.gold),
    )


def _lucene_scores(queries: csr_array, documents: csr_array, terms: tuple[str, ...]) -> NDArray[np.float64]:
    count = documents.shape[0]
    asked = (query_terms(queries, row, terms) for row in range(count))
    with scratch_index(documents, terms) as (reader, _):
        found = reader.search_impacts(asked, 1, ids=map(str, range(count)))
    return np.array([matches.scores.sum() for matches in found])  # no match where no term is shared
