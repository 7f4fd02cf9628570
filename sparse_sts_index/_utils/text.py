"""Texts of strangers: characters that a message or a terminal must not show, and that no file can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sparse_sts_index.errors import DataError

#: Characters that drive a terminal or break a line (controls, ANSI escapes among them, and line ends), or that override
#: the direction of text, so that a row is shown in another order than it has. For a class of a regular expression.
CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def printable(text: str, most: int = 200) -> str:
    """A stranger's text as a message may show it: no control characters, ends of lines or surrogates, and an end."""
    shown = text if len(text) <= most else text[:most] + "..."
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), shown)


def check_strings(values: Iterable[str], name: str) -> list[str]:
    """Return strings as a list of plain ``str``.

    Parameters
    ----------
    values : iterable of str
        Of any kind, generators and arrays included.
    name : str
        What they are, for messages: ``"sentence"``.

    Raises
    ------
    DataError
        A string holds an unpaired surrogate.
    ValueError
        `values` is one string or a table, or holds something that is not a string.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"expected a sequence of {name}s, not one {_kind(values)}")
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"expected a sequence of {name}s, not a table; choose its column")
    strings: list[str] = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise ValueError(f"{name} {number} must be a string, not {_kind(value)}")
        check_unicode(value, "text" if name == "sentence" else name, f"{name} {number}")
        strings.append(value if type(value) is str else str(value))
    return strings


def _kind(value: object) -> str:
    return "string" if isinstance(value, str) else type(value).__name__


def check_unicode(value: str, name: str, where: str) -> None:
    """Refuse unpaired surrogates, which JSON escapes can spell but no UTF-8 file (nor Lucene) can hold.

    Python also has them for bytes of an argument that are not text in its encoding.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        byte = f" (or a byte that is not UTF-8, 0x{code - 0xDC00:02X})" if 0xDC80 <= code <= 0xDCFF else ""
        message = f"{where}: {name} holds an unpaired surrogate{byte} at character {error.start + 1}"
        raise DataError(message) from error
