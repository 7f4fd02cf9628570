"""Term ids of the encoder and terms of Lucene, one to one.

A SPLADE vocabulary is its tokenizer's: ``play``, ``##ing``, ``.``, CJK characters, whatever it holds. Each token is its
own Lucene term, to the letter. Only a token that cannot travel through a whitespace-delimited term list (which is how
Lucene's ``WhitespaceTokenizer``, and so Anserini, reads impacts) gets a stand-in made from its id, such as
``[term1234]``. Both directions are tables, so nothing is lost however odd the vocabulary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from sparse_sts_index.errors import ModelError

#: Separates term and weight in the term lists given to Lucene. A private-use character that no token may hold.
DELIMITER = "\ue000"

#: ``java.lang.Character.isWhitespace``, at which Lucene's WhitespaceTokenizer splits, and DELIMITER.
_SPLITS = re.compile(
    f"[\\t-\\r\\x1c-\\x20\\u1680\\u2000-\\u2006\\u2008-\\u200a\\u2028\\u2029\\u205f\\u3000{DELIMITER}]"
)

#: WhitespaceTokenizer cuts tokens at 255 UTF-16 units; the delimiter and a weight need their share.
_LONGEST = 240


class Vocabulary:
    """The tokens of an encoder, by term id, and their Lucene terms.

    Parameters
    ----------
    tokens : sequence of (str or None)
        Token of each term id. None where the encoder has an output that no token belongs to (padded embeddings).

    Attributes
    ----------
    tokens : tuple of str, length vocab
        As given; the stand-in where there is no token.
    terms : tuple of str, length vocab
        The Lucene term of each term id. All different.
    """

    def __init__(self, tokens: Sequence[str | None]) -> None:
        if not isinstance(tokens, list | tuple) or not all(isinstance(token, str | None) for token in tokens):
            raise TypeError("tokens must be a list of strings")
        taken = {token for token in tokens if token is not None}
        terms: list[str] = []
        for term_id, token in enumerate(tokens):
            if token is None or not is_lucene_safe(token):
                term = f"[term{term_id}]"
                while term in taken:
                    term += "'"
                taken.add(term)
            else:
                term = token
            terms.append(term)
        self.terms = tuple(terms)
        self.tokens = tuple(term if token is None else token for token, term in zip(tokens, terms, strict=True))
        if len(set(terms)) != len(terms):
            raise ModelError("the tokenizer's vocabulary gives one token two ids")

    @classmethod
    def from_mapping(cls, vocabulary: Mapping[str, int], size: int) -> Vocabulary:
        """Build from a tokenizer's ``get_vocab()`` and the encoder's output dimension, which may be larger.

        Raises
        ------
        ModelError
            The tokenizer has a token id beyond `size`, or two tokens with one id.
        """
        tokens: list[str | None] = [None] * size
        for token, term_id in vocabulary.items():
            if not 0 <= term_id < size:
                raise ModelError(f"token {token!r} has id {term_id}, but the encoder has {size} outputs")
            if tokens[term_id] is not None:
                raise ModelError(f"tokens {tokens[term_id]!r} and {token!r} have one id, {term_id}")
            tokens[term_id] = token
        return cls(tokens)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def sha256(self) -> str:
        """SHA-256 over the Lucene terms in id order, each ended by a line feed (no term holds one)."""
        digest = hashlib.sha256()
        for term in self.terms:
            digest.update(term.encode() + b"\n")
        return digest.hexdigest()


def is_lucene_safe(token: str) -> bool:
    """Whether `token` survives Lucene's whitespace tokenizer, and our term lists, as it is."""
    if not token or _SPLITS.search(token):
        return False
    try:
        return len(token.encode("utf-16-le")) // 2 <= _LONGEST
    except UnicodeEncodeError:  # an unpaired surrogate
        return False
