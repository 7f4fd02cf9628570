"""Texts of strangers: any bytes that a shell passes on, and any values that a caller does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from sparse_sts_index import DataError
from sparse_sts_index._utils.text import check_strings, printable


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.lists(st.binary(max_size=12), max_size=4))
def test_arguments_of_any_bytes_are_text_or_refused(arguments: list[bytes]) -> None:
    """Python gives a byte that is not UTF-8 as a surrogate of its own (PEP 383)."""
    texts = [argument.decode("utf-8", "surrogateescape") for argument in arguments]
    if all(map(is_utf8, arguments)):
        assert check_strings(texts, "sentence") == texts
        return
    bad = next(number for number, argument in enumerate(arguments, 1) if not is_utf8(argument))
    with pytest.raises(DataError, match=rf"^sentence {bad}: text holds an unpaired surrogate \(or a byte that is not"):
        check_strings(texts, "sentence")


@given(st.binary(max_size=40))
def test_any_bytes_can_be_shown(argument: bytes) -> None:
    shown = printable(argument.decode("utf-8", "surrogateescape"))
    assert shown.isprintable() or not any(ord(letter) < 32 for letter in shown)
    shown.encode()


@given(st.one_of(st.none(), st.integers(), st.floats(), st.binary(), st.booleans(), st.text()))
def test_one_value_is_no_sequence_of_strings(value: Any) -> None:
    with pytest.raises(ValueError, match="^expected a sequence of ids, not one "):
        check_strings(value, "id")
