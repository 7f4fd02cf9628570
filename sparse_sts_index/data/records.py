"""Stream the rows of jsonl, csv, tsv, parquet and plain-text files, each with the place it came from.

Nothing is held but the row at hand (for parquet, one batch of rows), and nothing is guessed: bytes that are not
UTF-8, malformed JSON and rows of the wrong width raise :class:`~sparse_sts_index.errors.DataError` with the line. So do
rows longer than :data:`MAX_ROW_BYTES`: a gzip of one endless line is a few megabytes, and would fill any memory.
"""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import json
import re
import sys
import zlib
from collections import Counter
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
#: The longest line of a jsonl, tsv or txt file, or row of a csv file: three times *War and Peace*.
MAX_ROW_BYTES = 16 << 20
_MIB = MAX_ROW_BYTES >> 20
_NAMES_SHOWN = 10
_BATCH = 1024  # rows of a parquet file at a time
#: What may not stand in a message as it is: controls, ends of lines, what turns the direction of text, surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
        Missing or unreadable file, unknown format, bytes that are not UTF-8, malformed JSON or a name twice in one of
        its objects, a broken gzip or parquet file, no header where one is needed, a row of the wrong width or of more
        than 16 MiB, a csv field of more than 131,072 characters.
    """
    if str(source) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed")
        yield from _read_stream(sys.stdin.buffer, "standard input", columns, format)
        return
    path = Path(source)
    name = printable(str(source))
    with _read_errors(name):
        if path.is_dir():
            raise DataError(f"{name} is a folder, not a file")
        if not path.exists():
            raise DataError(f"no such file: {name}")
        format = format or file_format(path)
        if format is None:
            expected = ", ".join("." + known for known in FORMATS)
            raise DataError(f"{name}: unknown format; expected one of {expected} (or .gz of it)")
        if format == "parquet":
            yield from _read_parquet(path, name, columns)
        else:
            with path.open("rb") as file:
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
                yield from _read_stream(stream, name, columns, format)


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: broken gzip file ({printable(str(error))})") from error
    except OSError as error:
        reason = printable((error.strerror or str(error)).strip())
        raise DataError(f"cannot read {name}: {reason}") from error


def _read_stream(stream: IO[bytes], name: str, columns: Columns, format: str | None) -> Iterator[Record]:
    lines = _decoded_lines(iter(functools.partial(stream.readline, MAX_ROW_BYTES + 1), b""), name)
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
        if len(line) > MAX_ROW_BYTES:
            raise DataError(f"{name}:{number}: a line of more than {_MIB} MiB")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)") from error
        yield text


class _NameTwiceError(Exception):
    """Which of the two values counts is anybody's guess."""


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _NameTwiceError(next(name for name, count in counts.items() if count > 1))
    return values


_JSON = json.JSONDecoder(object_pairs_hook=_json_object)


