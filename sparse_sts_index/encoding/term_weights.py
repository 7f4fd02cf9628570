"""Sparse rows of term weights, as the fused SPLADE head gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_sts_index.encoding.splade_head import DecoderScreen, max_logits


@dataclass(frozen=True, slots=True)
class TermWeights:
    """Sparse rows of term weights, differentiable in their values.

    Attributes
    ----------
    values : Tensor of float, shape (nnz,)
    rows, terms : Tensor of int64, shape (nnz,)
        Where each value is: row by row and, within a row, by term, both ascending; no place twice.
    shape : tuple of int
        Sentences, vocabulary.
    positions : Tensor of int64, shape (nnz,), or None
        Which of its sentence's tokens, as ``input_ids`` has them, gives each term its weight, where that is known.
    """

    values: Tensor
    rows: Tensor
    terms: Tensor
    shape: tuple[int, int]
    positions: Tensor | None = None

    @classmethod
    def from_dense(cls, dense: Tensor) -> TermWeights:
        """Return the non-zero entries of a Tensor of shape (n, vocab)."""
        rows, terms = dense.nonzero(as_tuple=True)
        return cls(dense[rows, terms], rows, terms, (dense.shape[0], dense.shape[1]))

    def to_dense(self) -> Tensor:
        """Return a Tensor of shape (n, vocab)."""
        return self.values.new_zeros(self.shape).index_put((self.rows, self.terms), self.values)


def pool(
    hidden: Tensor,
    lengths: Sequence[int],
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    screen: DecoderScreen,
    places: Tensor,
) -> TermWeights:
    """Return the term weights of sentences: decoder, max pooling and activation in one.

    Parameters
    ----------
    hidden, lengths, weight, bias, screen
        See :func:`~.encoding.splade_head.max_logits`.
    activation : {"relu", "log1p_relu"}
        Of ``SpladePooling``.
    places : Tensor of int64, shape (tokens,)
        Place of each token in its sentence, for :attr:`TermWeights.positions`.
    """
    values, rows, terms, tokens = max_logits(hidden, lengths, weight, bias, screen=screen)
    values = values.log1p()
    if activation == "log1p_relu":
        values = values.log1p()
    return TermWeights(values, rows, terms, (len(lengths), len(weight)), places[tokens])


def token_places(lengths: Sequence[int]) -> Tensor:
    """Return the place of each token in its sentence: Tensor of int64, shape (tokens,)."""
    length = torch.tensor(lengths)
    return torch.arange(int(length.sum())) - torch.repeat_interleave(length.cumsum(0) - length, length)
