from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sentence_transformers.sparse_encoder.evaluation import SparseEmbeddingSimilarityEvaluator

from sparse_sts_index import DataError, Pairs, Quantizer, evaluate, load_pairs
from sparse_sts_index.evaluation.correlation import correlation
from sparse_sts_index.vectors.quantizer import pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


def test_agrees_with_sentence_transformers(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "test")
    evaluator = SparseEmbeddingSimilarityEvaluator(
        pairs.sentence1, pairs.sentence2, pairs.gold.tolist(), similarity_fn_names=["cosine"], write_csv=False
    )
    expected = evaluator(tiny.model)
    result = evaluate(tiny, pairs)
    assert result.cosine.pearson == pytest.approx(expected["pearson_cosine"], abs=1e-5)
    assert result.cosine.spearman == pytest.approx(expected["spearman_cosine"], abs=1e-3)
    assert result.active_dims == pytest.approx(expected["active_dims"])
    assert result.sparsity == pytest.approx(expected["sparsity_ratio"])


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_quantized_part_is_lucene_s(tiny: SparseStsEncoder, bits: int) -> None:
    """The correlation is that of the integer dot products, which is what Lucene's scorer returned."""
    pairs, quantizer = load_pairs("sample", "test"), Quantizer(bits)
    result = evaluate(tiny, pairs, quantizer=quantizer)
    vectors = tiny.encode([*pairs.sentence1, *pairs.sentence2])
    impacts = quantizer.quantize(vectors)
    scores = pairwise_dot(impacts[: len(pairs)], impacts[len(pairs) :]) / quantizer.scale**2
    assert result.quantized.pearson == pytest.approx(correlation(scores, pairs.gold).pearson, abs=1e-6)
    cosine = pairwise_dot(vectors[: len(pairs)], vectors[len(pairs) :])
    assert result.max_difference == pytest.approx(np.abs(scores - cosine).max(), abs=1e-6)
    assert result.max_difference <= result.error_bound
    assert (result.pairs, result.bits) == (72, bits)
    json.dumps(result.to_dict(), allow_nan=False)


def test_undefined_correlations(tiny: SparseStsEncoder) -> None:
    for scores in ([0.5], [0.5, 0.5]):
        pairs = Pairs(["a"] * len(scores), ["b"] * len(scores), np.array(scores))
        with pytest.raises(DataError, match="at least two different scores"):
            evaluate(tiny, pairs)
    same = evaluate(tiny, Pairs(["a", "a"], ["a", "a"], np.array([0.0, 1.0])))
    assert same.to_dict()["quantized"] == {"pearson": None, "spearman": None}


def test_real_stsb_zero_shot(tiny: SparseStsEncoder, stsb: Path) -> None:
    """The known figures of this model on the real benchmark, and that eight bits lose less than 0.002 of them."""
    result = evaluate(tiny, load_pairs(stsb, "test", score_range=(0, 5)))
    assert result.cosine.spearman == pytest.approx(0.702, abs=0.002)
    assert result.quantized.spearman == pytest.approx(result.cosine.spearman, abs=0.002)
