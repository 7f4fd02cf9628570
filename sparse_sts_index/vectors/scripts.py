"""Scripts that a vocabulary has words in: a text in another is cut into letters, and its cosines mean little."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter

from sparse_sts_index.vectors.vocabulary import Vocabulary

#: Tokens of two letters or more that make a script one of the vocabulary's own. An English WordPiece vocabulary has
#: each letter of many alphabets, and under ten such tokens of any but Latin.
_WORDS = 100
#: Where a character is a word, characters that do: an English vocabulary has 244, a Chinese one some 7,000.
_IDEOGRAPHS = 1500
_KANA = frozenset(("HIRAGANA", "KATAKANA"))
_FOREIGN_SHARE = 0.5


def unknown_scripts(vocabulary: Vocabulary, text: str) -> tuple[str, ...]:
    """Return the scripts that most of a text is written in, if the vocabulary has no words in them.

    Parameters
    ----------
    vocabulary : Vocabulary
        WordPiece or SentencePiece; of a byte-level one nothing is said.
    text : str

    Returns
    -------
    tuple of str
        Unicode's names, such as ``"Cyrillic"``; ``"symbols"`` for a text without letters, in characters of no token.
        Empty where at least half of the text is in scripts that the vocabulary knows.
    """
    known = _known(vocabulary)
    if known is None or (text.isascii() and "LATIN" in known[0]):
        return ()
    scripts, characters = known
    foreign: Counter[str] = Counter()
    total = 0
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "MZC":  # marks belong to the letter before
            continue
        total += 1
        if category[0] != "L":
            if character not in characters:
                foreign["symbols"] += 1
        elif _script(character) not in scripts:
            foreign[_script(character)] += 1
    if foreign.total() <= _FOREIGN_SHARE * total:
        return ()
    names = [script for script, _ in foreign.most_common() if script != "symbols"]
    return tuple(name if name == "CJK" else name.capitalize() for name in names) or ("symbols",)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").split()[0].split("-")[0]


@functools.lru_cache(maxsize=8)
def _known(vocabulary: Vocabulary) -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the scripts that a vocabulary has words in, and its characters; None if its tokens are of bytes."""
    tokens = vocabulary.tokens
    if any(token.startswith("\u0120") for token in tokens):  # the space of a byte-level vocabulary
        return None
    words, ideographs = Counter[str](), set[str]()
    for token in tokens:
        letters = [letter for letter in token if letter.isalpha()]
        if len(letters) > 1:
            words.update({_script(letter) for letter in letters})
        elif letters and _script(letters[0]) == "CJK":
            ideographs.add(letters[0])
    scripts = {script for script, count in words.items() if count >= _WORDS}
    if "CJK" in scripts or len(ideographs) >= _IDEOGRAPHS:
        scripts |= {"CJK", *_KANA}
    return frozenset(scripts), frozenset(character for token in tokens for character in token)
