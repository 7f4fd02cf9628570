"""A row of a file, with the place it came from, and the limits of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sparse_sts_index._utils.text import printable

#: The longest line of a jsonl, tsv or txt file, or row of a csv file: three times *War and Peace*.
MAX_ROW_BYTES = 16 << 20
MAX_ROW_MIB = MAX_ROW_BYTES >> 20
_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file.

    Attributes
    ----------
    where : str
        Where it stands, for error messages: ``"corpus.jsonl:17"``.
    number : int
        1-based line number (row number for parquet).
    values : dict
        Column name to value; values are ``str`` for csv, tsv and txt, JSON or Arrow values otherwise.
    """

    where: str
    number: int
    values: dict[str, Any]


def some_names(names: Iterable[object]) -> str:
    """The first of some column names."""
    few = list(itertools.islice(names, _NAMES_SHOWN + 1))
    shown = [printable(str(name), 30) for name in few[:_NAMES_SHOWN]] + ["..."] * (len(few) > _NAMES_SHOWN)
    return ", ".join(shown) or "none"


def kind(value: object) -> str:
    """Return the name of a value's type, as messages give it."""
    return "nothing (null)" if value is None else type(value).__name__
