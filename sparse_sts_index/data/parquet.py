"""Rows of parquet files, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.columns import Columns
from sparse_sts_index.data.records import MAX_ROW_BYTES, MAX_ROW_MIB, Record
from sparse_sts_index.errors import DataError

_BATCH = 1024  # rows of a parquet file at a time
_COPIED = 64  # rows at a time, of all columns: each value may have 16 MiB
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 1 << 26  # of those written together, at most
_WIDEST = 1024  # bytes of values that are all of one size, of which a batch is held whatever they are


def read_parquet(path: Path, name: str, columns: Columns) -> Iterator[Record]:
    """Yield the rows of a parquet file; see :func:`.data.reading.read_records`."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        wanted = [column for column in dict.fromkeys(schema.names) if columns.reads(column)]
        columns.check(schema.names, name)
        columns.check_more(schema.names, name)
        if repeated := [column for column in wanted if schema.names.count(column) > 1]:
            raise DataError(f"{name}: two columns {repeated[0]}")
        if columns.more is None:  # of all columns, those that can be fields
            needed = [column for column in wanted if column in columns.known]
            wanted = [c for c in wanted if c in needed or _is_plain(schema.field(c).type)]
        for column in wanted:
            kind = schema.field(column).type
            if not _is_plain(kind) or (_is_list(kind) and not columns.is_more(column)):
                found = printable(str(kind), 50)
                raise DataError(f"{name}: column {column} is {found}, neither text nor a number")
        # As dictionaries: a file of some kilobytes may say a thousand times a text of a gigabyte that it holds once.
        texts = [column for column in wanted if _is_text(schema.field(column).type)]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                longest = max(map(_longest, batch.columns))
                if longest > MAX_ROW_BYTES:
                    raise DataError(
                        f"{name}: a value of more than {MAX_ROW_MIB} MiB, in row {number + 1} or one of the next"
                    )
                some = max(1, min(_BATCH, 4 * MAX_ROW_BYTES // max(1, longest)))
                for start in range(0, batch.num_rows, some):
                    parts = [_decoded(column.slice(start, some)) for column in batch.columns]
                    for row in pyarrow.RecordBatch.from_arrays(parts, names=batch.schema.names).to_pylist():
                        number += 1
                        yield Record(f"{name}: row {number}", number, row)
    except (pyarrow.ArrowException, ValueError, OverflowError, KeyError) as error:  # dates that Python has not, too
        raise _unreadable(name, error) from error


def copy_parquet(path: Path, name: str, target: IO[bytes], wanted: NDArray[np.bool_]) -> None:
    """Write the rows of a parquet file that are wanted, with its schema.

    Parameters
    ----------
    path : Path
    name : str
        Of the file, for messages.
    target : file
    wanted : ndarray of bool, shape (rows,)

    Raises
    ------
    DataError
        It cannot be read.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        with pyarrow.parquet.ParquetWriter(target, schema) as writer:
            for group in _groups(file, name, wanted):
                writer.write_table(pyarrow.Table.from_batches(group, schema))


def _groups(file: Any, name: str, wanted: NDArray[np.bool_]) -> Iterator[list[Any]]:
    """Batches of the rows wanted, in lists of a bounded size."""
    held, rows, size, start = [], 0, 0, 0
    for batch in _batches(file, name):
        for part in _chosen(batch, wanted[start : start + batch.num_rows]):
            held.append(part)
            rows, size = rows + part.num_rows, size + part.nbytes
        start += batch.num_rows
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield held
            held, rows, size = [], 0, 0
    yield held


def _batches(file: Any, name: str) -> Iterator[Any]:
    import pyarrow

    try:
        yield from file.iter_batches(batch_size=_COPIED)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    reason = printable((str(error).splitlines() or [type(error).__name__])[0])
    return DataError(f"{name}: not a readable parquet file ({reason})")


def _chosen(batch: Any, wanted: NDArray[np.bool_]) -> Iterator[Any]:
    """Yield the rows of an Arrow batch that are wanted, in one piece or several."""
    import pyarrow

    if wanted.any():
        try:
            yield batch.filter(pyarrow.array(wanted))
        except pyarrow.ArrowNotImplementedError:  # string views, as yet
            edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0))
            for begin, end in edges.reshape(-1, 2).tolist():
                yield batch.slice(begin, end - begin)


def _longest(column: Any) -> int:
    """Bytes of the longest value of an Arrow array of texts, or what would be one; 0 for others."""
    import pyarrow
    import pyarrow.compute

    values = column.dictionary if isinstance(column, pyarrow.DictionaryArray) else column
    if _is_list(values.type):
        most = pyarrow.compute.max(pyarrow.compute.list_value_length(values)).as_py() or 0
        return most * max(1, _longest(pyarrow.compute.list_flatten(values)))
    if not _is_text(values.type):
        return 0
    return pyarrow.compute.max(pyarrow.compute.binary_length(values)).as_py() or 0


def _is_text(kind: Any) -> bool:
    """Return whether values are texts, or bytes that may be, of any length."""
    import pyarrow.types

    if pyarrow.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    texts = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pyarrow.types, f"is_{name}")(kind) for name in texts)


def _is_list(kind: Any) -> bool:
    import pyarrow.types

    return bool(pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind))


def _is_plain(kind: Any) -> bool:
    """Return whether values are texts, lists of them, or of a small fixed size; the size of others is not checked."""
    import pyarrow

    if _is_list(kind):
        return _is_text(kind.value_type)
    if pyarrow.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if pyarrow.types.is_fixed_size_binary(kind):
        return int(kind.byte_width) <= _WIDEST
    fixed = pyarrow.types.is_null, pyarrow.types.is_primitive, pyarrow.types.is_decimal
    return _is_text(kind) or kind == pyarrow.uuid() or any(is_fixed(kind) for is_fixed in fixed)


def _decoded(column: Any) -> Any:
    import pyarrow

    return column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column
