from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from sparse_sts_index import load_pairs
from sparse_sts_index.encoding import splade_head
from sparse_sts_index.encoding.splade_head import DecoderScreen, max_logits, screen_dtype

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

SCREENS = [
    pytest.param(
        torch.int8,
        marks=pytest.mark.skipif(
            screen_dtype(torch.device("cpu")) != torch.int8, reason="needs a processor with VNNI instructions"
        ),
    ),
    torch.bfloat16,
    torch.float32,
]


@pytest.fixture(scope="module", autouse=True)
def never_all() -> Iterator[None]:
    """Small batches are seldom sparse; the sparse way is what most tests here are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splade_head, "_DENSE", 2)
        yield


def dense_maxima(hidden: Tensor, lengths: list[int], weight: Tensor, bias: Tensor | None) -> Tensor:
    """All maxima, cut off at zero, by the definition."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    rows = [part.max(dim=0)[0].relu() if len(part) else weight.new_zeros(len(weight)) for part in logits.split(lengths)]
    return torch.stack(rows) if rows else weight.new_zeros(0, len(weight))


def scattered(result: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    values, rows, terms, *_ = result
    places = (rows * shape[1] + terms).tolist()
    assert places == sorted(set(places))
    return values.new_zeros(shape).index_put((rows, terms), values)


def batch(
    lengths: list[int], vocabulary: int = 3000, size: int = 32, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Random operands of which about one logit in a hundred is positive."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sum(lengths), size, generator=generator, dtype=dtype) * 3
    weight = torch.randn(vocabulary, size, generator=generator, dtype=dtype) / size**0.5
    bias = torch.randn(vocabulary, generator=generator, dtype=dtype) - 9
    return hidden, weight, bias


@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize("lengths", [[5], [1, 9, 3, 3, 0, 40, 7], [0, 2], [2, 0], [0], [], list(range(1, 60))])
@pytest.mark.parametrize("with_bias", [True, False])
def test_maxima_and_gradients_are_those_of_the_definition(
    dtype: torch.dtype, lengths: list[int], with_bias: bool
) -> None:
    operands = [x.requires_grad_() for x in batch(lengths)]
    hidden, weight, bias = operands[0], operands[1], operands[2] if with_bias else None
    expected = dense_maxima(hidden, lengths, weight, bias)
    found = scattered(max_logits(hidden, lengths, weight, bias, screen=DecoderScreen(dtype)), expected.shape)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if not lengths or not sum(lengths):
        return
    upstream = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1))
    some = operands[: 3 if with_bias else 2]
    for ours, theirs in zip(
        torch.autograd.grad((found * upstream).sum(), some),
        torch.autograd.grad((expected * upstream).sum(), some),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 9.0])  # the second makes all of it be computed
def test_the_token_that_has_each_value_is_told(shift: float) -> None:
    lengths = [5, 0, 1, 9, 3]
    hidden, weight, bias = batch(lengths)
    values, rows, terms, tokens = max_logits(hidden, lengths, weight, bias + shift)
    assert len(values) > 100
    logits = torch.nn.functional.linear(hidden, weight, bias + shift)
    torch.testing.assert_close(logits[tokens, terms], values)
    assert torch.equal(torch.tensor([0, 1, 2, 3, 4]).repeat_interleave(torch.tensor(lengths))[tokens], rows)


