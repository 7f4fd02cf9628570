"""Why two sentences score as they do: the terms they share, and what each adds to the cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.sparse import csr_array

from sparse_sts_index.vectors.trace import Trace
from sparse_sts_index.vectors.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class TermContribution:
    """One shared term's part in a score.

    Attributes
    ----------
    term : str
        The token, as the tokenizer has it.
    query_weight, document_weight : float
        Its weights in the two unit vectors, 0..1.
    contribution : float
        Their product, in units of cosine. A pair's contributions sum to its score.
    """

    term: str
    query_weight: float
    document_weight: float
    contribution: float


def shared_terms(
    vocabulary: Vocabulary,
    term_ids: Sequence[int],
    query_weights: Sequence[float],
    document_weights: Sequence[float],
) -> tuple[TermContribution, ...]:
    """Contributions of the terms that have weight on both sides, largest first, ties in term order.

    Parameters
    ----------
    vocabulary : Vocabulary
    term_ids : sequence of int, length m
    query_weights, document_weights : sequence of float, length m
        Weights of these terms in the unit vectors.
    """
    shared = [
        TermContribution(vocabulary.tokens[term_id], query, document, query * document)
        for term_id, query, document in zip(term_ids, query_weights, document_weights, strict=True)
        if query and document
    ]
    return tuple(sorted(shared, key=lambda term: (-term.contribution, term.term)))


def explain_pair(vocabulary: Vocabulary, first: csr_array, second: csr_array) -> tuple[TermContribution, ...]:
    """Contributions to the dot product of two vectors.

    Parameters
    ----------
    vocabulary : Vocabulary
    first, second : csr_array of float, shape (1, vocab)
    """
    document = dict(zip(second.indices.tolist(), second.data.tolist(), strict=True))
    term_ids = first.indices.tolist()
    return shared_terms(vocabulary, term_ids, first.data.tolist(), [document.get(i, 0.0) for i in term_ids])


@dataclass(frozen=True, slots=True)
class TracedTerm:
    """A term on one side of a pair.

    Attributes
    ----------
    weight : float
        In the unit vector, 0..1.
    literal : bool
        Whether it is one of the sentence's own tokens; otherwise the model has added it.
    word : int or None
        Which of the sentence's words it comes from, by its place in :attr:`ExplainedSentence.words`; None for a token
        that is no word.
    """

    weight: float
    literal: bool
    word: int | None


@dataclass(frozen=True, slots=True)
class SharedTerm:
    """A term of both sentences.

    Attributes
    ----------
    term : str
        The token, as the tokenizer has it.
    contribution : float
        Product of its two weights, in units of cosine.
    first, second : TracedTerm
    """

    term: str
    contribution: float
    first: TracedTerm
    second: TracedTerm


@dataclass(frozen=True, slots=True)
class LoneTerm(TracedTerm):
    """A term of one sentence that the other has not, as the tokenizer has it."""

    term: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a sentence.

    Attributes
    ----------
    start, end : int
        Where it begins and ends, in characters (Unicode code points).
    contribution : float
        What the shared terms that come from it add to the cosine. Over all words, and the tokens that are none, these
        sum to the cosine, for either sentence.
    """

    start: int
    end: int
    contribution: float


@dataclass(frozen=True, slots=True)
class ExplainedSentence:
    """One side of a pair.

    Attributes
    ----------
    words : tuple of Word
        In order.
    alone : tuple of LoneTerm
        Terms that the other sentence has not, heaviest first.
    """

    words: tuple[Word, ...]
    alone: tuple[LoneTerm, ...]


@dataclass(frozen=True, slots=True)
class PairExplanation:
    """Two sentences, term by term and word by word.

    Attributes
    ----------
    cosine : float
        Of the two unit vectors.
    shared : tuple of SharedTerm
        What adds up to it, largest first, ties in term order.
    first, second : ExplainedSentence
    """

    cosine: float
    shared: tuple[SharedTerm, ...]
    first: ExplainedSentence
    second: ExplainedSentence


def explain_traces(vocabulary: Vocabulary, first: Trace, second: Trace) -> PairExplanation:
    """All there is to say of a pair, from two of what :meth:`.encoding.encoder.SparseStsEncoder.trace` gives."""
    sides = [_traced_terms(trace) for trace in (first, second)]
    common = sides[0].keys() & sides[1].keys()
    shared = [
        SharedTerm(vocabulary.tokens[term], sides[0][term].weight * sides[1][term].weight, *(s[term] for s in sides))
        for term in common
    ]
    shared.sort(key=lambda term: (-term.contribution, term.term))
    explained = []
    for trace, side, terms in zip(
        (first, second), sides, ([t.first for t in shared], [t.second for t in shared]), strict=True
    ):
        added = [0.0] * len(trace.words)
        for term, part in zip(shared, terms, strict=True):
            if part.word is not None:
                added[part.word] += term.contribution
        alone = [
            LoneTerm(traced.weight, traced.literal, traced.word, vocabulary.tokens[term])
            for term, traced in side.items()
            if term not in common
        ]
        alone.sort(key=lambda term: (-term.weight, term.term))
        words = (Word(start, end, added[number]) for number, (start, end) in enumerate(trace.words))
        explained.append(ExplainedSentence(tuple(words), tuple(alone)))
    cosine = math.fsum(term.contribution for term in shared)
    return PairExplanation(cosine, tuple(shared), explained[0], explained[1])


def _traced_terms(trace: Trace) -> dict[int, TracedTerm]:
    weights = zip(trace.vector.indices.tolist(), trace.vector.data.tolist(), strict=True)
    return {term: TracedTerm(weight, term in trace.literal, trace.sources[term]) for term, weight in weights}
