"""Fields beside the vectors, a row a document: a stream of Arrow record batches, appended to and checked likewise.

Importing this imports pyarrow, which takes a while: those who may have no fields import it when they do.

``fields.arrows`` is Arrow's IPC stream format without an end, uncompressed: the schema, then a batch for each chunk of
documents that was added. What counts of it is in the manifest's extent, as of the files of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparse_sts_index.data.fields import FieldType, FieldValue, microseconds

_FIRST, _LAST = (microseconds(moment.replace(tzinfo=UTC)) for moment in (datetime.min, datetime.max))
_ARROW: Final[dict[FieldType, pa.DataType]] = {
    "keyword": pa.string(),
    "keywords": pa.list_(pa.field("item", pa.string(), nullable=False)),
    "number": pa.float64(),
    "date": pa.timestamp("us", tz="UTC"),
    "boolean": pa.bool_(),
}


def arrow_schema(types: Mapping[str, FieldType]) -> pa.Schema:
    """Return the schema of fields."""
    return pa.schema([pa.field(name, _ARROW[type_]) for name, type_ in types.items()])


def stream_of(rows: Sequence[Mapping[str, FieldValue]], types: Mapping[str, FieldType], *, first: bool) -> bytes:
    """Return what is appended to a stream of fields.

    Parameters
    ----------
    rows : sequence of mapping of str to str, tuple of str, float, datetime or bool, length n
        What one lacks is null.
    types : mapping of str to str
    first : bool
        The stream is empty so far: it begins with the schema.
    """
    schema = arrow_schema(types)
    arrays = [pa.array([row.get(name) for row in rows], _ARROW[type_]) for name, type_ in types.items()]
    batch = pa.record_batch(arrays, schema=schema)
    return (bytes(schema.serialize()) if first else b"") + bytes(batch.serialize())


@dataclass(frozen=True)
class Codes:
    """Keywords by number.

    Attributes
    ----------
    numbers : dict of str to int
    codes : ndarray of int32, shape (n,)
        Of a keyword, a row's, -1 for none; of keywords, those of one row after the other.
    ends : ndarray of int64, shape (rows,), optional
        Of keywords: where those of each row end.
    """

    numbers: dict[str, int]
    codes: NDArray[np.int32]
    ends: NDArray[np.int64] | None = None


class FieldColumns:
    """The fields of all rows of a store.

    Parameters
    ----------
    content : buffer
        A stream, as far as it counts.
    types : mapping of str to str
    rows : int

    Raises
    ------
    ValueError
        That is no such stream.
    """

    def __init__(self, content: Any, types: Mapping[str, FieldType], rows: int) -> None:
        self.types, self._rows = dict(types), rows
        self._columns: dict[str, Any] = {}
        try:
            self._table = _read(content, arrow_schema(types))
            self._table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(str(error)) from error
        if len(self._table) != rows:
            raise ValueError("another number of rows")
        for name, type_ in self.types.items():
            if type_ == "date" and not _are_dates(self._table[name]):
                raise ValueError(f"{name} has a date beyond the years 1 to 9999")
        batches = self._table.to_batches()  # whose values are found in a fifth of the time that the table takes
        self._batches = [dict(zip(batch.schema.names, batch.columns, strict=True)) for batch in batches]
        self._ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)

    def __len__(self) -> int:
        return self._rows

    def values(self, rows: NDArray[np.int64]) -> list[dict[str, FieldValue]]:
        """Return the fields of rows; those without a value are left out."""
        found = []
        batches = np.searchsorted(self._ends, rows, side="right")
        for row, batch in zip(rows.tolist(), batches.tolist(), strict=True):
            place = row - self._ends[batch - 1] if batch else row
            values = ((name, column[place].as_py()) for name, column in self._batches[batch].items())
            found.append(
                {
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in values
                    if value is not None
                }
            )
        return found

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return which rows have a value: ndarray of bool, shape (rows,)."""
        column = self._table[name]
        if self.types[name] == "keywords":  # an empty list is no value
            return _numpy(pc.fill_null(pc.greater(pc.list_value_length(column), 0), False))
        return _numpy(column.is_valid())

    def numbers(self, name: str) -> NDArray[Any]:
        """Return numbers, NaN for none; or dates in microseconds, 0 for none."""
        numbers: NDArray[Any] = self._derived(name, self._numbers)
        return numbers

    def _numbers(self, name: str) -> NDArray[Any]:
        column = self._table[name]
        if self.types[name] == "date":
            return _numpy(pc.fill_null(column.cast(pa.int64()), 0))
        return _numpy(pc.fill_null(column, np.nan))

    def booleans(self, name: str) -> NDArray[np.int8]:
        """Return 1 and 0, -1 for none."""
        values: NDArray[np.int8] = self._derived(name, self._booleans)
        return values

    def _booleans(self, name: str) -> NDArray[np.int8]:
        return _numpy(pc.fill_null(self._table[name].cast(pa.int8()), -1))

    def codes(self, name: str) -> Codes:
        """Return keywords by number."""
        codes: Codes = self._derived(name, self._codes)
        return codes

    def _codes(self, name: str) -> Codes:
        column = self._table[name].combine_chunks()
        ends = None
        if self.types[name] == "keywords":
            ends = np.cumsum(_numpy(pc.fill_null(pc.list_value_length(column), 0)), dtype=np.int64)
            column = pc.list_flatten(column)
        encoded = column.dictionary_encode()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        codes = _numpy(pc.fill_null(encoded.indices, -1)).astype(np.int32, copy=False)
        return Codes({word: number for number, word in enumerate(encoded.dictionary.to_pylist())}, codes, ends)

    def _derived(self, name: str, make: Any) -> Any:
        """Compute something once; threads that race compute the same."""
        if name not in self._columns:
            self._columns[name] = make(name)
        return self._columns[name]


def _are_dates(column: Any) -> bool:
    ends = pc.min_max(column.cast(pa.int64()))
    first, last = ends["min"].as_py(), ends["max"].as_py()
    return first is None or bool(first >= _FIRST and last <= _LAST)


def _read(content: Any, schema: pa.Schema) -> pa.Table:
    if not len(content):
        return schema.empty_table()
    with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
        if not stream.schema.equals(schema):
            raise ValueError("other fields")
        return stream.read_all()


def _numpy(column: Any) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return array
