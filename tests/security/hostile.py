"""Sentences as bad as may be, and what a refusal looks like."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sparse_sts_index.errors import SparseStsError

if TYPE_CHECKING:
    pass

Write = Callable[..., Path]

EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnp.exe\u202c <script>alert(1)</script> =cmd|' /C calc'!A0"
#: Sentences by id, both as bad as may be.
SENTENCES = {
    "plain": "A cat sleeps.",
    "esc\x1b[2J\x9bid": EVIL,
    "nl\nid\r\n\ttab": "one\ntwo\r\nthree\ttab\x0b\x0c\x1c\x85\u2028\u2029 lone\rCR",
    "nul\0id": "nul\0text",
    "caf\u00e9": "NFC caf\u00e9",
    "cafe\u0301": "NFD cafe\u0301",
    '"q\\*:? AND OR NOT ~^[]{}()/': '"quotes" \\ backslash * : ?',
    "AND": "a\\",
    "\\": "\\",
    '"': '"',
    "*": "*:*",
    "\ufeffbom": "\ufefftext with a byte order mark",
    "\u200b": "zero\u200bwidth\u200d\u2060",
    "x" * 32_766: "an id as long as Lucene takes",
    "megabyte": "some words of many " * 55_000,
    "one word of a megabyte": "w" * 1_000_000,
    "zalgo": "z" + "\u0301\u0489" * 5_000 + " algo",
    "zwj": "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family \U0001f3f3\ufe0f\u200d\U0001f308",
    "empty": "",
    "blank": " \t\n\u3000",
    "##": "## ##ing [CLS] [SEP] [MASK] [PAD] [term1]",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "astral": "\U0010ffff\U000e0001\ufdd0",
    "delimiter": "\ue000 is private",
    "bidi": "\u202eabc\u202c \u2067x\u2069",
    "../../etc/passwd": "a path",
    "%2e%2e%2f": "an encoded path",
}


def one_line(error: BaseException) -> str:
    """A message that fits a line of a terminal and does nothing else to it."""
    message = str(error)
    assert message
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in message), message
    assert len(message) < 2_000
    return message


def refused(action: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(SparseStsError) as caught:
        action()
    for part in parts:
        assert part in one_line(caught.value)
