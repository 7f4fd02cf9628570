"""Turn sentences into token ids, in batches of similar length."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PADDED = 2  # times as many tokens may a batch have, if it were padded
_WORTH = 256  # tokens that a worker is worth having for
_TOKENIZED_TOGETHER, _CHARACTERS_TOGETHER = 256, 1 << 20


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


#: Tokens, the features of a model's own preprocessing, or a sentence for a model that takes one at a time.
Batch = PackedTokens | dict[str, Any] | str


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
    batches: Sequence[tuple[NDArray[np.int64], Batch]]


class SentenceTokenizer(ABC):
    """Tokenize sentences as a model does: with its prompt, its truncation and its maximum length."""

    @property
    @abstractmethod
    def prompt(self) -> str:
        """The text before each sentence."""

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Most tokens of a sentence, with those that begin and end it."""

    @abstractmethod
    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence."""

    @abstractmethod
    def encodings(self, sentences: Sequence[str]) -> list[Any] | None:
        """Return a ``tokenizers.Encoding`` for each sentence, or None where the tokenizer makes none."""

    def packed_batches(self, sentences: Sequence[str], batch_tokens: int, workers: int = 1) -> TokenizedSentences:
        """Return batches of similar token counts.

        Token counts come first, then batches: the tokens are those of the model's own preprocessing, without padding.

        Parameters
        ----------
        sentences : sequence of str
        batch_tokens : int
            Maximum number of tokens per batch; twice as many, if it were padded. A longer sentence is a batch of its
            own.
        workers : int
            Number of batches that are computed at a time.
        """
        tokens = self._tokens(sentences)
        lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
        order = np.argsort(-lengths, kind="stable")
        order = order[~self._are_blank(tokens)[order]]
        most = _batch_limit(lengths[order], batch_tokens, workers)
        ends = np.cumsum(lengths[order])
        batches, done = [], 0
        while done < len(order):
            longest = max(1, int(lengths[order[done]]))
            stop = np.searchsorted(ends, (ends[done - 1] if done else 0) + most, side="right")
            rows = order[done : max(done + 1, min(stop, done + _PADDED * batch_tokens // longest))]
            ids = torch.tensor([token for row in rows for token in tokens[row]], dtype=torch.int64)
            batches.append((rows, PackedTokens(ids, lengths[rows].tolist())))
            done += len(rows)
        return TokenizedSentences(len(sentences), batches)

    def _tokens(self, sentences: Sequence[str]) -> list[list[int]]:
        return [tokens for run in _runs(sentences) for tokens in self.token_ids(run)]

    def _are_blank(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        blank = self._blank
        if len(blank) >= (self.max_length or math.inf):  # a prompt that leaves no room for a sentence
            return np.zeros(len(tokens), dtype=bool)
        return np.array([of_sentence == blank for of_sentence in tokens], dtype=bool)

    @cached_property
    def _blank(self) -> list[int]:
        """Token ids of a sentence in which there is nothing."""
        return self.token_ids([""])[0]

    def are_blank(self, sentences: Sequence[str]) -> NDArray[np.bool_]:
        """Return which sentences have no token of their own: white space, controls, characters of no width."""
        return self._are_blank(self._tokens(sentences))


def _batch_limit(lengths: NDArray[np.int64], batch_tokens: int, workers: int) -> int:
    """Return the most tokens of a batch, so that all workers worth having have about as much to do."""
    total = int(lengths.sum())
    workers = max(1, min(workers, total // _WORTH))
    batches = workers * max(1, math.ceil(total / batch_tokens / workers))
    return min(batch_tokens, math.ceil(total / batches) + int(lengths.max(initial=0)) // 2)  # sentences are not cut


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
