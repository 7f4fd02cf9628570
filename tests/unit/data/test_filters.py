"""Filters: text, objects and JSON say the same, and what is wrong is said with its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sparse_sts_index import DataError
from sparse_sts_index.data.fields import FieldType
from sparse_sts_index.data.filters import (
    And,
    Compare,
    Exists,
    Filter,
    In,
    Not,
    Or,
    as_filter,
    fields_of,
    filter_of_json,
    filter_to_json,
    parse_filter,
    typed_filter,
)

TYPES: dict[str, FieldType] = {
    "product": "keyword",
    "tags": "keywords",
    "price": "number",
    "created": "date",
    "open": "boolean",
}


def day(year: int, month: int, number: int, hour: int = 0) -> datetime:
    return datetime(year, month, number, hour, tzinfo=UTC)


END = day(2026, 1, 6) - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('product = "router"', Compare("product", "=", "router")),
        ("product!='a'", Not(Compare("product", "=", "a"))),
        (r'product = "a\"b\\c"', Compare("product", "=", 'a"b\\c')),
        (r"product = 'it\'s'", Compare("product", "=", "it's")),
        ("price >= -1.5e3", Compare("price", ">=", -1500.0)),
        ("open = TRUE", Compare("open", "=", True)),
        ("created < 2026-01-05T10:00:00Z", Compare("created", "<", "2026-01-05T10:00:00Z")),
        ("product in ('a', 'b')", In("product", ("a", "b"))),
        ("product not in ()", Not(In("product", ()))),
        ("tags exists", Exists("tags")),
        ("not tags exists", Not(Exists("tags"))),
        (
            "a = 1 or b = 2 and c = 3",
            Or((Compare("a", "=", 1.0), And((Compare("b", "=", 2.0), Compare("c", "=", 3.0))))),
        ),
        (
            "(a = 1 OR b = 2) AND c = 3",
            And((Or((Compare("a", "=", 1.0), Compare("b", "=", 2.0))), Compare("c", "=", 3.0))),
        ),
        ("not a = 1 and b = 2", And((Not(Compare("a", "=", 1.0)), Compare("b", "=", 2.0)))),
        (
            "notable = 1 and in.side = 2 and or_ = 3",
            And(tuple(Compare(n, "=", v) for n, v in (("notable", 1.0), ("in.side", 2.0), ("or_", 3.0)))),
        ),
        ("größe = 1\n\tand b-c = 2", And((Compare("größe", "=", 1.0), Compare("b-c", "=", 2.0)))),
    ],
)
def test_text_is_read(text: str, expected: Filter) -> None:
    found = parse_filter(text)
    assert found == expected
    assert filter_of_json(filter_to_json(found)) == found
    assert as_filter(text) == as_filter(filter_to_json(found)) == as_filter(found) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "filter: empty"),
        ("product = router", "character 11: expected a value .*, found 'router'"),
        ("product =", "character 10: expected a value .*, found the end"),
        ('product = "x', "character 11: a quote that is not closed"),
        (r'product = "a\n"', "character 11: a quote that is not closed, or has a backslash"),
        ('"a" = "b"', "character 1: expected .*, found"),
        ("product", "character 8: expected = != < <= > >= or 'in' or 'exists' or 'not', found the end"),
        ("price == 1", "character 8: expected a value"),
        ("(price = 1", r"character 11: expected .*'\)', found the end"),
        ("price = 1)", r"character 10: expected .*the end, found '\)'"),
        ("price = 1 and", "character 14: expected .*a field"),
        ("price = 1 price = 2", "character 11: expected .*, found 'price'"),
        ("price = 1 % 2", "character 11: "),
        ("product in 'a'", r"character 12: expected '\(', found"),
        ("not " * 51 + "a = 1", "nested deeper than 50 levels"),
        ("a = 1 or " * 8000 + "a = 1", "longer than 65,536 characters"),
    ],
)
def test_text_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "created = 2026-01-05",
            And(
                (Compare("created", ">=", day(2026, 1, 5)), Compare("created", "<=", END)),
            ),
        ),
        ("created < 2026-01-05", Compare("created", "<", day(2026, 1, 5))),
        ("created <= '2026-01-05'", Compare("created", "<=", END)),
        ("created > 2026-01-05", Compare("created", ">", END)),
        ("created > 9999-12-31", Compare("created", ">", datetime.max.replace(tzinfo=UTC))),
        ("created >= 2026-01-05", Compare("created", ">=", day(2026, 1, 5))),
        ("created > 2026-01-05T10:00+01:00", Compare("created", ">", day(2026, 1, 5, 9))),
        ("price in (1, 2)", Or((Compare("price", "=", 1.0), Compare("price", "=", 2.0)))),
        ("tags in ('a', 'b', 'a')", In("tags", ("a", "b"))),
    ],
)
def test_values_get_the_types_of_fields(text: str, expected: Filter) -> None:
    typed = typed_filter(parse_filter(text), TYPES)
    assert typed == expected
    assert typed_filter(typed, TYPES) == typed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("open = true and state = 1", "character 17: no field 'state'; there are created, open, price, product, tags"),
        ("product = 5", "character 1: product is a keyword: put 5 into quotes"),
        ("price = '5'", "character 1: price is a number, and '5' is text"),
        ("open = 'x'", "open is a boolean, and 'x' is text"),
        ("open = 1", "open must be true or false"),
        ("tags < 'a'", "tags is a keywords, which has no order"),
        ("open > false", "open is a boolean, which has no order"),
        ("created = 2026-13-01", r"character 1: created '2026-13-01' is no date \(month"),
        ("created = 'soon'", "created must be a date"),
        ("product = ''", "empty text is no value"),
        ("price exist", "expected"),
    ],
)
def test_filters_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        typed_filter(parse_filter(text), TYPES)
    with pytest.raises(DataError, match="the index has none"):
        typed_filter(parse_filter("a = 1"), {})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"and": {}},
        {"and": [], "or": []},
        {"field": "a"},
        {"field": "a", "op": "=", "value": 1, "more": 2},
        {"field": "a", "op": "=", "value": None},
        {"field": "a", "op": "=", "value": [1]},
        {"field": "a", "op": "in", "value": 1},
        {"field": "a", "op": "in", "value": [[1]]},
        {"field": "a", "op": "like", "value": "x"},
        {"field": "a", "op": "exists", "value": 1},
        {"field": 1, "op": "=", "value": 1},
        {"not": [1]},
        {"or": ["a = 1"]},
    ],
)
def test_json_that_is_wrong(values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^filter: "):
        filter_of_json(values)


def test_json_nested_too_deep() -> None:
    values: dict[str, Any] = {"field": "a", "op": "exists"}
    for _ in range(51):
        values = {"not": values}
    with pytest.raises(DataError, match="nested deeper than 50"):
        filter_of_json(values)
    deep: Filter = Exists("a")
    for _ in range(100_000):
        deep = Not(deep)
    with pytest.raises(DataError, match="nested deeper than 50"):
        as_filter(deep)


def test_what_is_no_filter() -> None:
    assert as_filter(None) is None
    with pytest.raises(ValueError, match="a filter must be text, a Filter or a mapping, not int"):
        as_filter(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made of filters, not of str"):
        as_filter(And(("a = 1",)))  # type: ignore[arg-type]


def test_filters_of_operators() -> None:
    one, two = Compare("a", "=", 1.0), Exists("b")
    assert (one & two) | ~one == Or((And((one, two)), Not(one)))
    assert list(fields_of((one & two) | ~one)) == ["a", "b", "a"]


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_filter(text)
    except DataError:
        return
    assert filter_of_json(filter_to_json(found)) == found
