"""The layers of the BERT family for inference: weights prepared once, tokens without padding.

The layers are those of Devlin et al. 2019 (arXiv:1810.04805), with the position embeddings of RoBERTa (Liu et al. 2019,
arXiv:1907.11692) or the relative ones of MPNet (Song et al. 2020, arXiv:2004.09297). Three things make them faster than
the modules that hold the weights:

- The weights of query, key and value are one matrix. All matrices are in the block layout of oneDNN, which also applies
  the activation to a product, or adds the residual to it.
- The tokens of all sentences stand in one matrix without padding. Only attention looks at sentences, those of one
  length together, so that no mask is needed.
- No module is called: there are no hooks, no dropout, and no casts of weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_FEW = 64  # tokens are padded to a multiple of 64, or of 4 below it: oneDNN compiles a kernel for each number of rows
_FEW_STEP = 4
_MOST_SCORES = 1 << 24  # of attention, that are held at a time
_BUCKETS, _EXACT_BUCKETS, _MOST_DISTANCE = 16, 8, 128  # MPNet's relative positions, for each direction


@dataclass(frozen=True)
class Family:
    """Names of parameters and settings in a model type, and what sets the type apart.

    Attributes
    ----------
    base : str
        Name of the transformer within the masked-language model.
    layer : str
        Prefix of a layer's parameters, to be formatted with its number.
    query, key, value, output, attention_norm, up, down, norm : str
        Modules within a layer.
    transform, transform_norm, decoder, bias : str
        Modules of the head, and its bias.
    relative : str, optional
        Embedding of relative positions within the transformer.
    token_types : bool
        Whether there are embeddings of token types.
    after_padding : bool
        Whether positions count from the padding token's id plus 1, and not from 0.
    pad : int, optional
        The padding token's id, where it is not a setting.
    epsilon : float, optional
        Of the layer norms, where it is not a setting.
    transform_gelu : bool
        Whether the transform's activation is GELU, and not the layers' one.
    layers_setting, heads_setting, hidden_setting, inner_setting, activation_setting : str
        Names in the configuration.
    """

    base: str
    layer: str = "encoder.layer.{}."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"
    transform: str = "lm_head.dense"
    transform_norm: str = "lm_head.layer_norm"
    decoder: str = "lm_head.decoder"
    bias: str = "lm_head.bias"
    relative: str | None = None
    token_types: bool = True
    after_padding: bool = True
    pad: int | None = None
    epsilon: float | None = None
    transform_gelu: bool = True
    layers_setting: str = "num_hidden_layers"
    heads_setting: str = "num_attention_heads"
    hidden_setting: str = "hidden_size"
    inner_setting: str = "intermediate_size"
    activation_setting: str = "hidden_act"

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters of a model by their names.

        Raises
        ------
        KeyError, ValueError
            A setting is missing, or is no size.
        """
        hidden, inner = _size(config, self.hidden_setting), _size(config, self.inner_setting)
        heads, vocabulary = _size(config, self.heads_setting), _size(config, "vocab_size")
        if hidden % heads:
            raise ValueError("heads of different sizes")
        norms = [f"{self.base}.embeddings.LayerNorm", self.transform_norm]
        maps = {self.transform: (hidden, hidden), self.decoder: (vocabulary, hidden)}
        for number in range(_size(config, self.layers_setting)):
            layer = f"{self.base}.{self.layer.format(number)}"
            norms += [layer + self.attention_norm, layer + self.norm]
            maps |= {layer + name: (hidden, hidden) for name in (self.query, self.key, self.value, self.output)}
            maps |= {layer + self.up: (inner, hidden), layer + self.down: (hidden, inner)}
        embeddings = {"word": vocabulary, "position": _size(config, "max_position_embeddings")}
        if self.token_types:
            embeddings["token_type"] = _size(config, "type_vocab_size")
        shapes: dict[str, tuple[int, ...]] = {self.bias: (vocabulary,)}
        shapes |= {f"{self.base}.embeddings.{kind}_embeddings.weight": (n, hidden) for kind, n in embeddings.items()}
        shapes |= {f"{name}.{part}": (hidden,) for name in norms for part in ("weight", "bias")}
        for name, shape in maps.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        if self.relative is not None:
            shapes[f"{self.base}.{self.relative}"] = _size(config, "relative_attention_num_buckets"), heads
        return shapes

    def epsilon_of(self, config: Mapping[str, Any]) -> float:
        """Return the epsilon of the layer norms."""
        return float(config["layer_norm_eps"]) if self.epsilon is None else self.epsilon

    def padding_of(self, config: Mapping[str, Any]) -> int | None:
        """Return the padding token's id where positions depend on it."""
        if not self.after_padding or self.pad is not None:
            return self.pad
        return _size(config, "pad_token_id", least=0)


def _size(config: Mapping[str, Any], setting: str, least: int = 1) -> int:
    value = config[setting]
    if type(value) is not int or value < least:
        raise ValueError(f"{setting} is no size")
    return value


