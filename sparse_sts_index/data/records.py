"""A row of a file, with the place it came from; what its columns are; and limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sparse_sts_index._utils.text import check_unicode, printable
from sparse_sts_index.errors import DataError

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


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a csv or tsv file.

    A first row that holds one of `known` names (case does not matter) is a header. Without a header the columns are
    taken to be `positional`, provided the first row has just as many and a number in the last: without a number it
    could be a header of other names.
    """

    known: frozenset[str]
    positional: tuple[str, ...] = ()

    def are_in(self, row: Sequence[str]) -> bool:
        """Return whether `row` can be the first row of a file without a header."""
        return bool(self.positional) and len(row) == len(self.positional) and _is_number(row[-1])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_0 is ten in Python only


def required_text(record: Record, *names: str) -> str:
    """The text under the first of `names` that `record` has.

    Raises
    ------
    DataError
        None of the columns is there, or the value is not a string of valid Unicode.
    """
    for name in names:
        if name in record.values:
            value = record.values[name]
            if not isinstance(value, str):
                raise DataError(f"{record.where}: {name} must be a string, found {kind(value)}")
            check_unicode(value, name, record.where)
            return value
    raise missing_column(record, *names)


def missing_column(record: Record, *names: str) -> DataError:
    """The error of a row that has none of some columns."""
    return DataError(f"{record.where}: missing column {' or '.join(names)} (found: {some_names(record.values)})")


def some_names(names: Iterable[object]) -> str:
    """The first of some column names."""
    few = list(itertools.islice(names, _NAMES_SHOWN + 1))
    shown = [printable(str(name), 30) for name in few[:_NAMES_SHOWN]] + ["..."] * (len(few) > _NAMES_SHOWN)
    return ", ".join(shown) or "none"


def kind(value: object) -> str:
    """Return the name of a value's type, as messages give it."""
    return "nothing (null)" if value is None else type(value).__name__
