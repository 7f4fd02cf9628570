"""Random fields of documents and random filters of them, and what a filter means."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from sparse_sts_index.data.fields import FieldType, FieldValue
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Or

TYPES: dict[str, FieldType] = {"k": "keyword", "ks": "keywords", "n": "number", "d": "date", "b": "boolean"}
START = datetime(2026, 1, 1, tzinfo=UTC)

words = st.sampled_from(["a", "b", 'q"\\', "\u00e4 \U0001f600", "true", "z\n"])
numbers = st.sampled_from([-1e300, -1.5, 0.0, 1.0, 1.0000000000000002, 3.0, 1e300])
dates = st.integers(-2, 2).map(lambda days: START + timedelta(days=days)) | st.just(START + timedelta(microseconds=1))
values = {
    "k": words,
    "ks": st.lists(words, max_size=3, unique=True).map(tuple),
    "n": numbers,
    "d": dates,
    "b": st.booleans(),
}
documents = st.fixed_dictionaries({}, optional=values).map(lambda row: {k: v for k, v in row.items() if v != ()})


def comparisons(name: str) -> st.SearchStrategy[Filter]:
    of_list = name == "ks"
    operators = st.sampled_from(["=", "<", "<=", ">", ">="] if name in ("n", "d") else ["="])
    return st.builds(Compare, st.just(name), operators, words if of_list else values[name])


conditions = st.one_of(
    *(comparisons(name) for name in TYPES),
    st.builds(In, st.sampled_from(["k", "ks"]), st.lists(words, max_size=3).map(tuple)),
    st.builds(Exists, st.sampled_from(list(TYPES))),
)
filters = st.recursive(
    conditions,
    lambda parts: (
        st.builds(Not, parts)
        | st.builds(And, st.lists(parts, max_size=3).map(tuple))
        | st.builds(Or, st.lists(parts, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


def holds(filter_: Filter, fields: Mapping[str, FieldValue]) -> bool:
    """Return whether a document passes, by the definition of each filter."""
    match filter_:
        case Not(part):
            return not holds(part, fields)
        case And(parts):
            return all(holds(part, fields) for part in parts)
        case Or(parts):
            return any(holds(part, fields) for part in parts)
        case Exists(name):
            return name in fields
        case In(name, wanted):
            return any(holds(Compare(name, "=", value), fields) for value in wanted)
        case Compare(name, operator, wanted):
            found: Any = fields.get(name, ())
            each = found if isinstance(found, tuple) else (found,)
            orders = {"<": (-1,), "<=": (-1, 0), "=": (0,), ">=": (0, 1), ">": (1,)}
            return any(((one > wanted) - (one < wanted)) in orders[operator] for one in each)
    raise AssertionError(filter_)
