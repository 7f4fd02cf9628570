"""A ``SparseEncoder`` that runs the fused SPLADE head in place of its masked-language-model decoder and pooling."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import (
    BertForMaskedLM,
    CamembertForMaskedLM,
    DistilBertForMaskedLM,
    MPNetForMaskedLM,
    PreTrainedModel,
    RobertaForMaskedLM,
    XLMRobertaForMaskedLM,
)

from sparse_sts_index._utils.fork_guard import TORCH
from sparse_sts_index.encoding.splade_head import DecoderScreen, max_logits

_TERM_WEIGHTS = "term_weights"  # the feature under which forward(..., sparse=True) leaves its result


def _bert_transform(model: Any, hidden: Tensor) -> Tensor:
    return model.cls.predictions.transform(hidden)  # type: ignore[no-any-return]


def _distilbert_transform(model: Any, hidden: Tensor) -> Tensor:
    return model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))  # type: ignore[no-any-return]


def _roberta_transform(model: Any, hidden: Tensor) -> Tensor:
    return model.lm_head.layer_norm(gelu(model.lm_head.dense(hidden)))  # type: ignore[no-any-return]


#: What stands between the last hidden state and the decoder. Exact types: a subclass may do something else.
_TRANSFORMS: dict[type[PreTrainedModel], Callable[[Any, Tensor], Tensor]] = {
    BertForMaskedLM: _bert_transform,
    CamembertForMaskedLM: _roberta_transform,
    DistilBertForMaskedLM: _distilbert_transform,
    MPNetForMaskedLM: _roberta_transform,
    RobertaForMaskedLM: _roberta_transform,
    XLMRobertaForMaskedLM: _roberta_transform,
}


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
        """The non-zero entries of a Tensor of shape (n, vocab)."""
        rows, terms = dense.nonzero(as_tuple=True)
        return cls(dense[rows, terms], rows, terms, (dense.shape[0], dense.shape[1]))

    def to_dense(self) -> Tensor:
        """As a Tensor of shape (n, vocab)."""
        return self.values.new_zeros(self.shape).index_put((self.rows, self.terms), self.values)


class FusedSparseEncoder(SparseEncoder):
    """A ``SparseEncoder`` with the fused head. Its modules, parameters and saved form are those of a ``SparseEncoder``.

    Make one with :func:`fuse`. Where its modules are not a supported model under max pooling (see :attr:`fused`), it
    computes what a ``SparseEncoder`` computes, the same way.
    """

    _screen: DecoderScreen | None = None

    @property
    def fused(self) -> bool:
        """Whether the fused head is in use.

        It is for BERT (MiniLM included), DistilBERT, RoBERTa, XLM-R, CamemBERT and MPNet models with a plain linear
        decoder, of any size, followed by ``SpladePooling`` with ``max`` and ``relu`` or ``log1p_relu``, as long as no
        hook waits on the modules that it takes the place of.
        """
        modules: list[Any] = list(self.children())
        if len(modules) != 2 or type(modules[0]) not in (Transformer, MLMTransformer):
            return False
        transformer, pooling = modules
        if type(pooling) is not SpladePooling or pooling.pooling_strategy != "max":
            return False
        model = transformer.model
        # Quantized and adapted decoders are Linear modules of another type.
        if type(model) not in _TRANSFORMS or type(model.get_output_embeddings()) is not nn.Linear:
            return False
        called = {self, *model.base_model.modules()}
        return not any(_is_watched(module) for module in self.modules() if module not in called)

    def forward(self, input: dict[str, Any], *, sparse: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Run the model.

        Parameters
        ----------
        input : dict
            What :meth:`preprocess` gives.
        sparse : bool
            Where :attr:`fused`, leave :class:`TermWeights` under ``"term_weights"``, instead of a Tensor of shape
            (n, vocab) under ``"sentence_embedding"``. See :func:`term_weights`.

        Returns
        -------
        dict
            `input`, with the result added. Term weights are float32, also in a model of half precision or under
            autocast; the dense ones are of the model's type.

        Raises
        ------
        ForkError
            torch was used before this process was forked.
        """
        TORCH.enter()
        mask = input.get("attention_mask")
        if not self.fused or not isinstance(mask, Tensor) or mask.ndim != 2 or "input_ids" not in input:
            output: dict[str, Any] = super().forward(input, **kwargs)
            return output
        weights = self._term_weights(input, mask != 0)
        if sparse:
            input[_TERM_WEIGHTS] = weights
        else:
            model: Any = self.transformers_model
            input["sentence_embedding"] = weights.to_dense().to(model.dtype)
        return input

    def _term_weights(self, features: dict[str, Any], mask: Tensor) -> TermWeights:
        transformer, pooling = self.children()
        model: Any = transformer.model
        inputs = {name: features[name] for name in _inputs(model.__class__) if name in features}
        hidden = model.base_model(**inputs)[0].flatten(0, 1)
        lengths = mask.sum(dim=1).tolist()
        places = mask.flatten().nonzero().squeeze(1)
        if len(places) < mask.numel():
            hidden = hidden.index_select(0, places)
        hidden = _TRANSFORMS[type(model)](model, hidden)
        decoder = model.get_output_embeddings()
        if self._screen is None:
            self._screen = DecoderScreen()
        values, rows, terms, tokens = max_logits(hidden, lengths, decoder.weight, decoder.bias, screen=self._screen)
        values = values.log1p()
        if pooling.activation_function == "log1p_relu":
            values = values.log1p()
        if pooling.embedding_dimension is None:  # which the stock module finds out in its forward
            pooling.embedding_dimension = len(decoder.weight)
        return TermWeights(values, rows, terms, (mask.shape[0], len(decoder.weight)), places[tokens] % mask.shape[1])

    def _get_name(self) -> str:
        return SparseEncoder.__name__  # in the model card, as in all that is saved

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_screen"}


def _is_watched(module: nn.Module) -> bool:
    """Whether something happens when a module is called, beyond what its class says."""
    return bool(module._forward_pre_hooks or module._forward_hooks or "forward" in module.__dict__)  # noqa: SLF001


@cache
def _inputs(model: type[PreTrainedModel]) -> tuple[str, ...]:
    declared = inspect.signature(model.forward).parameters
    return tuple(name for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids") if name in declared)


def term_weights(model: nn.Module, features: dict[str, Any]) -> TermWeights:
    """The sparse output of a ``SparseEncoder``, fused or not, or of what wraps one for distributed training."""
    fused = isinstance(getattr(model, "module", model), FusedSparseEncoder)
    # DataParallel gathers tensors only.
    sparse = {"sparse": True} if fused and not isinstance(model, nn.DataParallel) else {}
    output: dict[str, Any] = model(features, **sparse)
    weights: TermWeights | None = output.get(_TERM_WEIGHTS)
    return TermWeights.from_dense(output["sentence_embedding"]) if weights is None else weights


def fuse(model: SparseEncoder) -> SparseEncoder:
    """Give a ``SparseEncoder`` the fused head, in place.

    Nothing but the way it computes is changed: parameters, training, ``encode``, ``save_pretrained`` and what it saves
    are as before. Only the logits of tokens are not there to be had (the feature ``token_embeddings``), and gradients
    cannot be differentiated again. A model of a class of its own is left as it is.

    Returns
    -------
    SparseEncoder
        The model; a :class:`FusedSparseEncoder` now.
    """
    TORCH.enter()
    if type(model) is SparseEncoder:
        model.__class__ = FusedSparseEncoder
    return model
