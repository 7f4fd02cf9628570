from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SparseEncoder

from sparse_sts_index import DataError, Pairs, TrainingSettings, fuse, load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.models import load_dense
from sparse_sts_index.training.distillation import (
    Lessons,
    distinct_sentences,
    interpolate,
    prepare_lessons,
    sequential_batches,
    tune_teacher,
)
from sparse_sts_index.training.losses import DistillationLoss

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def teacher() -> SentenceTransformer:
    return load_dense("minilm", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    some = load_pairs("sample", "train")
    return Pairs(some.sentence1[:60], some.sentence2[:60], some.gold[:60])


def lessons_of(
    teacher: SentenceTransformer, pairs: Pairs, unlabelled: list[str], *, tuned: bool = False, **settings: Any
) -> Lessons:
    sentences = distinct_sentences(pairs, unlabelled)
    vectors = torch.tensor(teacher.encode(sentences, normalize_embeddings=True)).half()
    return prepare_lessons(vectors, sentences, pairs, TrainingSettings(teacher_epochs=float(tuned), **settings))


@pytest.mark.parametrize(("companions", "count"), [(2, 38), (8, 150), (16, 300)])
def test_companions_are_groups_of_the_teacher_s_neighbours(
    teacher: SentenceTransformer, pairs: Pairs, companions: int, count: int
) -> None:
    unlabelled = ["An unlabelled sentence."]
    settings = {"epochs": 2.5, "companions": companions}
    lessons = lessons_of(teacher, pairs, unlabelled, seed=1, **settings)
    rows = len(lessons.columns["label"])
    assert rows == 150
    sentences = [*dict.fromkeys([*pairs.sentence1, *pairs.sentence2, *unlabelled])]
    theirs = teacher.encode(sentences, normalize_embeddings=True)
    np.testing.assert_array_equal(lessons.vectors.numpy(), theirs.astype(np.float16))
    cosines = (lessons.vectors.float() @ lessons.vectors.float().T).numpy()
    gold = dict(zip(zip(pairs.sentence1, pairs.sentence2, strict=True), pairs.gold, strict=True))
    names = ("sentence1", "sentence2", *(f"companion{n + 1}" for n in range(companions)))
    groups: dict[float, list[int]] = {}
    for row in range(rows):
        score, *places, group = lessons.columns["label"][row]
        texts = [lessons.columns[name][row] for name in names]
        assert [sentences[int(place)] for place in places] == texts
        assert score == gold[texts[0], texts[1]]
        for number in range(0, companions, 8):
            groups.setdefault(group + number // 8, []).extend(map(int, places[2 + number :][:8]))
    assert list(groups) == list(range(count))
    for first, *others in groups.values():
        nearest = np.argsort(-np.delete(cosines[first], first), kind="stable")[:30]
        threshold = cosines[first][nearest + (nearest >= first)].min() - 1e-6
        assert len({first, *others}) == len(others) + 1  # 8, and fewer in the last one
        assert all(cosines[first][other] >= threshold for other in others)
    passes = [sorted(lessons.columns["sentence1"][start : start + 60]) for start in (0, 60)]
    assert passes[0] == passes[1] == sorted(pairs.sentence1)
    assert lessons.columns["sentence1"][:60] != lessons.columns["sentence1"][60:120]
    assert lessons_of(teacher, pairs, unlabelled, seed=1, **settings).columns == lessons.columns
    assert lessons_of(teacher, pairs, unlabelled, seed=2, **settings).columns != lessons.columns


def test_the_trainer_takes_them_in_order() -> None:
    rows = Dataset.from_dict({"n": list(range(10))})
    batches = sequential_batches(rows, batch_size=4, drop_last=False, generator=None, seed=1)
    assert list(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("fused", "companions", "group", "floor", "unit"),
    [
        (True, 2, [0, 0, 0, 0, 1, 1] * 2, 0.0, False),  # two groups, one of them cut off
        (False, 2, [0, 0, 0, 0, 1, 1] * 2, 0.3, True),
        (True, 16, [0, 2, 4, 6, 8, 10] * 8 + [1, 3, 5, 7, 9, 11] * 8, 0.3, True),
    ],
)
def test_loss_is_that_of_dense_rows(
    teacher: SentenceTransformer, pairs: Pairs, fused: bool, companions: int, group: list[int], floor: float, unit: bool
) -> None:
    """Computed again from whole rows of the vocabulary, gradients included."""
    lessons = lessons_of(teacher, pairs, [], companions=companions)
    model, stock = (SparseEncoder(str(tiny_folder()), device="cpu", config_kwargs=NO_DROPOUT).train() for _ in "12")
    model = fuse(model) if fused else model
    settings = TrainingSettings(
        teacher_weight=0.7, regularizer_weight=1e-3, similarity_floor=floor, regularize_unit_vectors=unit
    )
    loss = DistillationLoss(model, lessons, settings)
    names = ("sentence1", "sentence2", *(f"companion{n + 1}" for n in range(companions)))
    columns = [model.preprocess(lessons.columns[name][:6]) for name in names]
    labels = torch.tensor(lessons.columns["label"][:6])
    found = loss(columns, labels)
    sum(found.values()).backward()
    weight = next(model.parameters())
    gradient = weight.grad.clone()
    model.zero_grad()

    rows = torch.cat([stock(stock.preprocess(lessons.columns[name][:6]))["sentence_embedding"] for name in names])
    units = torch.nn.functional.normalize(rows, dim=1)
    cosines = units @ units.T
    theirs = lessons.vectors[labels[:, 1:-1].long().T.reshape(-1)].float()
    grades = torch.from_numpy(np.interp((theirs @ theirs.T).numpy(), lessons.cosines, lessons.scores)).float()
    gold, grades = (((values - floor) / (1 - floor)).clamp(min=0) for values in (labels[:, 0], grades))
    errors = (cosines - grades) ** 2
    assert labels[:, -1].tolist() == group[:6]
    places = [(a, b) for a in range(len(group)) for b in range(len(group)) if a != b]
    near = [errors[12 + a, 12 + b] for a, b in places if group[a] == group[b]]
    far = [errors[12 + a, 12 + b] for a, b in places if group[a] != group[b]]
    expected = {
        "base_loss": ((cosines[:6, 6:12].diagonal() - gold) ** 2).mean(),
        "teacher_loss": errors[:6, 6:12].diagonal().mean(),
        "companions_loss": 0.7 * torch.stack(near).mean(),
        "others_loss": 0.7 * torch.stack(far).mean(),
        "document_regularizer_loss": 1e-3 * (cosines.mean() if unit else (rows.mean(dim=0) ** 2).sum()),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    sum(expected.values()).backward()
    torch.testing.assert_close(gradient, next(stock.parameters()).grad, rtol=1e-3, atol=1e-6)


def test_a_tuned_teacher_agrees_more_and_says_nothing(
    pairs: Pairs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_dense("minilm", device="cpu")

    def error() -> float:
        first, second = (model.encode(side, normalize_embeddings=True) for side in (pairs.sentence1, pairs.sentence2))
        return float((((first * second).sum(axis=1) - pairs.gold) ** 2).mean())

    before = error()
    capfd.readouterr()
    tune_teacher(model, pairs, 2, 1, tmp_path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert error() < 0.9 * before


def test_small_sets(teacher: SentenceTransformer, pairs: Pairs) -> None:
    one = Pairs(pairs.sentence1[:1], pairs.sentence2[:1], pairs.gold[:1])
    with pytest.raises(DataError, match="at least 8 different sentences, not 2"):
        lessons_of(teacher, one, [])
    assert len(lessons_of(teacher, one, list("abcdefgh"), epochs=0.01).columns["label"]) == 1


def test_a_tuned_teacher_s_cosines_are_grades(teacher: SentenceTransformer, pairs: Pairs) -> None:
    lessons = lessons_of(teacher, pairs, [], tuned=True)
    cosines = torch.tensor([-0.3, 0.0, 0.4, 1.0])
    assert interpolate(cosines, lessons.cosines, lessons.scores).tolist() == pytest.approx([0, 0, 0.4, 1])


def test_interpolation_is_numpy_s() -> None:
    corners, heights = torch.tensor([-0.5, 0.1, 0.4, 0.9]), torch.tensor([0.0, 0.0, 0.7, 1.0])
    values = torch.linspace(-1, 1.5, 101).reshape(1, 101)
    for count in (4, 1):
        expected = np.interp(values.numpy(), corners[:count].numpy(), heights[:count].numpy())
        np.testing.assert_allclose(interpolate(values, corners[:count], heights[:count]), expected, atol=1e-6)


def test_needs_labels(teacher: SentenceTransformer, pairs: Pairs) -> None:
    model = SparseEncoder(str(tiny_folder()), device="cpu")
    with pytest.raises(ValueError, match="needs labels"):
        DistillationLoss(model, lessons_of(teacher, pairs, []), TrainingSettings())([], None)
