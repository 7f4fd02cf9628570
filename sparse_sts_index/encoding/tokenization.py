"""Turn sentences into token ids, in batches of similar length."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from torch import Tensor

_TOKENIZED_TOGETHER, _CHARACTERS_TOGETHER = 256, 1 << 20
_PREPROCESSED_TOGETHER = 32  # sentences


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Hold the tokens of sentences without padding, the longest sentence first.

    Attributes
    ----------
    ids : Tensor of int64, shape (tokens,)
    lengths : list of int, length n
        Tokens of each sentence.
    """

    ids: Tensor
    lengths: list[int]


@dataclass(frozen=True, slots=True)
class TokenizedSentences:
    """Hold sentences as the model takes them, in batches of similar length.

    Attributes
    ----------
    count : int
        Number of sentences.
    batches : list of (ndarray of int64, PackedTokens or dict)
        The positions of the sentences in the input, and their tokens, or the features for the model. Blank sentences,
        of which no token is left, are in no batch: the model would give weights to the tokens that begin and end every
        sentence.
    """

    count: int
    batches: Sequence[tuple[NDArray[np.int64], PackedTokens | dict[str, Any]]]


class SentenceTokenizer:
    """Tokenize sentences as a model does: with its prompt, its truncation and its maximum length.

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

    def encodings(self, sentences: Sequence[str]) -> Any:
        """Return a ``BatchEncoding`` with the ``input_ids`` of each sentence, not padded."""
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

    def packed_batches(self, sentences: Sequence[str], batch_tokens: int) -> TokenizedSentences:
        """Return batches of similar token counts.

        Token counts come first, then batches: the tokens are those of the model's own preprocessing, without padding.

        Parameters
        ----------
        sentences : sequence of str
        batch_tokens : int
            Maximum number of tokens per batch, if it were padded. A longer sentence is a batch of its own.
        """
        tokens = self._tokens(sentences)
        lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
        order = np.argsort(-lengths, kind="stable")
        order = order[~self._are_blank(tokens)[order]]
        batches, done = [], 0
        while done < len(order):
            longest = max(1, int(lengths[order[done]]))
            rows = order[done : done + max(1, batch_tokens // longest)]
            ids = torch.tensor([token for row in rows for token in tokens[row]], dtype=torch.int64)
            batches.append((rows, PackedTokens(ids, lengths[rows].tolist())))
            done += len(rows)
        return TokenizedSentences(len(sentences), batches)

    def _tokens(self, sentences: Sequence[str]) -> list[list[int]]:
        return [tokens for run in _runs(sentences) for tokens in self.encodings(run)["input_ids"]]

    def _are_blank(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        blank = self._blank
        if len(blank) >= (self._model.max_seq_length or math.inf):  # a prompt that leaves no room for a sentence
            return np.zeros(len(tokens), dtype=bool)
        return np.array([of_sentence == blank for of_sentence in tokens], dtype=bool)

    @cached_property
    def _blank(self) -> list[int]:
        """Token ids of a sentence in which there is nothing."""
        blank: list[int] = self.encodings([""])["input_ids"][0]
        return blank

    def are_blank(self, sentences: Sequence[str]) -> NDArray[np.bool_]:
        """Return which sentences have no token of their own: white space, controls, characters of no width."""
        return self._are_blank(self._tokens(sentences))

    def preprocessed_batches(self, sentences: Sequence[str]) -> TokenizedSentences:
        """Return batches of 32 sentences of similar numbers of characters, from the model's own preprocessing."""
        order = np.argsort([-len(sentence) for sentence in sentences], kind="stable")
        order = order[~self.are_blank(sentences)[order]]
        batches = []
        for start in range(0, len(order), _PREPROCESSED_TOGETHER):
            rows = order[start : start + _PREPROCESSED_TOGETHER]
            batches.append((rows, self._model.preprocess([sentences[row] for row in rows], prompt=self.prompt)))
        return TokenizedSentences(len(sentences), batches)


def _runs(sentences: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield sentences to tokenize together, in order.

    Not too many, as thousands of lists alive at once set off Python's garbage collector; nor too much text, as all
    tokens of it take memory before a tokenizer cuts them off.
    """
    start = size = 0
    for end, sentence in enumerate(sentences):
        size += len(sentence)
        if end - start == _TOKENIZED_TOGETHER or (size > _CHARACTERS_TOGETHER and end > start):
            yield sentences[start:end]
            start, size = end, len(sentence)
    if start < len(sentences):
        yield sentences[start:]
