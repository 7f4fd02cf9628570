from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from sparse_sts_index import Pairs, TrainingError, load_pairs
from sparse_sts_index.encoding.models import load_dense
from sparse_sts_index.training import teachers
from sparse_sts_index.training.teachers import TeacherCache

SENTENCES = [f"Sentence number {number}." for number in range(10)]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    return load_dense("minilm", device="cpu")


def test_vectors_go_on_where_a_run_was_killed(
    minilm: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "_PART", 4)
    cache, done = TeacherCache(tmp_path), []

    def interrupt(count: int) -> None:
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.vectors(minilm, SENTENCES, progress=interrupt)
    encoded: list[str] = []
    encode = minilm.encode
    monkeypatch.setattr(minilm, "encode", lambda some, **options: encoded.extend(some) or encode(some, **options))
    vectors = cache.vectors(minilm, SENTENCES)
    assert encoded == SENTENCES[8:]
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, encode(SENTENCES, normalize_embeddings=True), atol=1e-3)


def test_other_sentences_have_other_vectors(minilm: SentenceTransformer, tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    first, second = cache.vectors(minilm, SENTENCES), cache.vectors(minilm, SENTENCES[::-1])
    np.testing.assert_allclose(first, second[::-1], atol=1e-3)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_of_vectors_is_refused(minilm: SentenceTransformer, tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    cache.vectors(minilm, SENTENCES)
    (file,) = tmp_path.rglob("*.npy")
    content = file.read_bytes()
    for damaged in (content[:-3], b""):
        file.write_bytes(damaged)
        with pytest.raises(TrainingError, match="cannot read .*000000000.npy: remove it"):
            cache.vectors(minilm, SENTENCES)
    np.save(file, np.zeros((3, 4)))
    with pytest.raises(TrainingError, match="something else than 10 vectors"):
        cache.vectors(minilm, SENTENCES)


def test_a_teacher_is_fine_tuned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = load_pairs("sample", "train")
    few, others = (Pairs(pairs.sentence1[s], pairs.sentence2[s], pairs.gold[s]) for s in (slice(32), slice(32, 64)))
    cache = TeacherCache(tmp_path)
    tuned = cache.teacher("minilm", few, 2, device="cpu")
    assert teachers.fingerprint(tuned) != teachers.fingerprint(cache.teacher("minilm", few, 0, device="cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(teachers, "tune_teacher", None)
        assert teachers.fingerprint(cache.teacher("minilm", few, 2, device="cpu")) == teachers.fingerprint(tuned)
    cache.teacher("minilm", others, 2, device="cpu")
    assert len(list(tmp_path.iterdir())) == 2
