"""Correlation with gold scores, how sure it is, and whether one model's is truly higher than another's.

The interval is the percentile bootstrap over pairs (Efron and Tibshirani 1993), the test a paired permutation test: if
the two models were alike, then which of them gave which of a pair's two similarities would be chance (Noreen 1989). As
models differ in how they spread their similarities, it is ranks, which is all that Spearman's rho sees, that change
places. Both are scipy's.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.errors import DataError
from sparse_sts_index.search.similarity_join import FLOAT32_ERROR

RESAMPLES = 2000
_CONSTANT = "correlation needs pairs with at least two different scores"
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Correlation:
    """Agreement of a similarity with gold scores.

    Attributes
    ----------
    pearson, spearman : float
        Pearson's r and Spearman's rho, -1..1; NaN if the similarity is the same for all pairs, but for rounding.
    """

    pearson: float
    spearman: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of 95 %.

    Attributes
    ----------
    low, high : float
        NaN where the correlation, or that of a resample, is not defined, as of very few pairs.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One model's Spearman correlation against another's, on the same pairs.

    Attributes
    ----------
    spearman : float
        The first's minus the second's.
    interval : Interval
        Of that difference.
    p_value : float
        How often chance alone makes a difference as large, in either direction; not below 2 / 2001. NaN where a
        correlation is not defined.
    """

    spearman: float
    interval: Interval
    p_value: float


def check_gold(gold: NDArray[np.float64]) -> None:
    """Refuse gold scores that no similarity can correlate with.

    Raises
    ------
    DataError
        Fewer than two, or all equal.
    """
    if _is_constant(gold):
        raise DataError(_CONSTANT)


def check_pairs(pairs: Pairs) -> NDArray[np.float64]:
    """Return the gold scores of pairs; see :func:`check_gold`, whose errors then name the pairs.

    Raises
    ------
    DataError
        They have no scores, fewer than two, or all equal ones.
    """
    if _is_constant(pairs.gold):
        raise pairs.error(_CONSTANT)
    return pairs.gold


def _is_constant(gold: NDArray[np.float64]) -> bool:
    return len(gold) < 2 or bool(np.ptp(gold) == 0)


def is_constant(cosines: NDArray[np.float64]) -> bool:
    """Return whether cosines of float32 vectors are all the same, but for rounding."""
    return bool(np.ptp(cosines) <= FLOAT32_ERROR)


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
    if is_constant(similarity):
        return Correlation(math.nan, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return Correlation(
            float(stats.pearsonr(similarity, gold).statistic), float(stats.spearmanr(similarity, gold).statistic)
        )


def spearman_interval(similarity: NDArray[np.float64], gold: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """Confidence interval of Spearman's rho.

    Parameters
    ----------
    similarity, gold : ndarray of float64, shape (n,)
    seed : int
        Of the 2,000 resamples.

    Raises
    ------
    DataError
        Fewer than two pairs, or all gold scores equal.
    """
    if is_constant(similarity):
        return Interval(math.nan, math.nan)
    return _interval(_spearman, similarity, gold, seed=seed)


def compare(
    first: NDArray[np.float64], second: NDArray[np.float64], gold: NDArray[np.float64], *, seed: int = 0
) -> Difference:
    """Compare two models' similarities of the same pairs.

    Parameters
    ----------
    first, second, gold : ndarray of float64, shape (n,)
    seed : int
        Of the 2,000 resamples, and as many permutations.

    Raises
    ------
    DataError
        Fewer than two pairs, or all gold scores equal.
    """

    def difference(a: NDArray[Any], b: NDArray[Any], scores: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
        return _spearman(a, scores, axis) - _spearman(b, scores, axis)

    interval = _interval(difference, first, second, gold, seed=seed)
    with np.errstate(invalid="ignore"):
        observed = float(difference(first, second, gold))
    if not np.isfinite(observed):
        return Difference(observed, interval, np.nan)
    gold_ranks = stats.rankdata(gold)

    def of_ranks(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
        # A permutation that leaves a model with one value for all says nothing for it.
        return np.nan_to_num(_pearson(a, gold_ranks, axis)) - np.nan_to_num(_pearson(b, gold_ranks, axis))

    ranks = stats.rankdata(first), stats.rankdata(second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        test: Any = stats.permutation_test(
            ranks,
            of_ranks,
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=RESAMPLES // 10,
            rng=np.random.default_rng(seed),
        )
    return Difference(observed, interval, float(test.pvalue))


def _interval(statistic: Any, *samples: NDArray[np.float64], seed: int) -> Interval:
    check_gold(samples[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples without a correlation, which give NaN
        result: Any = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            method="percentile",
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=RESAMPLES // 10,
            rng=np.random.default_rng(seed),
        )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _spearman(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
    return _pearson(stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis), axis)


def _pearson(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
    a = a - a.mean(axis=axis, keepdims=True)
    b = b - b.mean(axis=axis, keepdims=True)
    lengths = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    return np.asarray((a * b).sum(axis=axis) / lengths, dtype=np.float64)
