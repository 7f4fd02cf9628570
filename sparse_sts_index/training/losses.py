"""The training losses, computed from the few terms that have weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from sentence_transformers.sparse_encoder.losses import FlopsLoss, SparseCosineSimilarityLoss, SpladeLoss
from torch import Tensor

from sparse_sts_index.encoding.fused_encoder import term_weights
from sparse_sts_index.encoding.term_weights import TermWeights
from sparse_sts_index.training.distillation import GROUP, Lessons, interpolate
from sparse_sts_index.training.settings import TrainingSettings

_EPSILON = 1e-8  # of torch.cosine_similarity


class SparseSpladeLoss(SpladeLoss):
    """``SpladeLoss`` over ``SparseCosineSimilarityLoss``, without a dense row of the vocabulary for each sentence.

    The same losses and gradients, for the one case in which both sentences of a pair are regularised alike
    (``use_document_regularizer_only``) by a plain ``FlopsLoss``. Whatever else ``SpladeLoss`` can be made of, it leaves
    to ``SpladeLoss``.

    Parameters are those of ``sentence_transformers.sparse_encoder.losses.SpladeLoss``.

    Attributes
    ----------
    max_active_dims : int or None
        Number of terms of a sentence that count in its cosines, those of most weight. The regulariser sees all.
    regularize_unit_vectors : bool
        The regulariser sees unit vectors of the terms that count in the cosines.
    excess_weight : float
        Weight of the sum of the terms that do not count in the cosines; see :func:`excess`.
    """

    max_active_dims: int | None = None
    regularize_unit_vectors: bool = False
    excess_weight: float = 0.0

    def configure(self, settings: TrainingSettings) -> None:
        """Set the attributes from the settings of the same names."""
        self.max_active_dims = settings.max_active_dims
        self.regularize_unit_vectors = settings.regularize_unit_vectors
        self.excess_weight = settings.excess_weight

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """The cosine loss and the regulariser's, by name; see ``SpladeLoss``."""
        columns = list(sentence_features)
        merged = merge_feature_batches(columns) if self._is_plain() and len(columns) == 2 else None
        if merged is None or labels is None:
            losses: dict[str, Tensor] = super().forward(columns, labels)
            return losses
        base_loss: Any = self.loss
        weights = term_weights(self.model, merged)
        kept = _kept(weights, self.max_active_dims)
        cosines = base_loss.cos_score_transformation(pair_cosines(kept))
        return {
            "base_loss": base_loss.loss_fct(cosines, labels.float().view(-1)),
            **self._regularizers(weights, kept),
        }

    def _regularizers(self, weights: TermWeights, kept: TermWeights) -> dict[str, Tensor]:
        regularized = flops(unit_vectors(kept) if self.regularize_unit_vectors else weights)
        losses = {"document_regularizer_loss": regularized * self.document_regularizer_weight}
        if self.excess_weight:
            losses["excess_loss"] = self.excess_weight * excess(weights, kept)
        return losses

    def _is_plain(self) -> bool:
        regularizer = self.document_regularizer
        return (
            self.use_document_regularizer_only
            and type(self.loss) is SparseCosineSimilarityLoss
            and type(regularizer) is FlopsLoss
            and regularizer.threshold is None
        )


