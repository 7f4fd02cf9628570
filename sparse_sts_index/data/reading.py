"""Stream the rows of jsonl, csv, tsv, parquet and plain-text files, each with the place it came from.

Nothing is held but the row at hand (for parquet, one batch of rows), and nothing is guessed: bytes that are not
UTF-8, malformed JSON and rows of the wrong width raise :class:`~sparse_sts_index.errors.DataError` with the line. So do
rows longer than :data:`~.data.records.MAX_ROW_BYTES`: a gzip of one endless line is a few megabytes, and would fill any
memory.
"""

from __future__ import annotations

import codecs
import functools
import gzip
import itertools
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypedDict, cast

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.columns import ROW_NUMBER, Columns
from sparse_sts_index.data.parquet import read_parquet
from sparse_sts_index.data.records import MAX_ROW_BYTES, Record
from sparse_sts_index.data.text_formats import DELIMITERS, decoded_lines, read_delimited, read_jsonl, read_txt
from sparse_sts_index.errors import DataError

FORMATS = ("jsonl", "csv", "tsv", "txt", "parquet")
_SUFFIXES = {f".{format}": format for format in FORMATS} | {".ndjson": "jsonl", ".json": "jsonl"}
STDIN = "-"


class TableOptions(TypedDict, total=False):
    """The keyword arguments of :func:`~.data.pairs.load_pairs` that say how to read a file."""

    columns: Mapping[str, str | int] | None
    delimiter: str | None


class FileOptions(TableOptions, total=False):
    """The keyword arguments of :func:`~.data.documents.read_corpus` that say how to read a file."""

    format: str | None


def file_format(path: str | Path) -> str | None:
    """The format that a path's suffix names (``.gz`` is looked through), or None."""
    path = Path(path)
    suffixes = path.suffixes[:-1] if path.suffix.lower() == ".gz" else path.suffixes
    return _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None


def read_records(
    source: str | Path, columns: Columns, format: str | None = None, delimiter: str | None = None
) -> Iterator[Record]:
    """Yield the rows of `source`, in order.

    Parameters
    ----------
    source : str or Path
        A file, or ``"-"`` for standard input. A name ending in ``.gz`` is decompressed.
    columns : Columns
        The columns to read.
    format : {"jsonl", "csv", "tsv", "txt", "parquet"}, optional
        Default: by the suffix. Standard input defaults to jsonl if its first character is ``{``, else to txt.
    delimiter : str, optional
        One character, or its name (``"tab"``, ``"comma"``, ``"semicolon"``, ``"pipe"``, ``"space"``), between the
        columns of a text file, which is then read as csv, or with tabs as tsv: without quotes, unless `format` is
        ``"csv"``.

    Raises
    ------
    DataError
        Missing or unreadable file, unknown format, bytes that are not UTF-8, malformed JSON or a name twice in one of
        its objects, a broken gzip or parquet file, no header where one is needed, a row of the wrong width or of more
        than 16 MiB, a csv field of more than 131,072 characters, an unknown delimiter.
    """
    separator = _delimiter(delimiter)
    if str(source) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed")
        yield from _read_lines(_raw_lines(sys.stdin.buffer), "standard input", columns, format, separator)
        return
    with _read_errors(printable(str(source))):
        path = Path(source)
        if _checked_format(path, format, separator) == "parquet" and separator is None:
            yield from read_parquet(path, printable(str(source)), columns)
        else:
            with _opened(path) as lines:
                yield from _read_lines(lines, printable(str(source)), columns, format, separator, file_format(path))