@pytest.mark.parametrize("dtype", SCREENS)
def test_gradcheck(dtype: torch.dtype) -> None:
    lengths = [4, 1, 0, 6]
    hidden, weight, bias = batch(lengths, vocabulary=40, size=6, dtype=torch.float64)
    bias = bias + 8
    values, rows, terms, _ = max_logits(hidden, lengths, weight, bias)
    assert values.dtype == torch.float64
    assert len(values) > 20
    assert values.min() > 1e-4, "a value this near to zero would come and go under gradcheck's perturbation"

    def maxima(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        found, found_rows, found_terms, _ = max_logits(hidden, lengths, weight, bias, screen=DecoderScreen(dtype))
        assert torch.equal(found_rows, rows)
        assert torch.equal(found_terms, terms)
        return found

    assert torch.autograd.gradcheck(maxima, [x.requires_grad_() for x in (hidden, weight, bias)])


@pytest.mark.parametrize("dtype", SCREENS)
def test_of_tokens_that_tie_the_first_has_the_gradient(dtype: torch.dtype) -> None:
    hidden, weight, bias = batch([3, 3])
    hidden[1] = hidden[2] = hidden[0]
    hidden[5] = hidden[4]
    hidden.requires_grad_()
    values, *_ = max_logits(hidden, [3, 3], weight, bias + 4, screen=DecoderScreen(dtype))
    (found,) = torch.autograd.grad(values.sum(), hidden)
    assert found[0].abs().sum() > 0
    assert found[4].abs().sum() > 0
    assert not found[[1, 2, 5]].any()
    (expected,) = torch.autograd.grad(dense_maxima(hidden, [3, 3], weight, bias + 4).sum(), hidden)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 70),
    spread=st.floats(0, 6),
    margin=st.sampled_from([0.0, 1e-5, 1e-3, 0.1]),
    dtype=st.sampled_from([torch.int8, torch.bfloat16, torch.float32]),
)
def test_the_screen_loses_nothing(seed: int, size: int, spread: float, margin: float, dtype: torch.dtype) -> None:
    """Rows of lengths far apart, outliers, zeros, and biases that leave every maximum within a hair of zero."""
    if dtype == torch.int8 and screen_dtype(torch.device("cpu")) != torch.int8:
        return
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 12, (7,), generator=generator).tolist()
    hidden, weight, _ = batch(lengths, vocabulary=300, size=size, seed=seed)
    weight *= torch.exp(spread * torch.randn(300, 1, generator=generator))
    weight[torch.rand(weight.shape, generator=generator) < 0.02] *= 50
    weight[::7] = 0
    if len(hidden):
        hidden *= torch.exp(spread / 3 * torch.randn(len(hidden), 1, generator=generator))
    if not len(hidden):
        return
    largest = (hidden.double() @ weight.double().T).amax(dim=0)
    bias = -largest.float() + margin * weight.norm(dim=1)
    expected = dense_maxima(hidden.double(), lengths, weight.double(), bias.double())
    found = scattered(max_logits(hidden, lengths, weight, bias, screen=DecoderScreen(dtype)), expected.shape)
    # What float32 makes of a sum of this many.
    rounding = (size + 8) * 2.0**-22 * hidden.norm(dim=1).amax() * weight.norm(dim=1)
    assert ((found - expected).abs() <= rounding).all()


def test_int8_products_are_exact() -> None:
    """The largest possible sums, at which a processor without VNNI would saturate."""
    if screen_dtype(torch.device("cpu")) != torch.int8:
        pytest.skip("needs a processor with VNNI instructions")
    generator = torch.Generator().manual_seed(0)
    for tokens, terms, size in ((1, 1, 2), (64, 1, 128), (64, 1000, 128), (3, 77, 1023)):
        for left, right in ((127, 127), (-127, 127), (-127, -127), (None, None)):
            a, b = (
                torch.full(shape, value, dtype=torch.int8)
                if value is not None
                else torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)
                for shape, value in (((tokens, size), left), ((terms, size), right))
            )
            assert torch.equal(torch._int_mm(a, b.T).long(), a.long() @ b.T.long())


@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["hidden", "weight", "bias"])
def test_what_is_not_finite_comes_out(dtype: torch.dtype, poison: float, where: str) -> None:
    operands = dict(zip(("hidden", "weight", "bias"), batch([4, 6]), strict=True))
    operands[where].view(-1)[7] = poison
    values, *_ = max_logits(lengths=[4, 6], screen=DecoderScreen(dtype), **operands)
    assert not values.isfinite().all()


