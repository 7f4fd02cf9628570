"""Correlation with human judgement: of the model's cosine, and of what Lucene makes of it."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_array

from sparse_sts_index.encoder import SparseStsEncoder
from sparse_sts_index.errors import DataError
from sparse_sts_index.lucene import ImpactReader, ImpactWriter, impact_query, only, query_terms, quoted
from sparse_sts_index.pairs import Pairs
from sparse_sts_index.quantizer import Quantizer, cosine_error_bound, pairwise_dot


@dataclass(frozen=True, slots=True)
class Correlation:
    """Agreement of a similarity with gold scores.

    Attributes
    ----------
    pearson, spearman : float
        Pearson's r and Spearman's rho, -1..1; NaN if the similarity is the same for all pairs.
    """

    pearson: float
    spearman: float


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
class Evaluation(CosineEvaluation):
    """How well a model, and its quantized form in Lucene, agree with gold scores.

    Attributes
    ----------
    quantized : Correlation
        Of Lucene's scores over the two scales.
    bits : int
        Bits of the quantized impacts.
    quantized_active_dims : float
        Mean number of terms whose weight does not round to zero.
    max_difference : float
        Largest distance between the two similarities over the pairs, in units of cosine.
    error_bound : float
        What :func:`~sparse_sts_index.quantizer.cosine_error_bound` allows for.
    """

    quantized: Correlation
    bits: int
    quantized_active_dims: float
    max_difference: float
    error_bound: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, with the differences of the correlations; NaN becomes None."""
        values = dataclasses.asdict(self)
        values["difference"] = {
            name: values["quantized"][name] - values["cosine"][name] for name in ("pearson", "spearman")
        }
        for group in ("cosine", "quantized", "difference"):
            values[group] = {name: None if np.isnan(value) else value for name, value in values[group].items()}
        return values


def check_gold(gold: NDArray[np.float64]) -> None:
    """Refuse gold scores that no similarity can correlate with.

    Raises
    ------
    DataError
        Fewer than two, or all equal.
    """
    if len(gold) < 2 or np.ptp(gold) == 0:
        raise DataError("correlation needs pairs with at least two different scores")


def correlation(similarity: NDArray[np.float64], gold: NDArray[np.float64]) -> Correlation:
    """Pearson's and Spearman's correlation.

    Parameters
    ----------
    similarity, gold : ndarray of float64, shape (n,)

    Raises
    ------
    DataError
        Fewer than two pairs, or all gold scores equal: the correlation is undefined.
    """
    check_gold(gold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return Correlation(
            float(stats.pearsonr(similarity, gold).statistic), float(stats.spearmanr(similarity, gold).statistic)
        )


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


def evaluate(encoder: SparseStsEncoder, pairs: Pairs, *, quantizer: Quantizer | None = None) -> Evaluation:
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

    Raises
    ------
    DataError
        The pairs have no scores, or fewer than two different ones.
    JavaError
        No Java to run Lucene with.
    """
    gold = pairs.gold
    check_gold(gold)
    quantizer = quantizer or Quantizer()
    first, second = encoder.encode_pairs(pairs.sentence1, pairs.sentence2)
    impacts = quantizer.quantize(first), quantizer.quantize(second)
    quantized = _lucene_scores(*impacts, encoder.vocabulary.terms) / quantizer.scale**2
    bounds = cosine_error_bound(first, quantizer, float(quantizer.errors(second).max()))
    base = _evaluate_vectors(first, second, gold)
    return Evaluation(
        pairs=base.pairs,
        cosine=base.cosine,
        active_dims=base.active_dims,
        sparsity=base.sparsity,
        quantized=correlation(quantized, gold),
        bits=quantizer.bits,
        quantized_active_dims=_mean_active_dims(*impacts),
        max_difference=float(np.abs(quantized - pairwise_dot(first, second)).max()),
        error_bound=float(bounds.max()),
    )


def _lucene_scores(queries: csr_array, documents: csr_array, terms: tuple[str, ...]) -> NDArray[np.float64]:
    ids = [str(row) for row in range(documents.shape[0])]
    asked = {row: query_terms(queries, row, terms) for row in np.flatnonzero(np.diff(queries.indptr)).tolist()}
    lines = [only(impact_query(map(quoted, names), weights), ids[row]) for row, (names, weights) in asked.items()]
    with tempfile.TemporaryDirectory(prefix="sparse-sts-") as folder:
        with ImpactWriter(Path(folder)) as writer:
            writer.add(ids, [""] * len(ids), documents, terms)
            writer.commit({})
        reader = ImpactReader(Path(folder))
        try:
            found = reader.search(lines, 1)
        finally:
            reader.close()
    scores = np.zeros(len(ids))
    for row, matches in zip(asked, found, strict=True):
        scores[row] = matches.scores.sum()  # of one document, or of none where no term is shared
    return scores
