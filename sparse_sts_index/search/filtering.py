"""The rows that a filter lets through, from the columns of their fields."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index.data.fields import FieldValue, microseconds
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Operator, Or

if TYPE_CHECKING:
    from sparse_sts_index.storage.field_files import FieldColumns

Mask = NDArray[np.bool_]

_COMPARE: Final[dict[Operator, Callable[[NDArray[Any], Any], Mask]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def passing(filter_: Filter, columns: FieldColumns) -> Mask:
    """Return the rows that a filter lets through.

    Parameters
    ----------
    filter_ : Filter
        Of :func:`~sparse_sts_index.data.filters.typed_filter`.
    columns : FieldColumns

    Returns
    -------
    ndarray of bool, shape (rows,)
        A new one.
    """
    match filter_:
        case Not(part):
            return ~passing(part, columns)
        case And(parts):
            mask = np.ones(len(columns), bool)
            for part in parts:
                mask &= passing(part, columns)
            return mask
        case Or(parts):
            mask = np.zeros(len(columns), bool)
            for part in parts:
                mask |= passing(part, columns)
            return mask
        case Exists(name):
            return columns.present(name).copy()
        case In(name, values):
            return _any_of(columns, name, [str(value) for value in values])
        case Compare(name, _, str(value)):
            return _any_of(columns, name, [value])
        case Compare(name, _, bool(value)):
            return np.equal(columns.booleans(name), int(value))
        case Compare(name, comparison, datetime() as value):
            mask = _COMPARE[comparison](columns.numbers(name), microseconds(value))
            mask &= columns.present(name)  # what stands for no date is a number, too
            return mask
        case Compare(name, comparison, value):
            return _COMPARE[comparison](columns.numbers(name), value)
    raise ValueError(f"{type(filter_).__name__} is no filter")


def _any_of(columns: FieldColumns, name: str, words: list[str]) -> Mask:
    found = columns.codes(name)
    numbers = [found.numbers[word] for word in words if word in found.numbers]
    if len(numbers) == 1:
        mask = np.equal(found.codes, numbers[0])
    else:
        wanted = np.zeros(len(found.numbers) + 1, bool)  # the last is -1's
        wanted[numbers] = True
        mask = wanted[found.codes]
    if found.ends is None:
        return mask
    rows = np.zeros(len(found.ends), bool)
    rows[np.searchsorted(found.ends, np.flatnonzero(mask), side="right")] = True
    return rows


def value_counts(columns: FieldColumns, name: str, mask: Mask) -> dict[FieldValue, int]:
    """Count the rows of a mask by their value of a keyword field or a boolean one; those without are left out."""
    if columns.types[name] == "boolean":
        values = columns.booleans(name)[mask]
        return {value: count for value in (False, True) if (count := int(np.count_nonzero(values == value)))}
    found = columns.codes(name)
    rows = mask if found.ends is None else np.repeat(mask, np.diff(found.ends, prepend=0))
    codes = found.codes[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(found.numbers)).tolist()
    return {word: count for word, count in zip(found.numbers, counts, strict=True) if count}
