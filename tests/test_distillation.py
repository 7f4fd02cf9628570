from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder

from sparse_sts_index import DataError, Pairs, fuse, load_pairs
from sparse_sts_index.distillation import interpolate, prepare_lessons
from sparse_sts_index.losses import DistillationLoss
from sparse_sts_index.models import load_dense, tiny_folder

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def teacher() -> SentenceTransformer:
    return load_dense("minilm", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    some = load_pairs("sample", "train")
    return Pairs(some.sentence1[:60], some.sentence2[:60], some.gold[:60])


def test_companions_are_the_teacher_s_neighbours(teacher: SentenceTransformer, pairs: Pairs) -> None:
    lessons = prepare_lessons(teacher, pairs, ["An unlabelled sentence."], 2.5, seed=1, tuned=False)
    rows = len(lessons.columns["label"])
    assert rows == 150
    sentences = [*dict.fromkeys([*pairs.sentence1, *pairs.sentence2, "An unlabelled sentence."])]
    assert len(lessons.vectors) == len(sentences)
    np.testing.assert_allclose(lessons.vectors.numpy(), teacher.encode(sentences, normalize_embeddings=True), atol=1e-5)
    cosines = (lessons.vectors @ lessons.vectors.T).numpy()
    gold = dict(zip(zip(pairs.sentence1, pairs.sentence2, strict=True), pairs.gold, strict=True))
    names = ("sentence1", "sentence2", "companion1", "companion2")
    for row in range(rows):
        label = lessons.columns["label"][row]
        texts = [lessons.columns[name][row] for name in names]
        assert [sentences[int(place)] for place in label[1:]] == texts
        assert label[0] == gold[texts[0], texts[1]]
        first = int(label[1])
        nearest = np.argsort(-np.delete(cosines[first], first), kind="stable")[:30]
        nearest += nearest >= first
        threshold = cosines[first][nearest].min() - 1e-6
        assert first not in map(int, label[3:])
        assert label[3] != label[4]
        assert all(cosines[first][int(place)] >= threshold for place in label[3:])
    passes = [sorted(lessons.columns["sentence1"][start : start + 60]) for start in (0, 60)]
    assert passes[0] == passes[1] == sorted(pairs.sentence1)
    assert (
        prepare_lessons(teacher, pairs, ["An unlabelled sentence."], 2.5, seed=1, tuned=False).columns
        == lessons.columns
    )
    assert (
        prepare_lessons(teacher, pairs, ["An unlabelled sentence."], 2.5, seed=2, tuned=False).columns
        != lessons.columns
    )


@pytest.mark.parametrize("fused", [True, False])
def test_loss_is_that_of_dense_rows(teacher: SentenceTransformer, pairs: Pairs, fused: bool) -> None:
    """Computed again from whole rows of the vocabulary, gradients included."""
    lessons = prepare_lessons(teacher, pairs, [], 1, seed=0, tuned=False)
    model, stock = (SparseEncoder(str(tiny_folder()), device="cpu", config_kwargs=NO_DROPOUT).train() for _ in "12")
    model = fuse(model) if fused else model
    loss = DistillationLoss(model, lessons, teacher_weight=0.7, regularizer_weight=1e-3)
    names = ("sentence1", "sentence2", "companion1", "companion2")
    columns = [model.preprocess(lessons.columns[name][:5]) for name in names]
    labels = torch.tensor(lessons.columns["label"][:5])
    found = loss(columns, labels)
    sum(found.values()).backward()
    weight = next(model.parameters())
    gradient = weight.grad.clone()
    model.zero_grad()

    rows = torch.cat([stock(stock.preprocess(lessons.columns[name][:5]))["sentence_embedding"] for name in names])
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosines = unit @ unit.T
    theirs = lessons.vectors[labels[:, 1:].long().T.reshape(-1)]
    grades = torch.from_numpy(np.interp((theirs @ theirs.T).numpy(), lessons.cosines, lessons.scores)).float()
    errors = (cosines - grades) ** 2
    near = [errors[a, b] for a in range(20) for b in range(20) if a != b and a % 5 == b % 5]
    far = [errors[a, b] for a in range(20) for b in range(20) if a % 5 != b % 5]
    expected = {
        "base_loss": ((cosines[:5, 5:10].diagonal() - labels[:, 0]) ** 2).mean(),
        "companions_loss": 0.7 * torch.stack(near).mean(),
        "others_loss": 0.7 * torch.stack(far).mean(),
        "document_regularizer_loss": 1e-3 * (rows.mean(dim=0) ** 2).sum(),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    sum(expected.values()).backward()
    torch.testing.assert_close(gradient, next(stock.parameters()).grad, rtol=1e-3, atol=1e-6)


def test_small_sets(teacher: SentenceTransformer, pairs: Pairs) -> None:
    one = Pairs(pairs.sentence1[:1], pairs.sentence2[:1], pairs.gold[:1])
    with pytest.raises(DataError, match="more than 2 different sentences"):
        prepare_lessons(teacher, one, [], 1, seed=0, tuned=False)
    assert (
        len(prepare_lessons(teacher, one, ["Another.", "One more."], 0.01, seed=0, tuned=False).columns["label"]) == 1
    )


def test_a_tuned_teacher_s_cosines_are_grades(teacher: SentenceTransformer, pairs: Pairs) -> None:
    lessons = prepare_lessons(teacher, pairs, [], 1, seed=0, tuned=True)
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
        DistillationLoss(model, prepare_lessons(teacher, pairs, [], 1, 0, tuned=False), 1.0, 0.0)([], None)