def read_raw_records(
    source: str | Path, columns: Columns, format: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[bytes, Record | None, bytes]]:
    """Yield the rows of a text file that is not standard input, with the bytes that they were read from.

    All the bytes, one after the other, are the file's (decompressed).

    Yields
    ------
    bytes
        What stands before a row: a byte order mark, a header, blank lines; mostly nothing.
    Record or None
        The row; None at last, for what stands behind the last row.
    bytes
        The row's own lines, with their ends.

    Raises
    ------
    DataError
        As :func:`read_records`.
    """
    separator = _delimiter(delimiter)
    held: list[bytes] = []
    past = 0  # lines before those held

    def recorded(lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            held.append(line)
            yield line

    name = printable(str(source))
    with _read_errors(name):
        path = Path(source)
        _checked_format(path, format, separator)
        with _opened(path) as lines:
            for record in _read_lines(recorded(lines), name, columns, format, separator, file_format(path)):
                count = record.number - 1 - past
                before, own = b"".join(held[:count]), b"".join(held[count:])
                if past == count == 0 and own.startswith(codecs.BOM_UTF8):
                    before, own = codecs.BOM_UTF8, own.removeprefix(codecs.BOM_UTF8)
                yield before, record, own
                past += len(held)
                held.clear()
        yield b"".join(held), None, b""


def _checked_format(path: Path, format: str | None, delimiter: str | None) -> str | None:
    """Return the format of a file that is there; None, or any text format, where a delimiter says how it is read."""
    name = printable(str(path))
    if path.is_dir():
        raise DataError(f"{name} is a folder, not a file")
    if not path.exists():
        raise DataError(f"no such file: {name}")
    format = format or file_format(path)
    if format is None and delimiter is None:
        expected = ", ".join("." + known for known in FORMATS)
        raise DataError(f"{name}: unknown format; expected one of {expected} (or .gz of it), or --format")
    return format


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes]]:
    with path.open("rb") as file:
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix.lower() == ".gz" else file
        yield _raw_lines(stream)


def _raw_lines(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(functools.partial(stream.readline, MAX_ROW_BYTES + 1), b"")


def _delimiter(given: str | None) -> str | None:
    """Return the character that separates columns, or None where the format says which.

    Raises
    ------
    DataError
        It is not one character, or one that csv has another use for.
    """
    separator = None if given is None else "\t" if given == "\\t" else DELIMITERS.get(given, given)
    if separator is not None and (len(separator) != 1 or separator in '"\r\n\0\ufeff' or separator.isalnum()):
        known = ", ".join(DELIMITERS)
        raise DataError(f"delimiter {printable(separator, 20)!r}: expected one character, or one of {known}")
    return separator


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: broken gzip file ({printable(str(error))})") from error
    except OSError as error:
        reason = printable((error.strerror or str(error)).strip())
        raise DataError(f"cannot read {name}: {reason}") from error


def _read_lines(
    raw: Iterator[bytes],
    name: str,
    columns: Columns,
    format: str | None,
    delimiter: str | None,
    by_suffix: str | None = None,
) -> Iterator[Record]:
    lines, quoted, format = decoded_lines(raw, name), format == "csv" or None, format or by_suffix
    if delimiter is not None:
        if format in ("jsonl", "parquet"):
            raise DataError(f"{name}: {format} has no delimiter")
        yield from read_delimited(lines, name, columns, delimiter, quoted=quoted)
        return
    if format is None:
        first = next(lines, None)
        if first is None:
            return
        format = "jsonl" if first.lstrip().startswith("{") else "txt"
        lines = itertools.chain([first], lines)
    if format == "jsonl":
        yield from read_jsonl(lines, name)
    elif format == "txt":
        if columns.more or columns.chosen.keys() - {"id"} or columns.chosen.get("id", ROW_NUMBER) != ROW_NUMBER:
            raise DataError(f"{name}: txt has no columns; if this is a table, say what separates them: --delimiter tab")
        first = next(lines, "")
        if "\r" in first.strip() and not first.endswith("\n"):  # the only line
            raise DataError(f"{name}: its lines end in CR alone; end them in LF (tr '\\r' '\\n')")
        yield from read_txt(itertools.chain([first], lines), name)
    elif format in ("csv", "tsv"):
        yield from read_delimited(lines, name, columns, "\t" if format == "tsv" else ",")
    else:
        raise DataError(f"{name}: {format} cannot be read from a stream")
