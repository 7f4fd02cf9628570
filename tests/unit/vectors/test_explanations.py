from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.sparse import csr_array
from support import VOCABULARY, unit_vectors

from sparse_sts_index.vectors.explanations import (
    TracedTerm,
    explain_pair,
    explain_traces,
)
from sparse_sts_index.vectors.quantizer import pairwise_dot
from sparse_sts_index.vectors.trace import Trace

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder, Vocabulary
    from sparse_sts_index.vectors.explanations import (
        ExplainedSentence,
        PairExplanation,
    )

PAIRS = [
    ("A cat sleeps on the mat.", "A kitten is sleeping on a rug."),
    ("Stock markets fell in Zürich.", "A cat sleeps."),
    ("A plane is taking off.", "A plane is taking off."),
    ("", "A plane is taking off."),
    ("A man plays a large flute 😀.", "The man is playing the flute 😀 and the man sings."),
]


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Some of 40 terms, some of equal weight, each from one of some words or none; or no term at all."""
    weight = st.sampled_from([0.25, 1.0, 3.0]) | st.floats(0.01, 10)
    weights = draw(st.dictionaries(st.integers(0, 39), weight, max_size=15))
    dense = np.zeros((1, 40))
    for term, value in weights.items():
        dense[0, term] = value
    vector = unit_vectors(dense)
    count = draw(st.integers(0, 5))
    words = tuple((3 * number, 3 * number + 2) for number in range(count))
    source = st.none() | st.integers(0, count - 1) if count else st.none()
    sources = {term: draw(source) for term in vector.indices.tolist()}
    return Trace(vector, words, sources, draw(st.frozensets(st.integers(0, 39))))


def entries(vector: csr_array) -> dict[int, float]:
    return dict(zip(vector.indices.tolist(), vector.data.tolist(), strict=True))


def check(vocabulary: Vocabulary, first: Trace, second: Trace) -> PairExplanation:
    """Everything an explanation says, against the traces."""
    explained = explain_traces(vocabulary, first, second)
    weights = entries(first.vector), entries(second.vector)
    dot = math.fsum(weights[0].get(term, 0.0) * weight for term, weight in weights[1].items())
    assert explained.cosine == pytest.approx(dot, abs=1e-12)
    assert explained.cosine == pytest.approx(float(pairwise_dot(first.vector, second.vector)[0]), abs=1e-6)
    assert math.fsum(term.contribution for term in explained.shared) == pytest.approx(explained.cosine, abs=1e-12)

    ids = {token: term for term, token in enumerate(vocabulary.tokens)}
    shared = [ids[term.term] for term in explained.shared]
    assert len(shared) == len(set(shared))
    assert set(shared) == weights[0].keys() & weights[1].keys()
    assert [(t.term, t.first.weight, t.second.weight, t.contribution) for t in explained.shared] == [
        (t.term, t.query_weight, t.document_weight, t.contribution)
        for t in explain_pair(vocabulary, first.vector, second.vector)
    ]
    order = [(-term.contribution, term.term) for term in explained.shared]
    assert order == sorted(order)

    for trace, weight, other, side, parts in (
        (first, weights[0], weights[1], explained.first, [term.first for term in explained.shared]),
        (second, weights[1], weights[0], explained.second, [term.second for term in explained.shared]),
    ):
        check_side(trace, side)
        for term, part in zip(shared, parts, strict=True):
            assert part == TracedTerm(weight[term], term in trace.literal, trace.sources[term])
        words = [0.0] * len(trace.words)
        nothing = 0.0
        for term, part in zip(explained.shared, parts, strict=True):
            if part.word is None:
                nothing += term.contribution
            else:
                words[part.word] += term.contribution
        np.testing.assert_allclose([word.contribution for word in side.words], words, atol=1e-12)
        assert sum(word.contribution for word in side.words) + nothing == pytest.approx(explained.cosine, abs=1e-12)
        alone = {ids[term.term]: (term.weight, term.literal, term.word) for term in side.alone}
        assert len(alone) == len(side.alone)
        assert alone == {
            term: (weight[term], term in trace.literal, trace.sources[term]) for term in weight.keys() - other.keys()
        }
        order = [(-term.weight, term.term) for term in side.alone]
        assert order == sorted(order)
    return explained


def check_side(trace: Trace, side: ExplainedSentence) -> None:
    assert tuple((word.start, word.end) for word in side.words) == trace.words
    assert all(word.contribution >= 0 for word in side.words)


@given(traces(), traces())
def test_all_that_an_explanation_says(first: Trace, second: Trace) -> None:
    explained = check(VOCABULARY, first, second)
    swapped = explain_traces(VOCABULARY, second, first)
    assert swapped.cosine == explained.cosine
    assert (swapped.first.alone, swapped.second.alone) == (explained.second.alone, explained.first.alone)
    assert [(t.term, t.contribution, t.second, t.first) for t in swapped.shared] == [
        (t.term, t.contribution, t.first, t.second) for t in explained.shared
    ]
    assert (swapped.first.words, swapped.second.words) == (explained.second.words, explained.first.words)


@given(traces())
def test_a_sentence_with_itself(trace: Trace) -> None:
    explained = explain_traces(VOCABULARY, trace, trace)
    assert explained.first == explained.second
    assert explained.first.alone == ()
    assert explained.cosine == pytest.approx(1.0 if trace.vector.nnz else 0.0, abs=1e-6)


def test_by_hand() -> None:
    """Weights 0.6, 0.8 and 0.8, 0.6: the shared one adds 0.64."""
    first = Trace(unit_vectors([[3, 4, 0, *[0] * 37]]), ((0, 1), (2, 5)), {0: 0, 1: 1}, frozenset({1, 7}))
    second = Trace(unit_vectors([[0, 4, 3, *[0] * 37]]), ((0, 4),), {1: None, 2: 0}, frozenset({2}))
    explained = explain_traces(VOCABULARY, first, second)
    assert explained.cosine == pytest.approx(0.64)
    (shared,) = explained.shared
    assert (shared.term, shared.first.literal, shared.first.word) == ("t1", True, 1)
    assert (shared.second.literal, shared.second.word) == (False, None)
    assert [word.contribution for word in explained.first.words] == [0, pytest.approx(0.64)]
    assert [word.contribution for word in explained.second.words] == [0]
    assert [(t.term, t.literal, t.word) for t in explained.first.alone] == [("t0", False, 0)]
    assert [(t.term, t.literal, t.word) for t in explained.second.alone] == [("t2", True, 0)]
    assert explained.first.alone[0].weight == pytest.approx(0.6)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_sentences(tiny: SparseStsEncoder, first: str, second: str) -> None:
    explained = check(tiny.vocabulary, *tiny.trace([first, second]))
    assert explained.cosine == pytest.approx(float(tiny.score_pairs([first], [second])[0]), abs=1e-5)
    for sentence, side in ((first, explained.first), (second, explained.second)):
        assert "".join(sentence[word.start : word.end] for word in side.words) == "".join(sentence.split())


def test_of_the_same_sentence_the_word_that_matters(tiny: SparseStsEncoder) -> None:
    explained = check(tiny.vocabulary, *tiny.trace(["the cat sleeps", "stocks fell when the cat died"]))
    texts = "the cat sleeps", "stocks fell when the cat died"
    for text, side in zip(texts, (explained.first, explained.second), strict=True):
        best = max(side.words, key=lambda word: word.contribution)
        assert text[best.start : best.end] == "cat"
