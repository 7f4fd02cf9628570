"""Why two sentences score as they do: the terms they share, and what each adds to the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.sparse import csr_array

from sparse_sts_index.vocabulary import Vocabulary


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
