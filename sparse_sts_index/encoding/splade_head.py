r"""The fused SPLADE head: decoder, pooling over tokens and activation in one, computing only what is not zero.

A sentence of tokens :math:`h_1 \dots h_T` has for the vocabulary's term :math:`v` the weight

.. math:: \max_t f(w_v \cdot h_t + b_v), \qquad f(x) = \log(1 + \max(0, x))

(SPLADE with max pooling: Formal et al. 2021, arXiv:2109.10086), and all but some thirty of 30,522 terms have weight
zero. As :math:`f` is monotone, :math:`\max_t f(x_t) = f(\max_t x_t)`: only the largest logit of a term matters, and
only where it is positive. :func:`max_logits` finds these in two steps:

1. *Screen.* All logits are computed in low precision, a slice of the vocabulary at a time so that they never leave the
   cache, and reduced over tokens at once. Let :math:`\hat h, \hat w` be the rounded operands. By Cauchy-Schwarz

   .. math:: |w \cdot h - \hat w \cdot \hat h| \le \lVert w \rVert \lVert h - \hat h \rVert
             + \lVert w - \hat w \rVert \lVert \hat h \rVert,

   and both residuals are known exactly, so a term whose screened maximum is below zero by more than that bound
   *cannot* be active. With int8 operands the products are summed exactly in int32.
2. *Refine.* The few candidates that are left (about two for each active term of a trained model) are computed
   in full precision, which also tells the token that has the maximum.

The result is that of full precision, whatever the screen's: it decides what is computed, never what comes out. The
gradient of a maximum reaches one token, so the backward pass is a gather over the active (sentence, term) pairs.
``docs/fused-head.md`` derives all of it, with cost and memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_sts_index.encoding.precision import cpu_reports, has_bfloat16

_INT8_MAX = 127
_SLICE_LOGITS = 2**21  # screened logits at a time: 8 MB of int32, which stay in a shared cache
_BLOCK_TOKENS = 1024  # screened at a time
_GPU_FACTOR = 16  # by which all that is done at a time is more on a GPU, which has no such cache but is to be kept busy
_BLOCK_STEP = 64  # tokens of a block are a multiple of this: few shapes, as each one's first product is compiled
_FEW_STEP = 16  # the same for fewer tokens than that
_GROUP_FILL = 0.9  # least share of a sentence's tokens that are not padding
_ROUNDING_ROWS = 4096  # rows of the weight rounded at a time
_REFINE_ELEMENTS = 2**23  # floats gathered at a time: 32 MB
_DENSE = 0.2  # share of candidates among all terms from which on it pays to compute all of them
_DENSE_LOGITS = 2**25  # of those, at a time: 128 MB
_WORD = 8  # bytes looked at together


def max_logits(
    hidden: Tensor,
    lengths: Sequence[int],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    screen: DecoderScreen | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The positive maxima over each sentence's tokens of the logits of all terms.

    Differentiable in `hidden`, `weight` and `bias`, once. Where tokens tie, the gradient goes to the first, as that of
    ``torch.max`` does.

    Parameters
    ----------
    hidden : Tensor of float, shape (tokens, hidden)
        What the decoder is applied to: the tokens of all sentences, one sentence after the other, without padding.
    lengths : sequence of int, length n
        Tokens of each sentence; 0 is allowed. They sum to ``tokens``.
    weight : Tensor of float, shape (vocab, hidden)
        Of the decoder.
    bias : Tensor of float, shape (vocab,), optional
    screen : DecoderScreen, optional
        Keeps the low-precision form of `weight` from call to call.

    Returns
    -------
    values : Tensor of float32 (float64 if `hidden` is), shape (nnz,)
        Positive; NaN where `hidden`, `weight` or `bias` is.
    rows, terms : Tensor of int64, shape (nnz,)
        Sentence and term of each value, in ascending order.
    tokens : Tensor of int64, shape (nnz,)
        Row of `hidden` that has each value; the first of those that tie.

    Raises
    ------
    ValueError
        `lengths` do not sum to the number of tokens.
    """
    if sum(lengths) != hidden.shape[0]:
        raise ValueError(f"lengths sum to {sum(lengths)}, but there are {hidden.shape[0]} tokens")
    with torch.autocast(hidden.device.type, enabled=False):
        with torch.no_grad():
            rows, terms = _candidates(_exact(hidden), lengths, weight, bias, screen or DecoderScreen())
        if len(rows) > _DENSE * len(lengths) * len(weight):
            return _all_maxima(hidden, lengths, weight, bias)
        apply: Any = _Maxima.apply
        result: tuple[Tensor, Tensor, Tensor, Tensor] = apply(hidden, weight, bias, lengths, rows, terms)
        return result