def _read_jsonl(lines: Iterator[str], name: str, first: int = 1) -> Iterator[Record]:
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = _JSON.decode(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: malformed JSON ({error.msg} at column {error.colno})") from error
        except _NameTwiceError as error:
            raise DataError(f"{where}: the name {printable(str(error))} comes twice in one JSON object") from error
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
    header: tuple[str, ...] | None = None
    for number, row in (_rows_of_tsv if format == "tsv" else functools.partial(_rows_of_csv, name=name))(lines):
        if not any(cell.strip() for cell in row):
            continue
        where = f"{name}:{number}"
        if header is None:
            names = tuple(cell.strip().lower() for cell in row)
            if columns.known.intersection(names):
                if repeated := {name for name in names if name and names.count(name) > 1}:
                    raise DataError(f"{where}: the header has two columns {printable(min(repeated))}")
                header = names
                continue
            if not columns.are_in(row):
                raise DataError(f"{where}: {_header_needed(columns, row)}")
            header = columns.positional
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns where {len(header)} are expected (an unquoted delimiter?)")
        yield Record(where, number, dict(zip(header, row, strict=True)))


def _rows_of_tsv(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows with their lines. tsv as registered with IANA (and as MS MARCO and STSb use it) has no quoting."""
    for number, line in enumerate(lines, 1):
        yield number, line.removesuffix("\n").removesuffix("\r").split("\t")


def _rows_of_csv(lines: Iterator[str], name: str) -> Iterator[tuple[int, list[str]]]:
    length = 0

    def bounded() -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length > MAX_ROW_BYTES:
                raise DataError(f"{name}:{number}: a row of more than {_MIB} MiB (a quote that is not closed?)")
            yield line

    reader = csv.reader(bounded(), strict=True)
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
            raise DataError(f"{name}:{number}: malformed csv ({reason})") from error
        yield number, row


def _header_needed(columns: Columns, row: Sequence[str]) -> str:
    found = _names(cell.strip() for cell in row)
    without = f"; without a header, just {', '.join(columns.positional)}" if columns.positional else ""
    return f"missing column: no header with any of {', '.join(sorted(columns.known))} (found: {found}){without}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_0 is ten in Python only


def _read_parquet(path: Path, name: str, columns: Columns) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        wanted = [column for column in dict.fromkeys(schema.names) if column in columns.known]
        if not wanted:
            known = ", ".join(sorted(columns.known))
            raise DataError(f"{name}: missing column: none of {known} (found: {_names(schema.names)})")
        if repeated := [column for column in wanted if schema.names.count(column) > 1]:
            raise DataError(f"{name}: two columns {repeated[0]}")
        for column in wanted:
            if not _is_plain(schema.field(column).type):
                found = printable(str(schema.field(column).type), 50)
                raise DataError(f"{name}: column {column} is {found}, neither text nor a number")
        # As dictionaries: a file of some kilobytes may say a thousand times a text of a gigabyte that it holds once.
        texts = [column for column in wanted if _is_text(schema.field(column).type)]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                longest = max(map(_longest, batch.columns))
                if longest > MAX_ROW_BYTES:
                    raise DataError(f"{name}: a value of more than {_MIB} MiB, in row {number + 1} or one of the next")
                some = max(1, min(_BATCH, 4 * MAX_ROW_BYTES // max(1, longest)))
                for start in range(0, batch.num_rows, some):
                    parts = [_decoded(column.slice(start, some)) for column in batch.columns]
                    for row in pyarrow.RecordBatch.from_arrays(parts, names=batch.schema.names).to_pylist():
                        number += 1
                        yield Record(f"{name}: row {number}", number, row)
    except (pyarrow.ArrowException, ValueError, OverflowError, KeyError) as error:  # dates that Python has not, too
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise DataError(f"{name}: not a readable parquet file ({reason})") from error


def _longest(column: Any) -> int:
    """Bytes of the longest value of an Arrow array of texts, or what would be one; 0 for others."""
    import pyarrow
    import pyarrow.compute

    values = column.dictionary if isinstance(column, pyarrow.DictionaryArray) else column
    if not _is_text(values.type):
        return 0
    return pyarrow.compute.max(pyarrow.compute.binary_length(values)).as_py() or 0


def _is_text(kind: Any) -> bool:
    import pyarrow

    return any(is_text(kind) for is_text in (pyarrow.types.is_string, pyarrow.types.is_large_string))


def _is_plain(kind: Any) -> bool:
    """Whether values are texts or of a fixed size: what others may grow to is not looked at."""
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    fixed = pyarrow.types.is_null, pyarrow.types.is_primitive, pyarrow.types.is_decimal
    return _is_text(kind) or any(is_fixed(kind) for is_fixed in fixed)


def _decoded(column: Any) -> Any:
    import pyarrow

    return column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column


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
    return DataError(f"{record.where}: missing column {' or '.join(names)} (found: {_names(record.values)})")


def printable(text: str, most: int = 200) -> str:
    """A stranger's text as a message may show it: no control characters, ends of lines or surrogates, and an end."""
    shown = text if len(text) <= most else text[:most] + "..."
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), shown)


def _names(names: Iterable[object]) -> str:
    """The first of some column names."""
    few = list(itertools.islice(names, _NAMES_SHOWN + 1))
    shown = [printable(str(name), 30) for name in few[:_NAMES_SHOWN]] + ["..."] * (len(few) > _NAMES_SHOWN)
    return ", ".join(shown) or "none"


def check_unicode(value: str, name: str, where: str) -> None:
    """Refuse unpaired surrogates, which JSON escapes can spell but no UTF-8 file (nor Lucene) can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {name} holds an unpaired surrogate at character {error.start + 1}") from error


def kind(value: object) -> str:
    """What a message calls a value that is of the wrong type."""
    return "nothing (null)" if value is None else type(value).__name__
