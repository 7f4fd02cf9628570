from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.losses import (
    FlopsLoss,
    SparseCosineSimilarityLoss,
    SparseMarginMSELoss,
    SpladeLoss,
)
from torch import Tensor

from sparse_sts_index import TrainingSettings, load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.fused_encoder import fuse
from sparse_sts_index.encoding.term_weights import TermWeights
from sparse_sts_index.training.losses import SparseSpladeLoss, excess, flops, heaviest, pair_cosines
from sparse_sts_index.vectors.quantizer import keep_largest, l2_normalize

WEIGHT = 3e-3


@pytest.fixture(scope="module")
def models() -> tuple[SparseEncoder, SparseEncoder]:
    """The stock model and the fused one, training, without dropout."""
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    stock, other = (SparseEncoder(str(tiny_folder()), config_kwargs=no_dropout).train() for _ in range(2))
    return stock, fuse(other)


def losses_and_gradients(
    loss: SpladeLoss, model: SparseEncoder, columns: list[list[str]], labels: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.zero_grad()
    losses = loss([model.preprocess(column) for column in columns], labels)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_losses_and_gradients_are_those_of_splade_loss(models: tuple[SparseEncoder, SparseEncoder]) -> None:
    pairs = load_pairs("sample", "train")
    results: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for model, kind in zip(models, (SpladeLoss, SparseSpladeLoss), strict=True):
        loss = kind(model, SparseCosineSimilarityLoss(model), WEIGHT, use_document_regularizer_only=True)
        # A pair of equals, one without anything in it, and ordinary ones.
        first, second = ["a cat", "", *pairs.sentence1[:14]], ["a cat", "a dog", *pairs.sentence2[:14]]
        labels = torch.tensor([1.0, 0.0, *pairs.gold[:14]])
        results.append(losses_and_gradients(loss, model, [first, second], labels))
    (expected, wanted), (found, ours) = results
    assert found.keys() == expected.keys() == {"base_loss", "document_regularizer_loss"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    assert ours.keys() == wanted.keys()
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    for name in wanted:
        torch.testing.assert_close(ours[name] / largest, wanted[name] / largest, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("case", ["two regularizers", "threshold", "three columns", "other loss", "plain model"])
def test_other_cases_are_left_to_splade_loss(
    case: str, models: tuple[SparseEncoder, SparseEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, fused = models
    sentences = load_pairs("sample", "dev").sentence1
    columns = [sentences[:4], sentences[4:8]]
    labels = torch.tensor([0.1, 0.9, 0.5, 0.0])
    options: dict[str, Any] = {"use_document_regularizer_only": True}
    if case == "two regularizers":
        options = {"query_regularizer_weight": 1e-3}
    if case == "threshold":
        options["document_regularizer_threshold"] = 10
    if case == "three columns":
        columns.append(sentences[8:12])
    base = SparseMarginMSELoss if case in ("other loss", "three columns") else SparseCosineSimilarityLoss
    if case == "other loss":
        columns.append(sentences[8:12])
    if case == "plain model":
        fused = stock  # only its output has to be made sparse
    else:
        monkeypatch.setattr("sparse_sts_index.training.losses.pair_cosines", None)
    expected, _ = losses_and_gradients(SpladeLoss(stock, base(stock), WEIGHT, **options), stock, columns, labels)
    found, _ = losses_and_gradients(SparseSpladeLoss(fused, base(fused), WEIGHT, **options), fused, columns, labels)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)


def random_weights(rows: int, density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(rows, 50, generator=generator, dtype=torch.float64)
    return dense * (torch.rand(rows, 50, generator=generator) < density)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.1, 1.0])
def test_the_sparse_sums_are_the_dense_ones(density: float) -> None:
    for seed in range(20):
        dense = random_weights(8, density, seed).requires_grad_()
        dense_cosines = torch.cosine_similarity(dense[:4], dense[4:])
        weights = TermWeights.from_dense(dense)
        torch.testing.assert_close(pair_cosines(weights), dense_cosines)
        regularizer = FlopsLoss(None).compute_loss_from_embeddings(dense)  # type: ignore[arg-type]
        torch.testing.assert_close(flops(weights), regularizer)
        if density:
            (expected,) = torch.autograd.grad(dense_cosines.sum() + regularizer, dense)
            (found,) = torch.autograd.grad(pair_cosines(weights).sum() + flops(weights), dense)
            # The dense gradient reaches zeros as well; behind the head, those come from a relu that lets none through.
            torch.testing.assert_close(found, expected * (dense != 0))


@pytest.mark.parametrize("count", [1, 3, 7, 100])
def test_heaviest_keeps_what_encoding_keeps(count: int) -> None:
    torch.manual_seed(count)
    dense = torch.rand(6, 30).round(decimals=1) * (torch.rand(6, 30) < 0.4)  # with ties
    dense[2] = 0
    dense.requires_grad_()
    kept = heaviest(TermWeights.from_dense(dense), count)
    expected = keep_largest(csr_array(dense.detach().numpy()), count).toarray()
    np.testing.assert_array_equal(kept.to_dense().detach().numpy(), expected)
    kept.values.sum().backward()
    np.testing.assert_array_equal(dense.grad, expected > 0)


def test_the_regularizer_of_unit_vectors_is_their_mean_cosine(models: tuple[SparseEncoder, SparseEncoder]) -> None:
    _, model = models
    pairs = load_pairs("sample", "train")
    columns, labels = [pairs.sentence1[:8], pairs.sentence2[:8]], torch.tensor(pairs.gold[:8])
    loss = SparseSpladeLoss(
        model, SparseCosineSimilarityLoss(model), document_regularizer_weight=1.0, use_document_regularizer_only=True
    )
    loss.configure(TrainingSettings(max_active_dims=9, regularize_unit_vectors=True, excess_weight=0.1))
    found, gradients = losses_and_gradients(loss, model, columns, labels)
    with torch.no_grad():
        rows = model(model.preprocess([*columns[0], *columns[1]]))["sentence_embedding"]
    kept = keep_largest(csr_array(rows.numpy()), 9)
    vectors = l2_normalize(kept)
    mean = (vectors @ vectors.T).sum() / 16**2
    assert found["document_regularizer_loss"].item() == pytest.approx(mean, rel=1e-4)
    beyond = rows.numpy().sum(axis=1) - kept.sum(axis=1)
    expected = 0.1 * (beyond / np.linalg.norm(kept.toarray(), axis=1)).mean()
    assert found["excess_loss"].item() == pytest.approx(expected, rel=1e-4)
    assert any(bool(gradient.any()) for gradient in gradients.values())


def test_excess_is_the_share_of_terms_that_are_not_kept() -> None:
    dense = torch.tensor([[4.0, 1.0, 3.0, 0.5], [0.0, 2.0, 0.0, 0.0], [0.0] * 4], requires_grad=True)
    weights = TermWeights.from_dense(dense)
    found = excess(weights, heaviest(weights, 2))
    assert found.item() == pytest.approx(1.5 / 5 / 3)
    found.backward()
    torch.testing.assert_close(dense.grad, torch.tensor([[0, 1, 0, 1], [0] * 4, [0] * 4]) / 15)


def test_only_the_kept_terms_are_in_the_cosine(models: tuple[SparseEncoder, SparseEncoder]) -> None:
    _, model = models
    columns = [["A cat sleeps.", "It rains."], ["A cat is asleep.", "The weather is wet."]]
    loss = SparseSpladeLoss(model, SparseCosineSimilarityLoss(model), WEIGHT, use_document_regularizer_only=True)
    labels, features = torch.tensor([1.0, 0.0]), [model.preprocess(column) for column in columns]
    whole = loss(features, labels)
    loss.max_active_dims = 5
    found = loss([model.preprocess(column) for column in columns], labels)
    rows = csr_array(model.encode([*columns[0], *columns[1]], convert_to_sparse_tensor=False).cpu().numpy())
    unit = l2_normalize(keep_largest(rows, 5)).toarray()
    cosines = torch.from_numpy((unit[:2] * unit[2:]).sum(axis=1))
    torch.testing.assert_close(found["base_loss"], torch.nn.functional.mse_loss(cosines, labels), atol=1e-5, rtol=1e-4)
    assert found["base_loss"] != whole["base_loss"]
    torch.testing.assert_close(found["document_regularizer_loss"], whole["document_regularizer_loss"])
