from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sparse_sts_index import ModelError
from sparse_sts_index.evaluation.baselines import Bm25, Dense, TfIdf, TokenOverlap

if TYPE_CHECKING:
    from sparse_sts_index.evaluation.baselines import Baseline

COLLECTION = ["A cat sleeps on the mat.", "Dogs bark at night!", "The cat is asleep.", "Stocks fell.", "..."]


@pytest.fixture(scope="module")
def dense() -> Dense:
    return Dense("minilm")


def test_token_overlap_by_hand() -> None:
    scores = TokenOverlap().similarities(["A cat sleeps.", "", "a b"], ["The CAT sleeps", "", "c"])
    assert scores.tolist() == [2 / 4, 0, 0]


def test_bm25_by_hand() -> None:
    """Lucene's BM25: idf ln(1 + (N - n + 0.5) / (n + 0.5)), k1 1.5, b 0.75."""
    found = Bm25().similarities(["cat", "dog", "cat"], ["cat sat", "dog dog ran far", "bird"])
    average = (2 + 4 + 1) / 3
    idf = math.log(1 + (3 - 1 + 0.5) / 1.5)

    def term(frequency: int, length: int) -> float:
        return idf * frequency / (frequency + 1.5 * (0.25 + 0.75 * length / average))

    np.testing.assert_allclose(found, [term(1, 2), term(2, 4), 0], rtol=1e-5)


def test_tf_idf_of_the_same_and_of_strangers() -> None:
    found = TfIdf().similarities(["a cat sleeps", "a cat"], ["sleeps a cat", "the dog"])
    np.testing.assert_allclose(found, [1, 0], atol=1e-9)


def test_the_dense_model_knows_what_words_mean(dense: Dense) -> None:
    close, far = dense.similarities(["A cat is asleep."] * 2, ["The kitten sleeps.", "Stocks fell today."])
    assert close > 0.6 > 0.3 > far


@pytest.mark.parametrize("make", [Bm25, TfIdf, TokenOverlap, None])
def test_search_finds_what_scores_highest(make: type[Baseline] | None, dense: Dense) -> None:
    baseline: Baseline = dense if make is None else make()
    baseline.index(COLLECTION)
    found = baseline.search("the cat is asleep", 2).tolist()
    assert found[0] == 2
    assert found[1] == 0
    assert len(baseline.search("zzz", 10)) == len(COLLECTION)


@pytest.mark.parametrize("make", [Bm25, TfIdf, TokenOverlap])
def test_sentences_without_words(make: type[Baseline]) -> None:
    baseline = make()
    assert baseline.similarities(["...", ""], ["!", "?"]).tolist() == [0, 0]
    baseline.index(["...", "!"])
    assert len(baseline.search("a cat", 1)) == 1


def test_unknown_dense_model() -> None:
    with pytest.raises(ModelError, match="no model folder|unknown model"):
        Dense("./nosuch")
