"""A ``SparseEncoder`` of sentence-transformers, as :class:`.encoding.encoder.SparseStsEncoder` uses a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling
from sentence_transformers.util import batch_to_device
from torch import Tensor
from transformers import PretrainedConfig

from sparse_sts_index.encoding.fused_encoder import FusedSparseEncoder, fuse, term_weights
from sparse_sts_index.encoding.models import check_symmetric, tokenizer_vocabulary
from sparse_sts_index.encoding.term_weights import TermWeights
from sparse_sts_index.encoding.tokenization import Batch, PackedTokens, SentenceTokenizer, TokenizedSentences
from sparse_sts_index.errors import ModelError

_PREPROCESSED_TOGETHER = 32  # sentences


class StockTokenizer(SentenceTokenizer):
    """The tokenizer of a ``SparseEncoder``.

    Parameters
    ----------
    model : sentence_transformers.SparseEncoder
    """

    def __init__(self, model: SparseEncoder) -> None:
        self._model = model

    @property
    def prompt(self) -> str:
        """The text before each sentence."""
        return self._model.prompts.get(self._model.default_prompt_name or "") or ""

    @property
    def max_length(self) -> int | None:
        """Most tokens of a sentence, with those that begin and end it."""
        return self._model.max_seq_length

    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence."""
        ids: list[list[int]] = self._encode(sentences)["input_ids"]
        return ids

    def encodings(self, sentences: Sequence[str]) -> list[Any] | None:
        """Return a ``tokenizers.Encoding`` for each sentence, or None where the tokenizer makes none."""
        return self._encode(sentences).encodings  # type: ignore[no-any-return]

    def _encode(self, sentences: Sequence[str]) -> Any:
        transformer: Any = self._model[0]
        options: dict[str, Any] = {"truncation": True, "max_length": self._model.max_seq_length}
        for modality in ("common", "text"):  # the order of the model's own preprocessing
            options |= transformer.processing_kwargs.get(modality, {})
        options |= {"padding": False, "return_tensors": None}
        texts = [self.prompt + sentence for sentence in sentences]
        return self._tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, **options)

    @cached_property
    def _tokenizer(self) -> Any:
        """A copy: a call leaves its truncation in a tokenizer, and another thread may call this one."""
        return copy.deepcopy(self._model.tokenizer)

    def preprocessed_batches(self, sentences: Sequence[str]) -> TokenizedSentences:
        """Return batches of 32 sentences of similar numbers of characters, from the model's own preprocessing."""
        order = np.argsort([-len(sentence) for sentence in sentences], kind="stable")
        order = order[~self.are_blank(sentences)[order]]
        batches = []
        for start in range(0, len(order), _PREPROCESSED_TOGETHER):
            rows = order[start : start + _PREPROCESSED_TOGETHER]
            batches.append((rows, self._model.preprocess([sentences[row] for row in rows], prompt=self.prompt)))
        return TokenizedSentences(len(sentences), batches)


class StockModel:
    """A ``SparseEncoder`` with the fused head.

    Parameters
    ----------
    model : sentence_transformers.SparseEncoder
        It gets the fused head, in place; see :func:`.encoding.fused_encoder.fuse`.
    name : str
        For messages.

    Raises
    ------
    ModelError
        The model encodes queries and documents differently; see :func:`.encoding.models.check_symmetric`.
    """

    def __init__(self, model: SparseEncoder, name: str) -> None:
        check_symmetric(model, name)
        self.model, self.name = fuse(model), name
        self.tokenizer = StockTokenizer(model)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def fused(self) -> bool:
        """True if the fused head is in use; see :attr:`.encoding.fused_encoder.FusedSparseEncoder.fused`."""
        return isinstance(self.model, FusedSparseEncoder) and self.model.fused

    @property
    def max_active_dims(self) -> int | None:
        """Most terms of a sentence, or None for all."""
        return self.model.max_active_dims

    @max_active_dims.setter
    def max_active_dims(self, terms: int) -> None:
        self.model.max_active_dims = terms

    @property
    def vocabulary(self) -> tuple[dict[str, int], int]:
        """Token to term id, and the number of terms."""
        return tokenizer_vocabulary(self.model), self._config.vocab_size

    @property
    def _config(self) -> PretrainedConfig:
        transformer = self.model.transformers_model
        if transformer is None:
            raise ModelError(f"model {self.name} has no transformer")
        config: PretrainedConfig = transformer.config
        return config

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide a vector, but for those of the tokenizer."""
        config = self._config
        pooling = next(module for module in self.model.modules() if isinstance(module, SpladePooling))
        return {
            "architecture": config.model_type,
            "attention_heads": getattr(config, "num_attention_heads", None),
            "activation": str(getattr(config, "hidden_act", None)),
            "epsilon": getattr(config, "layer_norm_eps", None),
            "pooling": [pooling.pooling_strategy, pooling.activation_function],
        }

    def probe(self, text: str) -> list[int]:
        """Return the token ids of a text, without prompt or truncation."""
        ids: list[int] = self.model.tokenizer(text)["input_ids"]
        return ids

    def state(self) -> Mapping[str, Tensor]:
        """Return all weights by name."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def start(self) -> bool:
        """Leave training mode, and prepare for inference.

        Returns
        -------
        bool
            Whether batches may be computed side by side.
        """
        self.model.eval()
        return self.fused and isinstance(self.model, FusedSparseEncoder) and self.model.prepare()

    def tokenize(self, sentences: Sequence[str], batch_tokens: int, workers: int) -> TokenizedSentences:
        """Return batches for :meth:`term_weights`; see :meth:`.SentenceTokenizer.packed_batches`."""
        if self.fused:
            return self.tokenizer.packed_batches(sentences, batch_tokens, workers)
        return self.tokenizer.preprocessed_batches(sentences)

    def term_weights(self, batch: Batch) -> TermWeights:
        """Return the term weights of a batch."""
        if isinstance(batch, str):
            return self._traced(batch)
        if isinstance(batch, PackedTokens):
            assert isinstance(self.model, FusedSparseEncoder)
            return self.model.encode_tokens(batch.ids, batch.lengths)
        return term_weights(self.model, batch_to_device(dict(batch), self.device))

    def _traced(self, sentence: str) -> TermWeights:
        """Return the term weights of a sentence with their positions, from all logits of a model that is not fused."""
        features = self.model.preprocess([sentence], prompt=self.tokenizer.prompt)
        output = self.model(batch_to_device(features, self.device))
        weights = TermWeights.from_dense(output["sentence_embedding"])
        positions = output["token_embeddings"].flatten(0, -2)[:, weights.terms].argmax(dim=0)
        return replace(weights, positions=positions)
