from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from sparse_sts_index import DataError, ModelError, SparseStsEncoder, load_pairs, read_corpus, train
from sparse_sts_index.training.settings import GrowthSettings, TrainingSettings
from sparse_sts_index.training.splade_from_dense import grow
from sparse_sts_index.vectors.quantizer import pairwise_dot


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return [document.text for document in read_corpus("sample")]


@pytest.mark.slow
def test_the_grown_model_follows_its_teacher(tiny: SparseStsEncoder, sentences: list[str], tmp_path: Path) -> None:
    losses: list[float] = []
    settings = GrowthSettings(steps=25, batch_size=16, learning_rate=1e-3)
    (tmp_path / "grown").mkdir()
    grown = grow(tmp_path / "grown", sentences[:600], settings, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    strangers = sentences[800:900]
    ours, theirs = grown.encode(strangers), tiny.encode(strangers)
    shuffled = theirs[np.roll(np.arange(100), 1)]
    assert pairwise_dot(ours, theirs).mean() > 3 * pairwise_dot(ours, shuffled).mean()  # 2.5 after a single step
    assert ours.nnz < 10_000 * 100  # 19,000 terms a sentence after a single step
    loaded = SparseStsEncoder.load(tmp_path / "grown", precision="float32")
    assert loaded.fingerprint == grown.fingerprint
    assert loaded.model.fused
    plain = SparseEncoder(str(tmp_path / "grown")).encode(strangers[:3], convert_to_sparse_tensor=False).numpy()
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.encode(strangers[:3]).toarray(), plain, atol=1e-5)
    pairs = load_pairs("sample", "dev")
    base = TrainingSettings(base_model=str(tmp_path / "grown"), epochs=0.1, batch_size=4)
    assert train(tmp_path / "model", pairs, pairs, settings=base).steps == 2


def test_refuses_what_it_cannot_grow(sentences: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least a batch of 64 sentences, not 3"):
        grow(tmp_path / "new", sentences[:3])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").touch()
    with pytest.raises(ModelError, match="is not a model and not empty"):
        grow(tmp_path / "taken", sentences, overwrite=True)
    with pytest.raises(ModelError, match="/proc is a mount point and cannot be replaced"):
        grow("/proc", sentences)
    with pytest.raises(ModelError, match="no model folder"):
        grow(tmp_path / "new", sentences, GrowthSettings(encoder="./nosuch"))
    with pytest.raises(ModelError, match="dense model; sparse-sts grow"):
        SparseStsEncoder.load("minilm")
    assert not (tmp_path / "new").exists()
