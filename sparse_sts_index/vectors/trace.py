"""Which word of a sentence each of its terms comes from.

Under max pooling a term's weight is that of one token: the one with the largest logit for it (Formal et al. 2021,
arXiv:2109.10086, equation 2; under sum pooling, the one with the largest share). The word that this token is part of is
the term's source. A term that is one of the sentence's own tokens is literal; the others are the model's expansion.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.sparse import csr_array

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Trace:
    """An encoded sentence, with the source of each of its terms.

    Attributes
    ----------
    vector : csr_array of float32, shape (1, vocab)
        Of unit length, as :meth:`.encoding.encoder.SparseStsEncoder.encode` gives it.
    words : tuple of (int, int)
        Where each word of the sentence begins and ends, in characters. What the model's maximum length cuts off is not
        among them; and there are none if its tokenizer does not tell.
    sources : mapping of int to (int or None)
        Which of the words each active term comes from; None for a token that is no word, such as ``[CLS]``.
    literal : frozenset of int
        The sentence's own tokens, by term id.
    """

    vector: csr_array
    words: tuple[Span, ...]
    sources: Mapping[int, int | None]
    literal: frozenset[int]


def words_of_tokens(encoding: Any, prompt: int, sentence: str) -> tuple[tuple[Span, ...], list[int | None]]:
    """The words of a sentence, and which of them each of its tokens is part of.

    Parameters
    ----------
    encoding : tokenizers.Encoding
        Of the sentence behind a prompt.
    prompt : int
        Length of the prompt, in characters.
    sentence : str
    """
    spans: dict[int, Span] = {}
    word_ids: list[int | None] = []
    for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        start, end = max(start - prompt, 0), end - prompt
        while start < end and sentence[start].isspace():  # some tokenizers count the space before a word to it
            start += 1
        if word is None or end <= start:  # a special token, one of the prompt, or an empty one
            word_ids.append(None)
            continue
        while end < len(sentence) and unicodedata.combining(sentence[end]):  # which others take off it
            end += 1
        first, last = spans.get(word, (start, end))
        spans[word] = min(first, start), max(last, end)
        word_ids.append(word)
    order = {word: number for number, word in enumerate(sorted(spans, key=spans.__getitem__))}
    return tuple(sorted(spans.values())), [None if word is None else order[word] for word in word_ids]
