"""Texts of strangers: characters that a message or a terminal must not show, and that no file can hold."""

from __future__ import annotations

import re

from sparse_sts_index.errors import DataError

#: Characters that drive a terminal or break a line (controls, ANSI escapes among them, and line ends), or that override
#: the direction of text, so that a row is shown in another order than it has. For a class of a regular expression.
CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def printable(text: str, most: int = 200) -> str:
    """A stranger's text as a message may show it: no control characters, ends of lines or surrogates, and an end."""
    shown = text if len(text) <= most else text[:most] + "..."
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), shown)


def check_unicode(value: str, name: str, where: str) -> None:
    """Refuse unpaired surrogates, which JSON escapes can spell but no UTF-8 file (nor Lucene) can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {name} holds an unpaired surrogate at character {error.start + 1}") from error
