"""A file of sentences that is read several times: its texts, some of its rows, and a copy of some, untouched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.files import atomic_bytes, os_errors_as, refuse_unwritable
from sparse_sts_index._utils.text import check_unicode, printable
from sparse_sts_index.data.documents import corpus_columns, corpus_path, document_text, is_read_once
from sparse_sts_index.data.fields import FIELD_TYPES, Field, FieldGuess, field_value, microseconds
from sparse_sts_index.data.parquet import copy_parquet
from sparse_sts_index.data.reading import STDIN, FileOptions, file_format, read_raw_records, read_records
from sparse_sts_index.data.records import Record
from sparse_sts_index.errors import DataError

_FIRST: Final = "first"
_LONGEST: Final = "longest"


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes
    ----------
    number : int
        Of its line, or in parquet of the row, from 1.
    id : str or None
        Its id, if it has one.
    text : str
    """

    number: int
    id: str | None
    text: str


class RowFile:
    """A collection's file, which needs no ids, and may have one twice.

    Parameters
    ----------
    source : str or Path
        A file of any format that :func:`~.data.documents.read_corpus` reads, or ``"sample"``.
    keep : str
        The row that is preferred among similar ones: ``"first"``; ``"longest"``, by the characters of its text; or that
        with the greatest value of a column of numbers, dates or booleans: its name, with ``:number``, ``:date`` or
        ``:boolean`` behind it where the values do not tell.
    **options
        Columns, format and delimiter, as for :func:`~.data.documents.read_corpus`.

    Attributes
    ----------
    path : Path

    Raises
    ------
    DataError
        What reading any of its rows raises; it has none, or is read only once (standard input, a pipe); `keep` is no
        column of it, or one of something else.
    """

    def __init__(self, source: str | Path, keep: str = _FIRST, **options: Unpack[FileOptions]) -> None:
        self.path = corpus_path(source)
        if is_read_once(source):
            name = "standard input" if str(source) == STDIN else printable(str(source))
            raise DataError(f"{name} is read once, and this needs it several times: write it to a file first")
        self._format, self._delimiter = options.get("format"), options.get("delimiter")
        self._kind = None if self._delimiter is not None else self._format or file_format(self.path)
        self._keep = keep
        fields = () if keep in (_FIRST, _LONGEST) else (_field(keep),)
        wanted = corpus_columns(options.get("columns"), fields)
        self._columns = dataclasses.replace(wanted, required=("text",))
        guesses = [FieldGuess(field, self._kind in ("jsonl", "parquet")) for field in fields]
        self._count, self._stamp = 0, None
        self._stamp = self._look()
        for record in self._records():
            self._row(record)
            for field, guess in zip(fields, guesses, strict=True):
                guess.see(record.values.get(field.column), record.where)
            self._count += 1
        if not self._count:
            raise DataError(f"{printable(str(source))}: no sentences in it")
        self._field = guesses[0].field() if guesses else None
        if self._field is not None and self._field.type in ("keyword", "keywords"):
            raise DataError(f"{self._field.column} is text; numbers, dates and booleans have an order to keep by")

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    @property
    def unit(self) -> str:
        """Return what rows are numbered by: ``"line"``, or in parquet ``"row"``."""
        return "row" if self._is_parquet else "line"

    def texts(self) -> Iterator[str]:
        """Yield the text of each row."""
        for record in self._records():
            yield document_text(record, self._columns)

    def preference(self) -> NDArray[np.float64] | None:
        """Return a number for each row, greater for the preferred one, nan where it has no value; None for the order.

        Returns
        -------
        ndarray of float64, shape (rows,), or None
        """
        if self._keep == _FIRST:
            return None
        return np.fromiter(map(self._number, self._records()), np.float64, self._count)

    def rows(self, wanted: Collection[int]) -> dict[int, Row]:
        """Return some rows, by their place from 0."""
        return {place: self._row(record) for place, record in enumerate(self._records()) if place in wanted}

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows."""
        return map(self._row, self._records())

    def copy(self, target: str | Path, wanted: NDArray[np.bool_]) -> None:
        """Copy the rows that are wanted, to the byte; the target takes its place whole, or stays as it was.

        Of a text file, what is no row is copied, too: its header, blank lines. Of a parquet file, values and schema are
        the same, with what is noted there beside it; its compression is not.

        Parameters
        ----------
        target : str or Path
            Compressed if its name ends in ``.gz``.
        wanted : ndarray of bool, shape (rows,)

        Raises
        ------
        DataError
            As :meth:`check_target`; it cannot be written, or the file has changed.
        """
        self.check_target(target)
        with atomic_bytes(target) as file:
            if self._is_parquet:
                copy_parquet(self.path, printable(str(self.path)), file, wanted)
            else:
                self._copy_lines(file, wanted)
            self._look()

    def check_target(self, target: str | Path) -> None:
        """Refuse what :meth:`copy` cannot write to.

        Raises
        ------
        DataError
            It is this file itself, has another format by its name, or cannot be written.
        """
        target = Path(target)
        name = printable(str(target))
        if target.exists() and target.samefile(self.path):
            raise DataError(f"{name} is the input; write to another file")
        other = file_format(target)
        if self._is_parquet and target.suffix.lower() == ".gz":
            raise DataError(f"{name}: a parquet file is compressed as it is; leave out .gz")
        if other not in (None, self._kind) and (self._kind is not None or other in ("jsonl", "parquet")):
            own = self._kind or "csv"
            raise DataError(f"{name}: rows are copied as they are, so it has to be {own} as well, not {other}")
        refuse_unwritable(target)

    def _copy_lines(self, target: IO[bytes], wanted: NDArray[np.bool_]) -> None:
        rows = read_raw_records(self.path, self._columns, self._format, self._delimiter)
        for place, (before, _, own) in enumerate(rows):
            target.write(before)
            if wanted[place : place + 1].any():
                target.write(own)

    def _look(self) -> tuple[int, int, int]:
        """Return what tells this file from what it may become, and refuse it if it has."""
        with os_errors_as(DataError, f"cannot read {printable(str(self.path))}"):
            found = self.path.stat()
        stamp = found.st_ino, found.st_size, found.st_mtime_ns
        if self._stamp not in (None, stamp):
            raise DataError(f"{printable(str(self.path))} has changed while it was read")
        return stamp

    @property
    def _is_parquet(self) -> bool:
        return self._kind == "parquet"

    def _records(self) -> Iterator[Record]:
        self._look()
        yield from read_records(self.path, self._columns, self._format, self._delimiter)
        self._look()

    def _row(self, record: Record) -> Row:
        name = self._columns.name_of("id", record.values)
        value = None if name is None else record.values[name]
        id_ = None if value is None else str(value)
        if id_ is not None:
            check_unicode(id_, str(name), record.where)
        return Row(record.number, id_, document_text(record, self._columns))

    def _number(self, record: Record) -> float:
        if self._field is None or self._field.type is None:
            return len(document_text(record, self._columns))
        value = field_value(record.values.get(self._field.column), self._field.type, self._field.name, record.where)
        if isinstance(value, datetime):
            return microseconds(value)
        return value if isinstance(value, float | bool) else math.nan


def _field(keep: str) -> Field:
    """Return the field of a column, with its type if that is said."""
    column, colon, type_ = keep.rpartition(":")
    if not colon or type_ not in FIELD_TYPES:
        return Field.of_column(keep)
    return dataclasses.replace(Field.of_column(column), type=type_)
