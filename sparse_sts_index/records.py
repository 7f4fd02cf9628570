"""Stream the rows of jsonl, csv, tsv, parquet and plain-text files, each with the place it came from.

Nothing is held but the row at hand (for parquet, one batch of rows), and nothing is guessed: bytes that are not
UTF-8, malformed JSON and rows of the wrong width raise :class:`~sparse_sts_index.errors.DataError` with the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from sparse_sts_index.errors import DataError

FORMATS = ("jsonl", "csv", "tsv", "txt", "parquet")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt"}
_SUFFIXES[".parquet"] = "parquet"
STDIN = "-"


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
    """How to read the columns of a csv or tsv file.

    A first row that holds one of `known` names (case does not matter) is a header. Without a header the columns are
    taken to be `positional`, provided the first row has just as many and a number in the last: without a number it
    could be a header of other names.
    """

    known: frozenset[str]
    positional: tuple[str, ...] = ()

    def are_in(self, row: Sequence[str]) -> bool:
        """Whether `row` can be the first row of a file without a header."""
        return bool(self.positional) and len(row) == len(self.positional) and _is_number(row[-1])


def file_format(path: str | Path) -> str | None:
    """The format that a path's suffix names (``.gz`` is looked through), or None."""
    path = Path(path)
    suffixes = path.suffixes[:-1] if path.suffix == ".gz" else path.suffixes
    return _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None


def read_records(source: str | Path, columns: Columns, format: str | None = None) -> Iterator[Record]:
    """Yield the rows of `source`, in order.

    Parameters
    ----------
    source : str or Path
        A file, or ``"-"`` for standard input. A name ending in ``.gz`` is decompressed.
    columns : Columns
        How to read csv and tsv files; jsonl, parquet and txt carry (or need) no column names.
    format : {"jsonl", "csv", "tsv", "txt", "parquet"}, optional
        Default: by the suffix. Standard input defaults to jsonl if its first character is ``{``, else to txt.

    Raises
    ------
    DataError
        Missing or unreadable file, unknown format, bytes that are not UTF-8, malformed JSON, a broken gzip or parquet
        file, no header where one is needed, a row of the wrong width.
    """
    if str(source) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed")
        yield from _read_stream(sys.stdin.buffer, "standard input", columns, format)
        return
    path = Path(source)
    name = str(source)
    if path.is_dir():
        raise DataError(f"{name} is a folder, not a file")
    if not path.exists():
        raise DataError(f"no such file: {name}")
    format = format or file_format(path)
    if format is None:
        raise DataError(f"{name}: unknown format; expected one of {', '.join('.' + f for f in FORMATS)} (or .gz of it)")
    with _read_errors(name):
        if format == "parquet":
            yield from _read_parquet(path, name)
        else:
            with path.open("rb") as file:
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
                yield from _read_stream(stream, name, columns, format)


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: broken gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error


def _read_stream(stream: IO[bytes], name: str, columns: Columns, format: str | None) -> Iterator[Record]:
    lines = _decoded_lines(stream, name)
    if format is None:
        first = next(lines, None)
        if first is None:
            return
        format = "jsonl" if first.lstrip().startswith("{") else "txt"
        lines = _chain_first(first, lines)
    if format == "jsonl":
        yield from _read_jsonl(lines, name)
    elif format == "txt":
        yield from _read_txt(lines, name)
    elif format in ("csv", "tsv"):
        yield from _read_delimited(lines, name, columns, format)
    else:
        raise DataError(f"{name}: {format} cannot be read from a stream")


def _chain_first(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def read_lines(lines: Iterable[bytes], name: str, format: str, first: int = 1) -> Iterator[Record]:
    """Yield the rows of some consecutive lines of a jsonl or txt file, as :func:`read_records` does.

    Parameters
    ----------
    lines : iterable of bytes
    name : str
        Of the file, for messages.
    format : {"jsonl", "txt"}
    first : int
        Number of the first line.
    """
    decoded = _decoded_lines(lines, name, first)
    yield from (_read_jsonl if format == "jsonl" else _read_txt)(decoded, name, first)


def _decoded_lines(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Lines with their ends, split at line feeds only, so that line numbers are those of every editor."""
    for number, line in enumerate(stream, first):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)") from error
        yield text


def _read_jsonl(lines: Iterator[str], name: str, first: int = 1) -> Iterator[Record]:
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: malformed JSON ({error.msg} at column {error.colno})") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
            raise DataError(f"{where}: malformed JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected one JSON object a line, found {type(value).__name__}")
        yield Record(where, number, value)


def _read_txt(lines: Iterator[str], name: str, first: int = 1) -> Iterator[Record]:
    for number, line in enumerate(lines, first):
        if text := line.strip():
            yield Record(f"{name}:{number}", number, {"id": str(number), "text": text})


def _read_delimited(lines: Iterator[str], name: str, columns: Columns, format: str) -> Iterator[Record]:
    # tsv as registered with IANA (and as MS MARCO and STSb use it) has no quoting: a quote is a character like others.
    if format == "tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, strict=True)
    header: tuple[str, ...] | None = None
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{name}:{number}: malformed {format} ({error})") from error
        if not any(cell.strip() for cell in row):
            continue
        where = f"{name}:{number}"
        if header is None:
            names = tuple(cell.strip().lower() for cell in row)
            if columns.known.intersection(names):
                if repeated := {name for name in names if name and names.count(name) > 1}:
                    raise DataError(f"{where}: the header has two columns {min(repeated)}")
                header = names
                continue
            if not columns.are_in(row):
                raise DataError(f"{where}: {_header_needed(columns, row)}")
            header = columns.positional
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns where {len(header)} are expected (an unquoted delimiter?)")
        yield Record(where, number, dict(zip(header, row, strict=True)))


def _header_needed(columns: Columns, row: Sequence[str]) -> str:
    found = ", ".join(cell.strip()[:30] for cell in row)
    without = f"; without a header, just {', '.join(columns.positional)}" if columns.positional else ""
    return f"missing column: no header with any of {', '.join(sorted(columns.known))} (found: {found}){without}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, name: str) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"{name}: row {number}", number, row)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not a readable parquet file ({str(error).splitlines()[0]})") from error


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
                raise DataError(f"{record.where}: {name} must be a string, found {_kind(value)}")
            check_unicode(value, name, record.where)
            return value
    raise DataError(
        f"{record.where}: missing column {' or '.join(names)} (found: {', '.join(map(str, record.values)) or 'none'})"
    )


def check_unicode(value: str, name: str, where: str) -> None:
    """Refuse unpaired surrogates, which JSON escapes can spell but no UTF-8 file (nor Lucene) can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {name} holds an unpaired surrogate at character {error.start + 1}") from error


def _kind(value: object) -> str:
    return "nothing (null)" if value is None else type(value).__name__