class DistillationLoss(SparseSpladeLoss):
    """``SparseSpladeLoss``, and the distance of cosines from a dense teacher's.

    For :class:`~.training.distillation.Lessons`: beside the squared error of the gold scores, that of the
    teacher's grades of the pairs, of companions of one group, and of companions of different groups.

    Parameters
    ----------
    model : SparseEncoder
    lessons : Lessons
    settings : TrainingSettings
        ``teacher_weight``: of the companions' errors, in a group and between groups, against those of the pairs.
        ``regularizer_weight``: of the FLOPS regulariser. ``max_active_dims``, ``regularize_unit_vectors``,
        ``excess_weight``: see ``SparseSpladeLoss``. ``similarity_floor``: of gold scores and grades alike.
    """

    def __init__(self, model: Any, lessons: Lessons, settings: TrainingSettings) -> None:
        super().__init__(
            model,
            loss=SparseCosineSimilarityLoss(model),
            document_regularizer_weight=settings.regularizer_weight,
            use_document_regularizer_only=True,
        )
        self.configure(settings)
        self.teacher_weight, self.floor = settings.teacher_weight, settings.similarity_floor
        for name in ("vectors", "cosines", "scores"):  # which go to the model's device, and are no part of it
            self.register_buffer(name, getattr(lessons, name), persistent=False)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the losses by name; see ``SpladeLoss``. For the rows of `labels`, see ``Lessons``."""
        if labels is None:
            raise ValueError("distillation needs labels")
        columns = list(sentence_features)
        merged = merge_feature_batches(columns)
        if merged is None:
            raise ValueError("the columns cannot be encoded together")
        weights = term_weights(self.model, merged)  # column by column
        count, vectors = len(labels), cast(Tensor, self.vectors)
        theirs = vectors[labels[:, 1:-1].long().T.reshape(-1)].float()
        kept = _kept(weights, self.max_active_dims)
        pairs = pair_cosines(_rows(kept, 0, 2 * count))
        grades = self._grade((theirs[:count] * theirs[count : 2 * count]).sum(dim=1))
        companions = all_cosines(_rows(kept, 2 * count, kept.shape[0]))
        errors = (companions - self._grade(theirs[2 * count :] @ theirs[2 * count :].T)) ** 2
        number = torch.arange(len(errors), device=errors.device) // count  # of a companion among those of its pair
        group = labels[:, -1].repeat(len(errors) // count) + number // GROUP
        together = group[:, None] == group[None, :]
        themselves = torch.eye(len(errors), dtype=torch.bool, device=errors.device)
        losses = {
            "base_loss": torch.nn.functional.mse_loss(pairs, self._above_floor(labels[:, 0].float())),
            "teacher_loss": torch.nn.functional.mse_loss(pairs, grades),
            "companions_loss": self.teacher_weight * errors[together & ~themselves].mean(),
            **self._regularizers(weights, kept),
        }
        if not together.all():
            losses["others_loss"] = self.teacher_weight * errors[~together].mean()
        return losses

    def _grade(self, cosines: Tensor) -> Tensor:
        return self._above_floor(interpolate(cosines, cast(Tensor, self.cosines), cast(Tensor, self.scores)))

    def _above_floor(self, grades: Tensor) -> Tensor:
        return ((grades - self.floor) / (1 - self.floor)).clamp_min(0)


def all_cosines(weights: TermWeights) -> Tensor:
    """Cosine of each row with each other: Tensor of float, shape (n, n); 0 with an empty row."""
    unit = unit_vectors(weights).values
    terms, columns = torch.unique(weights.terms, return_inverse=True)  # some thousand of the vocabulary
    dense = unit.new_zeros(weights.shape[0], len(terms)).index_put((weights.rows, columns), unit)
    return dense @ dense.T


def _rows(weights: TermWeights, low: int, high: int) -> TermWeights:
    """Some of the rows, which are in order."""
    first, last = torch.searchsorted(weights.rows, weights.rows.new_tensor([low, high])).tolist()
    part = slice(first, last)
    return TermWeights(
        weights.values[part], weights.rows[part] - low, weights.terms[part], (high - low, weights.shape[1])
    )


def _kept(weights: TermWeights, count: int | None) -> TermWeights:
    return weights if count is None else heaviest(weights, count)


def heaviest(weights: TermWeights, count: int) -> TermWeights:
    """Keep the terms of most weight in each row; of equal weights, the first terms.

    Parameters
    ----------
    weights : TermWeights
    count : int
        Largest number of terms to keep in a row, at least 1.

    Returns
    -------
    TermWeights
        Differentiable in the values that are left.
    """
    lengths = torch.bincount(weights.rows, minlength=weights.shape[0])
    if not len(lengths) or int(lengths.max()) <= count:
        return weights
    order = torch.argsort(weights.values.detach(), descending=True, stable=True)
    order = order[torch.argsort(weights.rows[order], stable=True)]  # row by row, the heaviest first
    rank = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[weights.rows[order]]
    kept = torch.sort(order[rank < count]).values
    return TermWeights(weights.values[kept], weights.rows[kept], weights.terms[kept], weights.shape)


def excess(weights: TermWeights, kept: TermWeights) -> Tensor:
    """Sum the weights that are not kept, in units of the length of the kept ones; return the mean of all rows.

    Returns
    -------
    Tensor of float, shape ()
        Differentiable, but in the lengths: a row is not to grow longer for it.
    """
    lengths = _lengths(kept).detach()
    sums = [(part.values / lengths[part.rows]).sum() for part in (weights, kept)]
    return (sums[0] - sums[1]) / weights.shape[0]


def unit_vectors(weights: TermWeights) -> TermWeights:
    """Scale each row to length 1; an empty one stays as it is."""
    return replace(weights, values=weights.values / _lengths(weights)[weights.rows])


def _lengths(weights: TermWeights) -> Tensor:
    squares = weights.values.new_zeros(weights.shape[0]).index_add(0, weights.rows, weights.values**2)
    # sqrt has no gradient at 0, which is where an empty row is; its length is below epsilon in any case.
    return squares.clamp_min(_EPSILON**2).sqrt()


def pair_cosines(weights: TermWeights) -> Tensor:
    """Cosine of each row of the first half with the row at the same place in the second.

    Parameters
    ----------
    weights : TermWeights
        With an even number of rows, 2n.

    Returns
    -------
    Tensor of float, shape (n,)
        0 if either row is empty.
    """
    pairs, vocabulary = weights.shape[0] // 2, weights.shape[1]
    unit = unit_vectors(weights).values
    # Rows and terms ascend, so the places do: a term of the one is looked up among those of the other.
    place = (weights.rows % pairs) * vocabulary + weights.terms
    middle = int((weights.rows < pairs).sum())
    first, second = place[:middle], place[middle:]
    at = torch.searchsorted(second, first)
    past_the_end = second.new_full((1,), -1)
    shared = (torch.cat([second, past_the_end])[at] == first).nonzero().squeeze(1)
    products = unit[shared] * unit[middle + at[shared]]
    return unit.new_zeros(pairs).index_add(0, weights.rows[shared], products)


def flops(weights: TermWeights) -> Tensor:
    """The FLOPS regulariser, the sum over terms of the squared mean weight (Paria et al. 2020, arXiv:2004.05665).

    Returns
    -------
    Tensor of float, shape ()
    """
    sums = weights.values.new_zeros(weights.shape[1]).index_add(0, weights.terms, weights.values)
    return torch.sum((sums / weights.shape[0]) ** 2)