_BERT = Family(
    "bert",
    transform="cls.predictions.transform.dense",
    transform_norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder",
    bias="cls.predictions.bias",
    after_padding=False,
    transform_gelu=False,
)
_ROBERTA = Family("roberta")
_DISTILBERT = Family(
    "distilbert",
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    transform="vocab_transform",
    transform_norm="vocab_layer_norm",
    decoder="vocab_projector",
    bias="vocab_projector.bias",
    after_padding=False,
    token_types=False,
    transform_gelu=False,
    layers_setting="n_layers",
    heads_setting="n_heads",
    hidden_setting="dim",
    inner_setting="hidden_dim",
    activation_setting="activation",
    epsilon=1e-12,
)
_MPNET = Family(
    "mpnet",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    pad=1,
    token_types=False,
    relative="encoder.relative_attention_bias.weight",
)
#: By model type, as a configuration names it.
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}


def supports(model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> bool:
    """Return whether :class:`PackedLayers` computes what a model computes.

    Parameters
    ----------
    model_type, config, parameters
        See :class:`PackedLayers`.
    """
    family = FAMILIES.get(model_type)
    if family is None or config.get("is_decoder") or config.get("position_embedding_type", "absolute") != "absolute":
        return False
    try:
        shapes = family.shapes(config)
        family.padding_of(config)
        known = config[family.activation_setting] in _ACTIVATIONS
        numeric = family.epsilon is not None or isinstance(config["layer_norm_eps"], float)
    except (KeyError, TypeError, ValueError):
        return False
    return (
        known
        and numeric
        and {name: tuple(weight.shape) for name, weight in parameters.items()} == shapes
        and all(
            weight.dtype == torch.float32
            and weight.device.type == "cpu"
            and weight.is_contiguous()
            and not weight.is_inference()
            for weight in parameters.values()
        )
    )


class PackedLayers:
    """A transformer of the BERT family and the transform of its masked-language-model head.

    Parameters
    ----------
    model_type : str
        One that :func:`supports` tells of.
    config : mapping
        The model's configuration, as ``config.json`` has it.
    weights : mapping of str to Tensor of float32
        Parameters by the names that the masked-language model gives them, tied ones under each of their names.
    dtype : torch.dtype
        Type of the products, float32 or bfloat16. Layer norms, the sum of the embeddings and the transform of the head
        are computed in float32.
    trainable : bool
        Compute with gradients: for one forward pass, and slower than without. There is no dropout.
    """

    def __init__(
        self,
        model_type: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        dtype: torch.dtype,
        *,
        trainable: bool = False,
    ) -> None:
        family = FAMILIES[model_type]
        self.dtype, self._trainable = dtype, trainable
        if not trainable:
            weights = {name: weight.detach() for name, weight in weights.items()}
        self._epsilon = family.epsilon_of(config)
        self._heads: int = config[family.heads_setting]
        base = f"{family.base}."

        def embedding(name: str) -> Tensor:
            return weights[f"{base}embeddings.{name}_embeddings.weight"]

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return weights[f"{name}.weight"].clone(), weights[f"{name}.bias"].clone()

        def linear(*names: str, activation: str | None = None, dtype: torch.dtype = dtype) -> _Linear:
            weight, bias = (torch.cat([weights[f"{name}.{part}"] for name in names]) for part in ("weight", "bias"))
            return _Linear(weight.to(dtype), bias.to(dtype), activation, packed=packs(dtype) and not trainable)

        self._words, self._positions = embedding("word"), embedding("position")
        if family.token_types:  # all tokens are of type 0
            self._positions = self._positions + embedding("token_type")[0]
        self._embedding_norm = norm(f"{base}embeddings.LayerNorm")
        self._pad = family.padding_of(config)
        self._relative = None if family.relative is None else weights[base + family.relative].clone()
        activation = config[family.activation_setting]
        self._layers = []
        for number in range(config[family.layers_setting]):
            layer = base + family.layer.format(number)
            self._layers.append(
                _Layer(
                    linear(*(layer + name for name in (family.query, family.key, family.value))),
                    linear(layer + family.output),
                    norm(layer + family.attention_norm),
                    linear(layer + family.up, activation=activation),
                    linear(layer + family.down),
                    norm(layer + family.norm),
                )
            )
        transform = "gelu" if family.transform_gelu else activation
        self._transform = linear(family.transform, activation=transform, dtype=torch.float32)
        self._transform_norm = norm(family.transform_norm)

    def __call__(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return what the decoder is applied to.

        Parameters
        ----------
        tokens : Tensor of int64, shape (tokens,)
            Token ids of all sentences, one sentence after the other.
        lengths : sequence of int, length n
            Tokens of each sentence; 0 is allowed. Sentences of one length should stand together: attention is
            computed for each such run.

        Returns
        -------
        Tensor of float32, shape (tokens, hidden)
        """
        with torch.autocast("cpu", enabled=False):
            return self._computed(tokens, lengths)

    def _computed(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        count = len(tokens)
        if not count:
            return self._words.new_empty(0, self._words.shape[1])
        runs = [(length, len(list(run))) for length, run in itertools.groupby(lengths) if length]
        step = _FEW if count > _FEW else _FEW_STEP
        padding = -count % step
        positions = self._position_ids(tokens, runs)
        if padding:
            tokens, positions = functional.pad(tokens, (0, padding)), functional.pad(positions, (0, padding))
        hidden = self._words.index_select(0, tokens) + self._positions.index_select(0, positions)
        hidden = self._norm(hidden, self._embedding_norm).to(self.dtype)
        biases = [self._attention_bias(length) for length, _ in runs]
        for layer in self._layers:
            attended = self._attend(layer.inputs(hidden), runs, biases)
            hidden = self._norm(layer.output(attended, hidden), layer.attention_norm)
            hidden = self._norm(layer.down(layer.up(hidden), hidden), layer.norm)
        return self._norm(self._transform(hidden.float()), self._transform_norm)[:count]

    def _position_ids(self, tokens: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        parts, done = [], 0
        for length, sentences in runs:
            if self._pad is None:
                parts.append(torch.arange(length).repeat(sentences))
            else:  # a padding token within a sentence has a position of its own
                present = tokens[done : done + length * sentences].view(sentences, length).ne(self._pad).long()
                parts.append((present.cumsum(1) * present + self._pad).flatten())
            done += length * sentences
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attention_bias(self, length: int) -> Tensor | None:
        """Return MPNet's bias of attention by the distance of two tokens, shape (heads, length, length)."""
        if self._relative is None:
            return None
        place = torch.arange(length)
        distance = place.unsqueeze(1) - place
        far = distance.abs().clamp(min=1).float()
        scale = (_BUCKETS - _EXACT_BUCKETS) / math.log(_MOST_DISTANCE / _EXACT_BUCKETS)
        bucket = (_EXACT_BUCKETS + (torch.log(far / _EXACT_BUCKETS) * scale).long()).clamp(max=_BUCKETS - 1)
        bucket = torch.where(distance.abs() < _EXACT_BUCKETS, distance.abs(), bucket) + (distance < 0) * _BUCKETS
        return self._relative[bucket].permute(2, 0, 1).to(self.dtype)

    def _attend(self, inputs: Tensor, runs: Sequence[tuple[int, int]], biases: Sequence[Tensor | None]) -> Tensor:
        """Self-attention within each sentence, of queries, keys and values side by side."""
        size = inputs.shape[1] // 3
        out = inputs.new_empty(len(inputs), size)
        done = 0
        for (length, sentences), bias in zip(runs, biases, strict=True):
            rows = slice(done, done + length * sentences)
            query, key, value = inputs[rows].view(sentences, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            scores_size = sentences * self._heads * length**2
            # Faster in bfloat16, and so is its gradient in either type.
            by_hand = self.dtype == torch.bfloat16 and length * sentences > _FEW and scores_size <= _MOST_SCORES
            if by_hand or self._trainable:
                scores = query @ key.mT
                scores = scores.mul_(key.shape[-1] ** -0.5) if bias is None else bias + scores * key.shape[-1] ** -0.5
                attended = scores.softmax(-1) @ value
            else:
                attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
            out[rows].view(sentences, length, self._heads, -1).copy_(attended.transpose(1, 2))
            done = rows.stop
        out[done:] = 0
        return out

    def _norm(self, rows: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(rows, rows.shape[1:], *norm, self._epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    inputs: _Linear  # query, key and value
    output: _Linear
    attention_norm: tuple[Tensor, Tensor]
    up: _Linear
    down: _Linear
    norm: tuple[Tensor, Tensor]


class _Linear:
    """A linear map followed by an activation, or by a sum with other rows."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str | None, *, packed: bool) -> None:
        self._activation, self._bias = activation, bias
        self._packed = packed
        self._weight: Tensor = _ONEDNN._reorder_linear_weight(weight) if self._packed else weight  # noqa: SLF001

    def __call__(self, rows: Tensor, other: Tensor | None = None) -> Tensor:
        result: Tensor
        if self._packed:
            multiply = _ONEDNN._linear_pointwise  # noqa: SLF001
            if other is None:
                result = multiply(rows, self._weight, self._bias, self._activation or "none", [], "none")
            else:
                result = multiply.binary(rows, other, self._weight, self._bias, "add")
            return result
        result = functional.linear(rows, self._weight, self._bias)
        if other is not None:
            return result.add_(other)
        return result if self._activation is None else _ACTIVATIONS[self._activation](result)


_ONEDNN: Any = torch.ops.mkldnn
_OPERATORS = ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight")


def packs(dtype: torch.dtype) -> bool:
    """Return whether torch has oneDNN's products of packed weights of a type on this processor.

    These operators are the ones that ``torch.compile`` uses when it freezes weights. Where a build lacks them,
    ``torch.nn.functional.linear`` takes their place.
    """
    onednn: Any = torch.backends.mkldnn
    if not (onednn.is_available() and onednn.enabled and all(hasattr(_ONEDNN, name) for name in _OPERATORS)):
        return False
    return dtype == torch.float32 or bool(_ONEDNN._is_mkldnn_bf16_supported())  # noqa: SLF001
