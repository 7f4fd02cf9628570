"""What else one could take for the similarity of two sentences: other people's methods, to compare with.

Each scores pairs, and each finds the nearest sentences of a collection, so that quality and latency come from the same
thing. BM25 is `bm25s`, TF-IDF scikit-learn's, a dense encoder sentence-transformers' ``SentenceTransformer``; the token
overlap (Jaccard 1912) is small enough to be here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.errors import MissingExtraError

_WORD = re.compile(r"\w+")


class Baseline(Protocol):
    """A way to compare sentences.

    Attributes
    ----------
    name : str
    what : str
        How it does, in a few words.
    """

    name: str
    what: str

    def similarities(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """Of each sentence of `a` with the one of `b` at its side; ndarray of float64, shape (n,)."""
        ...

    def index(self, sentences: Sequence[str]) -> None:
        """Take in the collection that :meth:`search` is to look through."""
        ...

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """Places of the k nearest sentences, the nearest first."""
        ...


class TokenOverlap:
    """Words that two sentences share, over the words of both (Jaccard)."""

    name = "token overlap"
    what = "Jaccard index of the sets of words"

    def similarities(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Baseline`."""
        return np.array([_jaccard(_words(x), _words(y)) for x, y in zip(a, b, strict=True)])

    def index(self, sentences: Sequence[str]) -> None:
        """See :class:`Baseline`."""
        self._sets = [_words(sentence) for sentence in sentences]

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """See :class:`Baseline`."""
        words = _words(query)
        return _best(np.array([_jaccard(words, other) for other in self._sets]), k)


class TfIdf:
    """Cosine of TF-IDF vectors, fitted on the sentences themselves."""

    name = "TF-IDF"
    what = "scikit-learn's TfidfVectorizer with sublinear tf, cosine"

    def similarities(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Baseline`."""
        if not any(map(_words, (*a, *b))):
            return np.zeros(len(a))
        vectorizer = self._vectorizer().fit([*a, *b])
        products = vectorizer.transform(a).multiply(vectorizer.transform(b))
        return np.asarray(products.sum(axis=1), dtype=np.float64).reshape(-1)

    def index(self, sentences: Sequence[str]) -> None:
        """See :class:`Baseline`."""
        self._count, self._fitted = len(sentences), None
        if any(map(_words, sentences)):
            self._fitted = self._vectorizer()
            self._documents = self._fitted.fit_transform(sentences).T.tocsr()

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """See :class:`Baseline`."""
        if self._fitted is None:
            return _best(np.zeros(self._count), k)
        return _best((self._fitted.transform([query]) @ self._documents).toarray()[0], k)

    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True)


class Bm25:
    """BM25 with the first sentence as query and the second as document of a collection of all second sentences.

    Raises
    ------
    MissingExtraError
        The package ``bm25s`` is not installed.
    """

    name = "BM25"
    what = "bm25s (Lucene's variant, k1 1.5, b 0.75), first sentence as query"

    def __init__(self) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("bm25s", "bench") from error
        self._bm25s: Any = bm25s

    def similarities(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Baseline`."""
        self.index(b)
        return np.array([self._scores(query)[row] for row, query in enumerate(a)], dtype=np.float64)

    def index(self, sentences: Sequence[str]) -> None:
        """See :class:`Baseline`."""
        self._count, self._retriever = len(sentences), None
        if any(map(_words, sentences)):
            self._retriever = self._bm25s.BM25(method="lucene")
            self._retriever.index([_word_list(sentence) for sentence in sentences], show_progress=False)

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """See :class:`Baseline`."""
        return _best(self._scores(query), k)

    def _scores(self, query: str) -> NDArray[np.float64]:
        retriever = self._retriever
        known = [] if retriever is None else [word for word in _word_list(query) if word in retriever.vocab_dict]
        if retriever is None or not known:
            return np.zeros(self._count)
        return np.asarray(retriever.get_scores(known), dtype=np.float64)


class Dense:
    """Cosine of a dense encoder's vectors, all compared with all.

    Parameters
    ----------
    model : str or Path
        See :func:`sparse_sts_index.encoding.models.load_dense`.

    Raises
    ------
    ModelError, HubUnreachableError
        It does not load.
    """

    def __init__(self, model: str | Path) -> None:
        from sparse_sts_index.encoding.models import load_dense

        self._model = load_dense(model)
        self.name = f"dense, {Path(model).name}"
        self.what = f"{self._model.get_embedding_dimension()} float32 dimensions, cosine, brute force"

    def similarities(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Baseline`."""
        vectors = self._encode([*a, *b]).astype(np.float64)
        return np.asarray((vectors[: len(a)] * vectors[len(a) :]).sum(axis=1), dtype=np.float64)

    def index(self, sentences: Sequence[str]) -> None:
        """See :class:`Baseline`."""
        self._documents = self._encode(sentences)

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """See :class:`Baseline`."""
        return _best(self._documents @ self._encode([query])[0], k)

    def _encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        encoded: NDArray[np.float32] = self._model.encode(
            list(sentences), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return encoded


def _word_list(sentence: str) -> list[str]:
    return _WORD.findall(sentence.lower())


def _words(sentence: str) -> frozenset[str]:
    return frozenset(_word_list(sentence))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def _best(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    chosen = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else np.arange(len(scores))
    return np.asarray(chosen[np.argsort(-scores[chosen], kind="stable")], dtype=np.int64)
