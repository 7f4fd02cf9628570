"""A ``SparseEncoder`` that runs the fused SPLADE head in place of its masked-language-model decoder and pooling."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.nn.utils.rnn import pad_sequence
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
from sparse_sts_index.encoding.module_state import Structure, Weights, has_global_hooks, is_as_made, is_watched
from sparse_sts_index.encoding.packed_layers import PackedLayers, supports
from sparse_sts_index.encoding.splade_head import DecoderScreen
from sparse_sts_index.encoding.term_weights import TermWeights, pool, token_places

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
class _Prepared:
    """Layers and a screen made of a model's weights."""

    structure: Structure
    weights: Weights
    screen: DecoderScreen
    layers: dict[torch.dtype, PackedLayers]

    def holds(self, structure: Structure) -> bool:
        """Return whether the model is still the one that this was made of."""
        return self.structure is structure and self.weights.unchanged()


class FusedSparseEncoder(SparseEncoder):
    """A ``SparseEncoder`` with the fused head. Its modules, parameters and saved form are those of a ``SparseEncoder``.

    Make one with :func:`fuse`. Where its modules are not a supported model under max pooling (see :attr:`fused`), it
    computes what a ``SparseEncoder`` computes, the same way.
    """

    _screen: DecoderScreen | None = None
    _structure: Structure | None = None
    _as_made: Structure | None = None  # in which all is as its class makes it
    _prepared: _Prepared | None = None

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
        if self._structure is not None and self._structure.unchanged():
            return True
        self._structure = None
        watched = {module for module in self.modules() if module is not self and is_watched(module)}
        if not watched:
            self._structure = Structure(self)
        return watched.issubset(model.base_model.modules())

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
        model: Any = self.transformers_model
        lengths = mask.sum(dim=1).tolist()
        places = mask.flatten().nonzero().squeeze(1)
        inputs = {name: features[name] for name in _inputs(model.__class__) if name in features}
        packed = None
        if _is_plain(inputs, mask):
            packed = self._packed(features["input_ids"].flatten().index_select(0, places), lengths)
        if packed is None:
            hidden = model.base_model(**inputs)[0].flatten(0, 1)
            if len(places) < mask.numel():
                hidden = hidden.index_select(0, places)
            self._screen = self._screen or DecoderScreen()
            packed = _TRANSFORMS[type(model)](model, hidden), self._screen
        return self._pool(*packed, lengths, places % mask.shape[1])

    def encode_tokens(self, tokens: Tensor, lengths: Sequence[int]) -> TermWeights:
        """Return the term weights of sentences without padding.

        Parameters
        ----------
        tokens : Tensor of int64, shape (tokens,)
            Token ids of all sentences, one sentence after the other, the longest sentence first.
        lengths : sequence of int, length n
            Tokens of each sentence, at least 1.

        Raises
        ------
        ValueError
            The fused head is not in use; see :attr:`fused`.
        """
        TORCH.enter()
        if not self.fused:
            raise ValueError("tokens without padding need the fused head")
        packed = self._packed(tokens, lengths)
        if packed is None:
            ids = pad_sequence(list(torch.split(tokens, list(lengths))), batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.tensor(lengths).unsqueeze(1)
            features = batch_to_device({"input_ids": ids, "attention_mask": mask.long()}, self.device)
            return self._term_weights(features, features["attention_mask"] != 0)
        return self._pool(*packed, lengths, token_places(lengths))

    def _pool(self, hidden: Tensor, screen: DecoderScreen, lengths: Sequence[int], places: Tensor) -> TermWeights:
        model: Any = self.transformers_model
        pooling: Any = self[1]
        decoder = model.get_output_embeddings()
        if pooling.embedding_dimension is None:  # which the stock module finds out in its forward
            pooling.embedding_dimension = len(decoder.weight)
        return pool(hidden, lengths, decoder.weight, decoder.bias, pooling.activation_function, screen, places)

    def _packed(self, tokens: Tensor, lengths: Sequence[int]) -> tuple[Tensor, DecoderScreen] | None:
        """Return what the decoder is applied to, by packed layers, and a screen of the decoder, if these are used."""
        prepared = self._prepare()
        if prepared is None:
            return None
        layers, screen = prepared
        if len(list(itertools.groupby(lengths))) == len(set(lengths)):  # those of one length stand together
            return layers(tokens, lengths), screen
        parts = torch.split(tokens, list(lengths))
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        hidden = layers(torch.cat([parts[row] for row in order]), [lengths[row] for row in order])
        rows = dict(zip(order, torch.split(hidden, [lengths[row] for row in order]), strict=True))
        return torch.cat([rows[row] for row in range(len(lengths))]), screen

    def prepare(self) -> bool:
        """Prepare the weights for inference, and return whether that is possible.

        Then :meth:`encode_tokens` calls no module, and several threads may call it at a time.
        """
        prepared = self._prepare() if self.fused else None
        if prepared is None:
            return False
        model: Any = self.transformers_model
        prepared[1].rounded(model.get_output_embeddings().weight, torch.float32)
        return True

    def _prepare(self) -> tuple[PackedLayers, DecoderScreen] | None:
        """Return what is prepared of the present weights, or None where the modules themselves are to be called.

        These are called where there is dropout, or a gradient outside training mode, where one of them has a hook, on a
        GPU, and for a model that is not as its class makes it, or that :func:`.packed_layers.supports` does not know.
        """
        structure = self._structure
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        if structure is None or has_global_hooks() or dtype not in (torch.float32, torch.bfloat16):
            return None
        if structure.training():
            return self._with_gradients(structure, dtype) if torch.is_grad_enabled() else None
        if torch.is_grad_enabled():
            return None
        prepared = self._prepared
        if prepared is None or not prepared.holds(structure):
            prepared = self._prepared = None  # frees its memory
        elif (layers := prepared.layers.get(dtype)) is not None:
            return layers, prepared.screen
        layers = self._layers(dtype)
        if layers is None:
            return None
        if prepared is None:
            model: Any = self.transformers_model
            prepared = _Prepared(structure, Weights(model.modules()), DecoderScreen(frozen=True), {})
        prepared.layers[dtype] = layers
        self._prepared = prepared
        return layers, prepared.screen

    def _with_gradients(self, structure: Structure, dtype: torch.dtype) -> tuple[PackedLayers, DecoderScreen] | None:
        """Return layers for one step of training, or None; see :meth:`_prepare`."""
        model: Any = self.transformers_model
        if any(isinstance(part, nn.Dropout) and part.p for part in model.modules()):
            return None
        layers = self._layers(dtype, trainable=True, as_made=self._as_made is structure)
        if layers is None:
            return None
        self._as_made = structure
        self._screen = self._screen or DecoderScreen()
        return layers, self._screen

    def _layers(self, dtype: torch.dtype, *, trainable: bool = False, as_made: bool = False) -> PackedLayers | None:
        """Return layers of the present weights, or None for a model that these do not know."""
        model: Any = self.transformers_model
        parameters = dict(model.named_parameters(remove_duplicate=False))
        kind, config = model.config.model_type, model.config.to_dict()
        if not supports(kind, config, parameters) or not (as_made or is_as_made(model)):
            return None
        return PackedLayers(kind, config, parameters, dtype, trainable=trainable)

    def eval(self) -> Self:
        """Leave training mode; nothing is walked through if nothing is in it."""
        structure = self._structure
        if structure is not None and structure.unchanged() and not structure.training():
            return self
        return super().eval()

    def _get_name(self) -> str:
        return SparseEncoder.__name__  # in the model card, as in all that is saved

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {
            name: value
            for name, value in state.items()
            if name not in ("_as_made", "_prepared", "_screen", "_structure")
        }


def _is_plain(inputs: Mapping[str, Tensor], mask: Tensor) -> bool:
    """Return whether sentences are padded on the right, and positions and token types are the default ones."""
    if "position_ids" in inputs or bool((mask[:, 1:] > mask[:, :-1]).any()):
        return False
    return "token_type_ids" not in inputs or not bool(inputs["token_type_ids"].any())


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
