"""A file of sentences that is read several times: its texts, some of its rows, and a copy of some, untouched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.files import atomic_bytes, refuse_folder
from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.documents import corpus_columns, corpus_path, document_text
from sparse_sts_index.data.fields import FieldGuess, field_value, microseconds, parse_fields
from sparse_sts_index.data.reading import STDIN, FileOptions, file_format, read_raw_records, read_records
from sparse_sts_index.data.records import Record
from sparse_sts_index.errors import DataError

_FIRST: Final = "first"
_LONGEST: Final = "longest"
_BATCH = 1024  # rows of a parquet file at a time
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 1 << 26  # of those written together, at most


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
        with the greatest value of a column of numbers, dates or booleans, named as for
        :func:`~.data.fields.parse_fields`.
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
        if str(source) == STDIN or self.path.is_fifo() or self.path.is_char_device():
            name = "standard input" if str(source) == STDIN else printable(str(source))
            raise DataError(f"{name} is read once, and this needs it several times: write it to a file first")
        self._format, self._delimiter = options.get("format"), options.get("delimiter")
        self._keep = keep
        fields = () if keep in (_FIRST, _LONGEST) else parse_fields(keep)
        if len(fields) > 1:
            raise DataError(f"one column can say what to keep, not {len(fields)}")
        wanted = corpus_columns(options.get("columns"), fields)
        self._columns = dataclasses.replace(wanted, required=("text",))
        guesses = [FieldGuess(field, self._is_typed) for field in fields]
        self._count = 0
        for record in self._records():
            document_text(record, self._columns)
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
            count = self._copy_parquet(file, wanted) if self._is_parquet else self._copy_lines(file, wanted)
            if count != self._count:
                raise DataError(f"{printable(str(self.path))} has changed while it was read")

    def check_target(self, target: str | Path) -> None:
        """Refuse what :meth:`copy` cannot write to.

        Raises
        ------
        DataError
            It is this file itself, or a folder, or in none, or has another format by its name.
        """
        refuse_folder(target)
        target = Path(target)
        name = printable(str(target))
        if target.exists() and target.samefile(self.path):
            raise DataError(f"{name} is the input; write to another file")
        own, other = self._format or file_format(self.path), file_format(target)
        if self._is_parquet and target.suffix.lower() == ".gz":
            raise DataError(f"{name}: a parquet file is compressed as it is; leave out .gz")
        if None not in (own, other) and own != other and self._delimiter is None:
            raise DataError(f"{name}: rows are copied as they are, so it has to be {own} as well, not {other}")

    def _copy_lines(self, target: IO[bytes], wanted: NDArray[np.bool_]) -> int:
        count = 0
        for before, record, own in read_raw_records(self.path, self._columns, self._format, self._delimiter):
            target.write(before)
            if record is not None:
                if count < len(wanted) and wanted[count]:
                    target.write(own)
                count += 1
        return count

    def _copy_parquet(self, target: IO[bytes], wanted: NDArray[np.bool_]) -> int:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
                with pyarrow.parquet.ParquetWriter(target, schema) as writer:
                    if count == len(wanted):
                        for group in _groups(file, wanted):
                            writer.write_table(pyarrow.Table.from_batches(group, schema))
        except pyarrow.ArrowException as error:
            reason = printable(str(error).splitlines()[0])
            raise DataError(f"{printable(str(self.path))}: not a readable parquet file ({reason})") from error
        return int(count)

    @property
    def _is_parquet(self) -> bool:
        return self._delimiter is None and (self._format or file_format(self.path)) == "parquet"

    @property
    def _is_typed(self) -> bool:
        return self._delimiter is None and (self._format or file_format(self.path)) in ("jsonl", "parquet")

    def _records(self) -> Iterator[Record]:
        return read_records(self.path, self._columns, self._format, self._delimiter)

    def _row(self, record: Record) -> Row:
        name = self._columns.name_of("id", record.values)
        id_ = None if name is None or record.values[name] is None else str(record.values[name])
        return Row(record.number, id_, document_text(record, self._columns))

    def _number(self, record: Record) -> float:
        if self._field is None or self._field.type is None:
            return len(document_text(record, self._columns))
        value = field_value(record.values.get(self._field.column), self._field.type, self._field.name, record.where)
        if isinstance(value, datetime):
            return microseconds(value)
        return value if isinstance(value, float | bool) else math.nan


def _groups(file: Any, wanted: NDArray[np.bool_]) -> Iterator[list[Any]]:
    """Batches of the rows wanted, in lists of a bounded size."""
    import pyarrow

    held, start = [], 0
    for batch in file.iter_batches(batch_size=_BATCH):
        held.append(batch.filter(pyarrow.array(wanted[start : start + batch.num_rows])))
        start += batch.num_rows
        if sum(part.num_rows for part in held) >= _GROUP_ROWS or sum(part.nbytes for part in held) >= _GROUP_BYTES:
            yield held
            held = []
    if held:
        yield held
