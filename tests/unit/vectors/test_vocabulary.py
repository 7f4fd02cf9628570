from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from sparse_sts_index import ModelError, Vocabulary
from sparse_sts_index.storage.lucene.jvm import java_class
from sparse_sts_index.vectors.vocabulary import DELIMITER, is_lucene_safe

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

any_text = st.text(st.characters(codec=None, categories=None), max_size=300)


@given(st.lists(st.one_of(st.none(), any_text, st.sampled_from(["[term0]", "[term1]", "[term1]'"])), max_size=8))
def test_terms_are_distinct_safe_and_the_tokens_themselves_where_they_can_be(tokens: list[str | None]) -> None:
    present = [token for token in tokens if token is not None]
    if len(set(present)) < len(present):
        return
    vocabulary = Vocabulary(tokens)
    assert len(set(vocabulary.terms)) == len(tokens) == len(vocabulary)
    for token, shown, term in zip(tokens, vocabulary.tokens, vocabulary.terms, strict=True):
        assert is_lucene_safe(term)
        assert shown == (term if token is None else token)
        if token is not None and is_lucene_safe(token):
            assert term == token


def test_the_real_vocabulary_needs_no_stand_in(tiny: SparseStsEncoder) -> None:
    vocabulary = tiny.vocabulary
    assert len(vocabulary) == 30522
    assert vocabulary.terms == vocabulary.tokens == tuple(tiny.model.tokenizer.convert_ids_to_tokens(range(30522)))
    assert {"##ing", ".", "東", "[CLS]", "\\", '"', "|"} <= set(vocabulary.terms)


def test_safe_means_what_java_means_by_white_space() -> None:
    is_whitespace = java_class("java.lang.Character").isWhitespace
    for code in range(0x10000):
        if not 0xD800 <= code < 0xE000 and chr(code) != DELIMITER:
            assert is_lucene_safe(f"a{chr(code)}b") == (not is_whitespace(code)), hex(code)


def test_outputs_without_a_token_get_a_name() -> None:
    vocabulary = Vocabulary.from_mapping({"a": 0, "[term2]": 1}, 3)
    assert vocabulary.terms == ("a", "[term2]", "[term2]'")
    assert vocabulary.sha256 != Vocabulary.from_mapping({"a": 0, "b": 1}, 3).sha256


@pytest.mark.parametrize(
    ("mapping", "message"), [({"a": 3}, "'a' has id 3, but the encoder has 3"), ({"a": 1, "b": 1}, "have one id, 1")]
)
def test_vocabularies_that_cannot_be(mapping: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Vocabulary.from_mapping(mapping, 3)