def _exact(operand: Tensor) -> Tensor:
    """In the type that values are computed in."""
    return operand if operand.dtype == torch.float64 else operand.float()


class _Maxima(torch.autograd.Function):
    """The positive ones among the maxima of candidates."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lengths: Sequence[int],
        rows: Tensor,
        terms: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, tokens = _refine(_exact(hidden), lengths, weight, bias, rows, terms)
        active = _positive(values).nonzero().squeeze(1)
        values, tokens, rows, terms = (x.index_select(0, active) for x in (values, tokens, rows, terms))
        ctx.save_for_backward(hidden, weight, bias, tokens, terms)
        ctx.mark_non_differentiable(rows, terms, tokens)
        return values, rows, terms, tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, terms = ctx.saved_tensors
        column = gradient.unsqueeze(1)
        to_hidden = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_hidden = _scatter(hidden, tokens, column * weight[terms])
        if ctx.needs_input_grad[1]:
            to_weight = _scatter(weight, terms, column * hidden[tokens])
        if bias is not None and ctx.needs_input_grad[2]:
            to_bias = _scatter(bias, terms, gradient)
        return to_hidden, to_weight, to_bias, None, None, None


def _scatter(like: Tensor, index: Tensor, values: Tensor) -> Tensor:
    total = torch.zeros(like.shape, dtype=values.dtype, device=like.device)
    return total.index_add_(0, index, values).to(like.dtype)


def _positive(values: Tensor) -> Tensor:
    """Where a value is positive, or NaN, which must not go unnoticed."""
    return (values <= 0).logical_not_()


def _all_maxima(
    hidden: Tensor, lengths: Sequence[int], weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`max_logits` by its definition, with the gradients of autograd: for a model that is not sparse (yet)."""
    length = torch.tensor(lengths, device=hidden.device).unsqueeze(1)
    index = _padded_index(length.cumsum(0) - length, length, max(lengths))
    exact, vectors, offsets = _exact(hidden), _exact(weight), None if bias is None else _exact(bias)
    parts, places = [], []
    for some in torch.split(index, max(1, _factor(hidden.device) * _DENSE_LOGITS // (index.shape[1] * len(weight)))):
        states = exact.index_select(0, some.flatten()).view(*some.shape, -1)
        best, at = torch.nn.functional.linear(states, vectors, offsets).max(dim=1)
        parts.append(best)
        places.append(some.gather(1, at))
    maxima = torch.cat(parts).masked_fill(length == 0, 0)
    rows, terms = _positive(maxima).nonzero(as_tuple=True)
    return maxima[rows, terms], rows, terms, torch.cat(places)[rows, terms]


def _padded_index(offset: Tensor, length: Tensor, longest: int) -> Tensor:
    """The tokens of sentences, (n, longest). Padding repeats the first, which changes no maximum.

    `offset` and `length` are of shape (n, 1). An empty sentence gets a token of another.
    """
    position = torch.arange(longest, device=offset.device)
    return torch.where(position < length, offset + position, offset.clamp(max=int((offset + length).max()) - 1))


# --- the screen


def screen_dtype(device: torch.device) -> torch.dtype:
    """The type in which logits are screened on a device: the fastest one whose products can be bounded.

    On a CPU int8 where it has VNNI instructions, else bfloat16 or float32, as it has the former or not; on a GPU
    bfloat16, if it has that. Decided by what the device reports, never by timing.
    """
    if device.type == "cpu" and cpu_reports("_is_vnni_supported") and hasattr(torch, "_int_mm"):
        return torch.int8
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


@dataclass(frozen=True, slots=True)
class _Rounded:
    """A matrix whose rows were rounded: ``row = values * scale``, but for a residual."""

    values: Tensor  # (n, hidden), in the screen's type
    scale: Tensor  # (n, 1) or (1, 1), in the type of the original
    norm: Tensor  # (n,) Euclidean lengths of the original rows
    residual: Tensor  # (n,) lengths of what was rounded away

    @classmethod
    def of(cls, rows: Tensor, dtype: torch.dtype, *, one_scale: bool = False) -> _Rounded:
        if dtype == torch.int8:
            largest = rows.abs().amax() if one_scale else rows.abs().amax(dim=1, keepdim=True)
            scale = (largest / _INT8_MAX).clamp_min(torch.finfo(rows.dtype).tiny)
            whole = (rows / scale).round_()
            residual = torch.linalg.vector_norm(torch.addcmul(rows, whole, scale, value=-1), dim=1)
            return cls(whole.to(dtype), scale, torch.linalg.vector_norm(rows, dim=1), residual)
        values = rows.to(dtype)
        residual = torch.linalg.vector_norm(rows - values, dim=1)
        return cls(values, rows.new_ones(1, 1), torch.linalg.vector_norm(rows, dim=1), residual)


@dataclass(slots=True)
class DecoderScreen:
    """The decoder's weight in low precision, made when first needed and made anew when the weight has changed.

    Changes are noticed by the tensor's address and version counter, and those made through ``.data`` or shared memory,
    which count no version, by the sum of all weights.

    Attributes
    ----------
    dtype : torch.dtype, optional
        Type to screen in. Default: :func:`screen_dtype` of the weight's device.
    frozen : bool
        Whether the weight stays as it is first seen, so that no change needs to be looked for.
    """

    dtype: torch.dtype | None = None
    frozen: bool = False
    _made: tuple[tuple[object, ...], _Rounded] | None = None

    def rounded(self, weight: Tensor, working: torch.dtype) -> _Rounded:
        """The rows of `weight`, rounded; scale and lengths in the type `working`."""
        if self.frozen and self._made is not None:
            return self._made[1]
        dtype = self.dtype or screen_dtype(weight.device)
        if weight.shape[1] == 1 and dtype == torch.int8:
            dtype = torch.float32  # torch._int_mm misreads the strides of a matrix of one column
        version = None if weight.is_inference() else weight._version  # noqa: SLF001
        total = float(weight.detach().sum(dtype=torch.promote_types(weight.dtype, torch.float32)))
        key = (weight.data_ptr(), version, total, weight.shape, weight.dtype, weight.device, dtype, working)
        made = self._made  # read once: another thread may make another
        if made is not None and made[0] == key:
            return made[1]
        # A slice at a time: what is computed on the way stays in the cache.
        slices = [_Rounded.of(rows.to(working), dtype) for rows in torch.split(weight, _ROUNDING_ROWS)]
        rounded = _Rounded(
            torch.cat([s.values for s in slices]),
            torch.cat([s.scale.expand(len(s.norm), 1) for s in slices]),
            torch.cat([s.norm for s in slices]),
            torch.cat([s.residual for s in slices]),
        )
        self._made = key, rounded
        return rounded


def _candidates(
    hidden: Tensor, lengths: Sequence[int], weight: Tensor, bias: Tensor | None, screen: DecoderScreen
) -> tuple[Tensor, Tensor]:
    """Sentence and term of every logit that may be positive, ordered by sentence."""
    rounded = screen.rounded(weight, hidden.dtype)
    vocabulary = weight.shape[0]
    slack = _slack(rounded.values.dtype, hidden)
    offsets = [0, *itertools.accumulate(lengths)]
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: lengths[row], reverse=True)
    kept = torch.zeros((len(order), vocabulary + -vocabulary % _WORD), dtype=torch.bool, device=hidden.device)
    done = 0
    factor = _factor(hidden.device)
    for block in _blocks([lengths[row] for row in order], factor * _BLOCK_TOKENS):
        rows = order[done : done + block.sentences]
        index = block.token_index([offsets[row] for row in rows], [lengths[row] for row in rows])
        tokens = _Rounded.of(hidden[index.to(hidden.device)], rounded.values.dtype, one_scale=True)
        # One bound for all tokens of a block: behind a layer norm, their lengths are alike.
        norm, residual = tokens.norm.max(), tokens.residual.max()
        bounds = rounded.norm * (residual + slack * norm) + rounded.residual * (norm + residual)
        thresholds = -bounds if bias is None else -bounds - bias.to(bounds.dtype)
        if not thresholds.isfinite().all():  # there is no bound; that must not go unnoticed
            kept[done : done + block.sentences, :vocabulary] = True
            done += block.sentences
            continue
        if rounded.values.dtype == torch.int8:
            # In units of the integer products, rounded down; of a weight of zeros, the scale is as good as zero.
            thresholds = (thresholds / (tokens.scale * rounded.scale).squeeze(1)).floor_()
            thresholds = thresholds.clamp_(-(2**30), 2**30).to(torch.int32)
        size = math.ceil(vocabulary / math.ceil(vocabulary * len(index) / (factor * _SLICE_LOGITS)))
        buffer = torch.empty(len(index) * size, dtype=_product_dtype(rounded.values), device=hidden.device)
        maxima = torch.empty((block.sentences, size), dtype=buffer.dtype, device=hidden.device)
        for start in range(0, vocabulary, size):
            columns = slice(start, min(start + size, vocabulary))
            width = columns.stop - start
            logits = buffer[: len(index) * width].view(len(index), width)
            _multiply(tokens.values, rounded.values[columns], out=logits)
            block.maxima(logits, out=maxima[:, :width])
            torch.gt(maxima[:, :width], thresholds[columns], out=kept[done : done + block.sentences, columns])
        done += block.sentences
    positions, terms = _true(kept)
    sentences = torch.tensor(order, dtype=torch.int64, device=hidden.device)[positions]
    if order != sorted(order):
        sentences, by_sentence = sentences.sort(stable=True)
        terms = terms[by_sentence]
    return sentences, terms


def _factor(device: torch.device) -> int:
    return 1 if device.type == "cpu" else _GPU_FACTOR


def _true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the few true entries of a mask whose rows are whole words."""
    words = mask.view(torch.int64)
    rows, columns = words.nonzero(as_tuple=True)
    word, byte = words[rows, columns].unsqueeze(1).view(torch.bool).nonzero(as_tuple=True)
    return rows[word], columns[word] * _WORD + byte


def _product_dtype(values: Tensor) -> torch.dtype:
    return torch.int32 if values.dtype == torch.int8 else values.dtype


def _multiply(tokens: Tensor, rows: Tensor, out: Tensor) -> None:
    if tokens.dtype == torch.int8:
        torch._int_mm(tokens, rows.T, out=out)  # noqa: SLF001
    else:
        torch.mm(tokens, rows.T, out=out)


def _slack(dtype: torch.dtype, hidden: Tensor) -> float:
    """Rounding beyond that of the operands, as a share of the product of their lengths.

    Sums over the hidden dimension, in the bounds themselves or in the screen, round in the working type (Higham 2002,
    Accuracy and Stability of Numerical Algorithms, section 3.1), and so do the few operations that make a threshold of
    them; a bfloat16 screen rounds its result; and a float32 product may have been allowed to round its operands
    (TF32, ``torch.set_float32_matmul_precision``).
    """
    sums = (2 * hidden.shape[1] + 16) * torch.finfo(hidden.dtype).eps
    loose = dtype == torch.float32 and (hidden.is_cuda or not _float32_products_are_exact())
    if loose or (dtype == torch.bfloat16 and hidden.is_cuda):  # a GPU may also sum in bfloat16, in a few parts
        return sums + 2**-7
    return sums + (2**-8 if dtype == torch.bfloat16 else 0.0)


def _float32_products_are_exact() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by torch's newer settings, which this one does not know
        return False


@dataclass(frozen=True, slots=True)
class _Block:
    """Some sentences, longest first, in groups that are padded to one length each."""

    groups: tuple[tuple[int, int], ...]  # sentences, padded length

    @property
    def sentences(self) -> int:
        return sum(sentences for sentences, _ in self.groups)

    def token_index(self, offsets: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Where the block's tokens are."""
        offset, length = torch.tensor(offsets).unsqueeze(1), torch.tensor(lengths).unsqueeze(1)
        parts, done = [], 0
        for sentences, padded in self.groups:
            group = slice(done, done + sentences)
            parts.append(_padded_index(offset[group], length[group], padded).flatten())
            done += sentences
        index = torch.cat(parts)
        step = _BLOCK_STEP if len(index) > _BLOCK_STEP else _FEW_STEP
        return torch.nn.functional.pad(index, (0, -len(index) % step), value=int(index[0]))

    def maxima(self, logits: Tensor, out: Tensor) -> None:
        """The largest of each sentence's rows of `logits`, to `out` of shape (sentences, width)."""
        row = done = 0
        for sentences, padded in self.groups:
            group = logits[row : row + sentences * padded].view(sentences, padded, -1)
            torch.amax(group, dim=1, out=out[done : done + sentences])
            row += sentences * padded
            done += sentences


def _blocks(lengths: Sequence[int], most: int) -> Iterator[_Block]:
    """Cut sentences, longest first, into blocks of at most so many tokens, padding included, or of one sentence."""
    groups: list[tuple[int, int]] = []
    tokens = 0
    for length in lengths:
        if groups and length >= groups[-1][1] * _GROUP_FILL:
            sentences, padded = groups[-1]
            added = padded
        else:
            sentences, padded = 0, length
            added = length
        if tokens and tokens + added > most:
            yield _Block(tuple(groups))
            groups, tokens, sentences, padded, added = [], 0, 0, length, length
        if sentences:
            groups.pop()
        groups.append((sentences + 1, padded))
        tokens += added
    if groups:
        yield _Block(tuple(groups))


# --- the refinement


def _refine(
    hidden: Tensor, lengths: Sequence[int], weight: Tensor, bias: Tensor | None, rows: Tensor, terms: Tensor
) -> tuple[Tensor, Tensor]:
    """The largest logit of each candidate, and the token that has it."""
    device = hidden.device
    counts = torch.bincount(rows, minlength=len(lengths)).tolist()
    length = torch.tensor(lengths, device=device).unsqueeze(1)
    offset = length.cumsum(0) - length
    values, tokens = [hidden.new_empty(0)], [rows.new_empty(0)]
    done = 0
    for group in _refinement_groups(lengths, counts, hidden.shape[1], _factor(device) * _REFINE_ELEMENTS):
        sentences, found, most = group.stop - group.start, sum(counts[group]), max(counts[group])
        if not found:
            continue
        row = rows[done : done + found] - group.start
        first = torch.tensor([0, *itertools.accumulate(counts[group])], device=device)
        column = torch.arange(found, device=device) - first[row]
        padded_terms = terms.new_zeros((sentences, most))
        padded_terms[row, column] = terms[done : done + found]
        index = _padded_index(offset[group], length[group], max(lengths[group]))
        states = hidden.index_select(0, index.flatten()).view(*index.shape, -1)
        vectors = weight.index_select(0, padded_terms.flatten()).to(hidden.dtype).view(*padded_terms.shape, -1)
        best, at = torch.bmm(vectors, states.mT).max(dim=2)
        values.append(best[row, column])
        tokens.append(index[row, at[row, column]])
        done += found
    value = torch.cat(values)
    return value if bias is None else value + bias[terms].to(value.dtype), torch.cat(tokens)


def _refinement_groups(lengths: Sequence[int], counts: Sequence[int], size: int, limit: int) -> Iterator[slice]:
    """Consecutive sentences whose padded weights, tokens and logits are together of bounded size."""
    start = longest = most = 0
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        longest, most = max(longest, length), max(most, count)
        if row > start and (row + 1 - start) * (most * (size + longest) + longest * size) > limit:
            yield slice(start, row)
            start, longest, most = row, length, count
    if lengths:
        yield slice(start, len(lengths))
