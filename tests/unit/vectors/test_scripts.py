"""Scripts that a vocabulary has words in, and texts in others."""

# ruff: noqa: RUF001 (letters of other scripts that look like Latin ones)

from __future__ import annotations

import string
from itertools import product

import pytest
from hypothesis import given, strategies as st

from sparse_sts_index import Vocabulary
from sparse_sts_index.vectors.scripts import unknown_scripts

LATIN = [a + b for a, b in product(string.ascii_lowercase, repeat=2)]
CYRILLIC = [chr(0x430 + n) for n in range(32)]
GREEK = [chr(0x3B1 + n) for n in range(25)]
IDEOGRAPHS = [chr(0x4E00 + n) for n in range(7000)]

#: An English vocabulary: words in Latin, the letters of other alphabets, a few ideographs, signs.
ENGLISH = Vocabulary([*LATIN, *CYRILLIC, *GREEK, *IDEOGRAPHS[:244], "ου", *"0123456789.,?!+$€é"])
RUSSIAN = Vocabulary([*(a + b for a, b in product(CYRILLIC, repeat=2)), *string.ascii_lowercase, "?"])
CHINESE = Vocabulary([*IDEOGRAPHS, *LATIN, "の"])
BYTES = Vocabulary(["Ġthe", "Ã©", *LATIN])


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Where is my parcel?", ()),
        ("Où est ma pièce d'identité à Zürich", ()),
        ("Đây là gói hàng", ()),
        ("", ()),
        (" \t", ()),
        ("?!", ()),
        ("C++ 3,000 €", ()),
        ("an α particle", ()),
        ("Toyota is トヨタ", ()),
        ("Где моя посылка?", ("Cyrillic",)),
        ("Πού είναι το δέμα μου", ("Greek",)),
        ("我的包裹在哪里", ("CJK",)),
        ("私の荷物はどこですか", ("Hiragana", "CJK")),
        ("내 소포 어디에 있나요", ("Hangul",)),
        ("أين طردي", ("Arabic",)),
        ("מאיפה החבילה שלי", ("Hebrew",)),
        ("मेरा पार्सल कहाँ है", ("Devanagari",)),
        ("พัสดุของฉันอยู่ที่ไหน", ("Thai",)),
        ("ჩემი ამანათი", ("Georgian",)),
        ("የእኔ ጥቅል", ("Ethiopic",)),
        ("ｆｕｌｌ ｗｉｄｔｈ", ("Fullwidth",)),
        ("😀😀", ("symbols",)),
        ("Привет, a", ("Cyrillic",)),
        ("\ud800", ()),
    ],
)
def test_of_an_english_vocabulary(text: str, scripts: tuple[str, ...]) -> None:
    assert unknown_scripts(ENGLISH, text) == scripts


@pytest.mark.parametrize(
    ("vocabulary", "text", "scripts"),
    [
        (RUSSIAN, "Где моя посылка?", ()),
        (RUSSIAN, "Where is my parcel?", ("Latin",)),
        (CHINESE, "我的包裹在哪里", ()),
        (CHINESE, "私の荷物はどこですか", ()),
        (CHINESE, "Where is my parcel?", ()),
        (CHINESE, "Где моя посылка?", ("Cyrillic",)),
        (BYTES, "Где моя посылка?", ()),  # its tokens do not tell
    ],
)
def test_of_other_vocabularies(vocabulary: Vocabulary, text: str, scripts: tuple[str, ...]) -> None:
    assert unknown_scripts(vocabulary, text) == scripts


@given(st.text(string.printable))
def test_ascii_is_known_where_latin_is(text: str) -> None:
    assert unknown_scripts(ENGLISH, text) == ()


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    found = unknown_scripts(ENGLISH, text)
    assert "Latin" not in found
    assert len(set(found)) == len(found)
