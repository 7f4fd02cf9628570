"""Rows of jsonl, txt, csv and tsv files, line by line."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.columns import Columns
from sparse_sts_index.data.records import MAX_ROW_BYTES, MAX_ROW_MIB, Record
from sparse_sts_index.errors import DataError


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
    decoded = decoded_lines(lines, name, first)
    yield from (read_jsonl if format == "jsonl" else read_txt)(decoded, name, first)


def decoded_lines(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Lines with their ends, split at line feeds only, so that line numbers are those of every editor."""
    for number, line in enumerate(stream, first):
        if len(line) > MAX_ROW_BYTES:
            raise DataError(f"{name}:{number}: a line of more than {MAX_ROW_MIB} MiB")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            utf16 = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            found = "UTF-16, not UTF-8" if utf16 else f"not UTF-8 (byte {error.start + 1} of the line)"
            raise DataError(f"{name}:{number}: {found}") from error
        if number == 1 and 4 * line.count(b"\0") >= len(line) > 1:
            raise DataError(f"{name}:1: not text in UTF-8: it is full of NUL characters, as UTF-16 is")
        yield text


class _NameTwiceError(Exception):
    """A name occurs twice in one JSON object."""


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _NameTwiceError(next(name for name, count in counts.items() if count > 1))
    return values


_ARRAY = "expected one JSON object a line, found an array (jq -c '.[]' FILE writes one object a line)"
_JSON = json.JSONDecoder(object_pairs_hook=_json_object)


def read_jsonl(lines: Iterator[str], name: str, first: int = 1) -> Iterator[Record]:
    """Yield one row per JSON object; see :func:`.data.reading.read_records`."""
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = _JSON.decode(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            if line.lstrip().startswith("["):  # of which a line may be the first of many
                raise DataError(f"{where}: {_ARRAY}") from error
            raise DataError(
                f"{where}: malformed JSON ({error.msg} at column {error.colno}); jsonl has one object a line"
            ) from error
        except _NameTwiceError as error:
            raise DataError(f"{where}: the name {printable(str(error))} comes twice in one JSON object") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
            raise DataError(f"{where}: malformed JSON ({error})") from error
        if isinstance(value, list):
            raise DataError(f"{where}: {_ARRAY}")
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected one JSON object a line, found {type(value).__name__}")
        yield Record(where, number, value)


def read_txt(lines: Iterator[str], name: str, first: int = 1) -> Iterator[Record]:
    """Yield one row per line that is not blank, with the line's number as its id."""
    for number, line in enumerate(lines, first):
        if text := line.strip():
            yield Record(f"{name}:{number}", number, {"id": str(number), "text": text})


#: Its rows have as many, or two more.
_STS_BENCHMARK_COLUMNS = 7


def read_delimited(
    lines: Iterator[str], name: str, columns: Columns, delimiter: str, *, quoted: bool | None = None
) -> Iterator[Record]:
    """Yield the rows of a csv or tsv file; see :func:`.data.reading.read_records`.

    Parameters
    ----------
    lines : iterator of str
        With their ends.
    name : str
        Of the file, for messages.
    columns : Columns
    delimiter : str
        One character.
    quoted : bool, optional
        Whether cells may be in quotes, as in csv. Default: unless the delimiter is a tab.
    """
    first = next(lines, None)
    if first is None:
        return
    hint = _delimiter_hint(first, delimiter)
    lines = itertools.chain([first], lines)
    quoted = delimiter != "\t" if quoted is None else quoted
    rows = _rows_of_csv(lines, name, delimiter, hint) if quoted else _rows_of_tsv(lines)
    header: tuple[str, ...] | None = None
    for number, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{name}:{number}"
        if header is None:
            header, is_row = _header(row, columns, where, hint)
            if not is_row:
                continue
        if len(row) == len(header):
            yield Record(where, number, dict(zip(header, row, strict=True)))
        elif columns.by_number and not quoted and len(header) >= _STS_BENCHMARK_COLUMNS:
            columns.check(_numbered(row), where)
            yield Record(where, number, dict(zip(_numbered(row), row, strict=True)))
        else:
            raise DataError(
                f"{where}: {len(row)} columns where {len(header)} are expected (an unquoted delimiter?){hint}"
            )


def _numbered(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(str, range(1, len(row) + 1)))


def _header(row: Sequence[str], columns: Columns, where: str, hint: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of the columns, those of interest as the reader spells them, and whether `row` is one of data.

    Raises
    ------
    DataError
        The names are missing, or some are there twice.
    """
    names = [cell.strip() for cell in row]
    if columns.by_number:
        header = _numbered(row)
        columns.check(header, where, hint)
        columns.check_more(header, where)
        columns.check_no_header(names, where)
        return header, True
    # Names to the letter come before those in another case.
    spelled = {name.lower(): name for name in columns.known.difference(names)}
    if not columns.known.intersection(names) and not spelled.keys() & {name.lower() for name in names}:
        if columns.are_in(row):
            return columns.positional, True
        raise columns.without_header(names, where, hint)
    header = tuple(name if name in columns.known else spelled.get(name.lower(), name) for name in names)
    if repeated := {name for name in header if name and header.count(name) > 1}:
        raise DataError(f"{where}: the header has two columns {printable(min(repeated))}")
    columns.check(header, where, hint if len(header) == 1 else "")
    columns.check_more(header, where)
    return header, False


#: Delimiters by the names that ``--delimiter`` and ``delimiter=`` take.
DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def _delimiter_hint(line: str, delimiter: str) -> str:
    """Return what to say of a first line that another delimiter would cut into more columns; mostly nothing."""
    counts = {name: line.count(character) for name, character in DELIMITERS.items() if name != "space"}
    likely = max(counts, key=lambda name: counts[name])
    if DELIMITERS[likely] == delimiter or counts[likely] <= line.count(delimiter):
        return ""
    return f"; its columns seem to be separated by {likely}s: add --delimiter {likely}"


def _rows_of_tsv(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows with their lines. tsv as registered with IANA (and as MS MARCO and STSb use it) has no quoting."""
    for number, line in enumerate(lines, 1):
        yield number, line.removesuffix("\n").removesuffix("\r").split("\t")


def _rows_of_csv(lines: Iterator[str], name: str, delimiter: str, hint: str) -> Iterator[tuple[int, list[str]]]:
    length = 0

    def bounded() -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length > MAX_ROW_BYTES:
                raise DataError(f"{name}:{number}: a row of more than {MAX_ROW_MIB} MiB (a quote that is not closed?)")
            yield line

    reader = csv.reader(bounded(), delimiter=delimiter, strict=True)
    while True:
        number, length = reader.line_num + 1, 0
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error)
            if "field limit" in reason:
                reason = f"a field of more than {csv.field_size_limit():,} characters: a quote not closed, or for jsonl"
            elif "new-line" in reason:
                reason = "a carriage return outside quotes"
            raise DataError(f"{name}:{number}: malformed csv ({reason}){hint}") from error
        yield number, row
