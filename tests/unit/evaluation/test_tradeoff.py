from __future__ import annotations

import numpy as np
import pytest

from sparse_sts_index import DataError, Pairs, Quantizer, SparseStsEncoder, evaluate, load_pairs
from sparse_sts_index.evaluation.tradeoff import trade_off


def test_settings_are_what_an_index_would_be(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "test")
    done: list[int] = []
    traded = trade_off(tiny, pairs, bits=(8, 2, 4), active_dims=(6, 12), tolerance=0.02, progress=done.append)
    assert sum(done) == 9
    assert [(s.bits, s.max_active_dims) for s in traded.settings] == [
        (bits, count) for count in (None, 12, 6) for bits in (2, 4, 8)
    ]
    for setting in traded.settings:
        model = SparseStsEncoder.load("tiny", precision="float32", max_active_dims=setting.max_active_dims)
        expected = evaluate(model, pairs, quantizer=Quantizer(setting.bits))
        assert setting.spearman == pytest.approx(expected.quantized.spearman, abs=1e-6)
        if setting.max_active_dims is not None:
            assert setting.active_dims <= setting.max_active_dims
        assert setting.search_ms > 0
    by_setting = {(s.bits, s.max_active_dims): s for s in traded.settings}
    assert by_setting[8, 6].lucene_bytes < by_setting[8, None].lucene_bytes
    assert by_setting[2, None].lucene_bytes < by_setting[8, None].lucene_bytes
    assert by_setting[8, 6].vectors_bytes <= 8 * 6
    assert traded.float_spearman == pytest.approx(evaluate(tiny, pairs).cosine.spearman)
    within = [s for s in traded.settings if s.spearman >= traded.float_spearman - 0.02]
    assert traded.recommended in within
    assert traded.recommended is not None
    least = min(s.lucene_bytes + s.vectors_bytes for s in within)
    assert traded.recommended.lucene_bytes + traded.recommended.vectors_bytes == least
    assert (traded.usual.bits, traded.usual.max_active_dims) == (8, None)


def test_steps_of_any_kind_come_close_at_many_bits(tiny: SparseStsEncoder) -> None:
    traded = trade_off(tiny, load_pairs("sample", "test"), bits=(3, 16), active_dims=())
    for quality in traded.steps:
        if quality.bits == 16:
            assert quality.spearman == pytest.approx(traded.float_spearman, abs=1e-3)
    coarse = {quality.steps: quality.pearson for quality in traded.steps if quality.bits == 3}
    assert len(set(coarse.values())) == 3


def test_a_corpus_of_its_own(tiny: SparseStsEncoder) -> None:
    traded = trade_off(tiny, load_pairs("sample", "dev"), bits=(8,), active_dims=(), corpus=["A cat.", "A dog.", ""])
    assert traded.sentences == 3


def test_nothing_within_an_impossible_tolerance(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "test")
    assert trade_off(tiny, pairs, bits=(2,), active_dims=(), tolerance=0).recommended is None
    with pytest.raises(ValueError, match="bits must name"):
        trade_off(tiny, pairs, bits=())
    with pytest.raises(ValueError, match="bits must be"):
        trade_off(tiny, pairs, bits=(1,))
    with pytest.raises(DataError, match="no scores"):
        trade_off(tiny, Pairs(["a"], ["b"], None))
    with pytest.raises(DataError, match="two different scores"):
        trade_off(tiny, Pairs(["a", "b"], ["b", "c"], np.ones(2)))
