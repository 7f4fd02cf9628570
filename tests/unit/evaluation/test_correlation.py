from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from sparse_sts_index import DataError, evaluate, load_pairs
from sparse_sts_index.evaluation.correlation import compare, spearman_interval

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


def noisy(rng: np.random.Generator, gold: np.ndarray, noise: float) -> np.ndarray:
    return gold + rng.normal(0, noise, len(gold))


def test_intervals_cover_what_they_promise() -> None:
    """Of many samples from a population of known rho, about 95 % give an interval that holds it."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=200_000)
    population = stats.spearmanr(gold, noisy(np.random.default_rng(1), gold, 1.0)).statistic
    covered = 0
    for _ in range(60):
        sample = rng.normal(size=150)
        interval = spearman_interval(noisy(rng, sample, 1.0), sample)
        covered += interval.low <= population <= interval.high
    assert covered >= 50  # 60 * 0.95 = 57; fewer than 50 has a chance below 0.001


def test_difference_is_that_of_scipy_s_rho_and_its_sign_turns() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random(400)
    good, poor = noisy(rng, gold, 0.2), noisy(rng, gold, 0.6)
    found = compare(good, poor, gold)
    expected = stats.spearmanr(good, gold).statistic - stats.spearmanr(poor, gold).statistic
    assert found.spearman == pytest.approx(expected)
    assert 0 < found.interval.low < expected < found.interval.high
    assert found.p_value < 0.002
    assert compare(poor, good, gold).spearman == pytest.approx(-expected)


def test_scales_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random(200)
    a, b = noisy(rng, gold, 0.3), noisy(rng, gold, 0.3)
    assert compare(a, b, gold).p_value == compare(np.exp(3 * a), 100 * b, gold).p_value


def test_p_values_of_equals_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    small = large = 0
    for _ in range(40):
        gold = rng.random(100)
        p_value = compare(noisy(rng, gold, 0.3), noisy(rng, gold, 0.3), gold).p_value
        small, large = small + (p_value < 0.1), large + (p_value < 0.5)
    assert small <= 10  # 4 are expected; above 10 has a chance of about 0.002
    assert 8 <= large <= 32  # 20 are expected


def test_a_model_against_itself(tiny: SparseStsEncoder) -> None:
    result = evaluate(tiny, load_pairs("sample", "test"), against=tiny)
    assert result.against is not None
    assert result.against.difference.spearman == 0
    assert result.against.difference.p_value == 1
    assert result.against.cosine == result.cosine
    assert result.against.active_dims == result.active_dims
    assert result.spearman_interval.low < result.cosine.spearman < result.spearman_interval.high


def test_undefined() -> None:
    with pytest.raises(DataError, match="at least two different scores"):
        spearman_interval(np.array([0.1, 0.2]), np.array([1.0, 1.0]))
    gold = np.random.default_rng(0).random(30)
    for a, b in ((np.zeros(30), gold), (np.zeros(30), np.zeros(30))):
        found = compare(a, b, gold)
        assert np.isnan(found.spearman)
        assert np.isnan(found.p_value)
    interval = spearman_interval(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert np.isnan(interval.low)