def test_blocks_and_groups_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 50, 1, 0, 17, 17, 16, 2, 120]
    operands = batch(lengths)
    expected = max_logits(operands[0], lengths, *operands[1:])
    assert len(expected[0]) > 100
    for name, value in (
        ("_BLOCK_TOKENS", 20),
        ("_SLICE_LOGITS", 999),
        ("_REFINE_ELEMENTS", 5000),
        ("_ROUNDING_ROWS", 7),
        ("_GROUP_FILL", 0.1),
    ):
        monkeypatch.setattr(splade_head, name, value)
        for found, wanted in zip(max_logits(operands[0], lengths, *operands[1:]), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_blocks_hold_every_sentence_once_and_are_bounded() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        lengths = sorted(generator.integers(1, 700, generator.integers(1, 200)).tolist(), reverse=True)
        done = 0
        for block in splade_head._blocks(lengths, 1024):
            padded = [length for sentences, length in block.groups for _ in range(sentences)]
            some = lengths[done : done + block.sentences]
            assert all(length <= pad for length, pad in zip(some, padded, strict=True))
            assert all(length >= pad * splade_head._GROUP_FILL for length, pad in zip(some, padded, strict=True))
            assert len(some) == 1 or sum(padded) <= 1024
            done += block.sentences
        assert done == len(lengths)


@pytest.mark.parametrize("dtype", SCREENS)
def test_a_changed_weight_is_noticed(dtype: torch.dtype) -> None:
    hidden, weight, bias = batch([4, 6])
    screen = DecoderScreen(dtype)

    def check() -> None:
        expected = dense_maxima(hidden, [4, 6], weight, bias)
        assert expected.count_nonzero() > 0
        found = scattered(max_logits(hidden, [4, 6], weight, bias, screen=screen), expected.shape)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    check()
    rounded = screen.rounded(weight, torch.float32)
    assert screen.rounded(weight, torch.float32) is rounded
    weight.neg_()  # counted by the tensor
    check()
    weight.data.mul_(-1.5)  # not counted
    check()
    weight.data = -weight  # another memory
    check()
    weight.numpy()[5] = 10 * hidden[0].numpy()  # one term, behind torch's back
    check()
    hidden, weight, bias = (x.double() for x in (hidden, weight, bias))
    check()


def test_half_precision_operands() -> None:
    hidden, weight, bias = (x.bfloat16() for x in batch([4, 6]))
    values, rows, terms, _ = max_logits(hidden, [4, 6], weight, bias)
    assert values.dtype == torch.float32
    expected = dense_maxima(hidden.float(), [4, 6], weight.float(), bias.float())
    torch.testing.assert_close(scattered((values, rows, terms), expected.shape), expected, atol=1e-5, rtol=1e-5)
    hidden.requires_grad_()
    max_logits(hidden, [4, 6], weight, bias)[0].sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("poison", [0.0, torch.nan])
def test_a_model_that_is_not_sparse(poison: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splade_head, "_DENSE", 0.2)
    monkeypatch.setattr(splade_head, "_Maxima", None)
    lengths = [3, 0, 1, 5, 0]
    hidden, weight, bias = (x.requires_grad_() for x in batch(lengths))
    monkeypatch.setattr(splade_head, "_DENSE_LOGITS", 2 * max(lengths) * len(weight))
    found = scattered(max_logits(hidden, lengths, weight, bias + 9 + poison), (5, 3000))
    expected = dense_maxima(hidden, lengths, weight, bias + 9 + poison)
    if poison:
        assert found.isnan().any()
        return
    assert expected.count_nonzero() > 0.4 * expected.numel()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), (hidden, weight, bias)),
        torch.autograd.grad(expected.square().sum(), (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_float32_screen_is_looser_where_products_are(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.zeros(1, 8)
    exact = splade_head._slack(torch.float32, hidden)

    def mixed() -> str:
        raise RuntimeError("mix of the legacy and new APIs")

    for precision in (lambda: "medium", mixed):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", precision)
        assert splade_head._slack(torch.float32, hidden) > 2**-7 > exact
        assert splade_head._slack(torch.int8, hidden) == exact


def test_lengths_must_fit() -> None:
    hidden, weight, bias = batch([4])
    with pytest.raises(ValueError, match="lengths sum to 5, but there are 4 tokens"):
        max_logits(hidden, [2, 3], weight, bias)


@pytest.mark.parametrize(("dtype", "most"), [(torch.int8, 3), (torch.bfloat16, 2), (torch.float32, 1.01)])
def test_a_real_model_leaves_few_candidates(dtype: torch.dtype, most: float, tiny: SparseStsEncoder) -> None:
    if dtype == torch.int8 and screen_dtype(torch.device("cpu")) != torch.int8:
        pytest.skip("needs a processor with VNNI instructions")
    features = tiny.model.preprocess(load_pairs("sample", "dev").sentence1)
    model = tiny.model.transformers_model
    mask = features["attention_mask"]
    with torch.inference_mode():
        hidden = model.bert(input_ids=features["input_ids"], attention_mask=mask)[0]
        hidden = model.cls.predictions.transform(hidden[mask.bool()])
        decoder = model.cls.predictions.decoder
        lengths = mask.sum(dim=1).tolist()
        rows, _ = splade_head._candidates(hidden, lengths, decoder.weight, decoder.bias, DecoderScreen(dtype))
        values, *_ = max_logits(hidden, lengths, decoder.weight, decoder.bias, screen=DecoderScreen(dtype))
    assert len(values) <= len(rows) < most * len(values)
