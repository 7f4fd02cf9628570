"""Texts of strangers: what a message may show of them, and what no file can hold."""

from __future__ import annotations

import re

from sparse_sts_index.errors import DataError

#: What may not stand in a message as it is: controls, ends of lines, what turns the direction of text, surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
