"""Fields: values become what their type says or are refused, and types are found where none is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pyarrow.parquet
import pytest

from sparse_sts_index import DataError, Document, read_corpus
from sparse_sts_index.data.documents import examine_corpus
from sparse_sts_index.data.fields import Field, FieldType, check_fields, field_value, parse_fields, typed_fields

Write = Callable[..., Path]
BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("keyword", "open", "open"),
        ("keyword", 7, "7"),
        ("keyword", 5.0, "5"),
        ("keyword", 1.5, "1.5"),
        ("keyword", Decimal("1.10"), "1.10"),
        ("keyword", True, "true"),
        ("keyword", datetime(2026, 1, 5, tzinfo=UTC), "2026-01-05T00:00:00+00:00"),
        ("keyword", " ", None),
        ("keyword", b"open", "open"),
        ("keyword", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("keyword", "", None),
        ("keyword", None, None),
        ("keywords", ["a", "b", "a", None], ("a", "b")),
        ("keywords", "a", ("a",)),
        ("keywords", '["a", "b"]', ("a", "b")),
        ("keywords", "[a", ("[a",)),
        ("keywords", [], None),
        ("number", 3, 3.0),
        ("number", " -1.5e3 ", -1500.0),
        ("number", Decimal("0.1"), 0.1),
        ("number", 2**53, 2.0**53),
        ("number", float("nan"), None),
        ("date", "2026-01-05", datetime(2026, 1, 5, tzinfo=UTC)),
        ("date", "2026-01-05T10:00:00+01:00", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("date", "2026-01-05 10:00Z", datetime(2026, 1, 5, 10, tzinfo=UTC)),
        ("date", date(2026, 1, 5), datetime(2026, 1, 5, tzinfo=UTC)),
        ("date", datetime(2026, 1, 5, 10, tzinfo=BERLIN), datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("boolean", True, True),
        ("boolean", "FALSE", False),
    ],
)
def test_values_become_what_their_type_says(type_: FieldType, value: Any, expected: Any) -> None:
    found = field_value(value, type_, "f", "here")
    assert found == expected
    assert type(found) is type(expected)
    if found is not None:
        assert field_value(found, type_, "f", "here") == found


def test_negative_zero_is_zero() -> None:
    assert str(field_value(-0.0, "number", "f", "here")) == "0.0"


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        ("keyword", math.inf, "f must be a keyword, found float"),
        ("keyword", {"a": 1}, "f must be a keyword, found dict"),
        ("keyword", "x" * 40_000, "f is longer than 32,766 bytes"),
        ("keyword", "\u00e4" * 20_000, "f is longer than 32,766 bytes"),
        ("keyword", "\ud800", "f "),
        ("keyword", b"\xff", "f is not UTF-8"),
        ("keywords", {"a": 1}, "f must be a list of keywords, found dict"),
        ("keywords", ["a", ["b"]], "f must be a list of keywords, found list"),
        ("keywords", ["a"] * 1001, "1,001 keywords"),
        ("number", "12345678901234567890", "f is a whole number beyond 2"),
        ("number", "1_000", "f must be a number, found str '1_000'"),
        ("number", "nan", "f must be a number"),
        ("number", True, "f must be a number, found bool"),
        ("number", 2**53 + 1, "beyond 2**53"),
        ("number", "1e400", "float64 does not hold"),
        ("number", float("inf"), "float64 does not hold"),
        ("date", "2026-13-01", "f '2026-13-01' is no date (month must be in 1..12)"),
        ("date", "yesterday", "f must be a date such as 2026-01-31 (ISO 8601), found str 'yesterday'"),
        ("date", 1_700_000_000, "f must be a date such as 2026-01-31 (ISO 8601), found int"),
        ("date", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "beyond the years"),
        ("boolean", "yes", "f must be true or false, found str 'yes'"),
        ("boolean", 1, "f must be true or false, found int"),
    ],
)
def test_what_is_of_another_type_is_refused(type_: FieldType, value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        field_value(value, type_, "f", "corpus.jsonl:3")
    assert str(caught.value).startswith("corpus.jsonl:3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status", [("status", None, "status")]),
        ("a, b:date", [("a", None, "a"), ("b", "date", "b")]),
        ("made=Created At:date", [("made", "date", "Created At")]),
        ("x=a:b", [("x", None, "a:b")]),
        ("größe:number", [("größe", "number", "größe")]),
    ],
)
def test_fields_of_an_option(text: str, expected: list[tuple[str, str | None, str]]) -> None:
    assert [(field.name, field.type, field.column) for field in parse_fields(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,A", "field A is named twice"),
        ("1x", "cannot be a field's name"),
        ("a b", "cannot be a field's name"),
        ("", "cannot be a field's name"),
        ("id", "a field cannot be called id"),
        ("x:text", "'text' is no type; choose from keyword"),
        (",".join(f"f{number}" for number in range(101)), "101 fields; at most 100"),
    ],
)
def test_fields_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_fields(text)


def types_of(source: Path, fields: Any = "all") -> dict[str, str | None]:
    return {field.name: field.type for field in examine_corpus(source, fields)[1]}


def test_types_are_found_in_the_values(write: Write) -> None:
    rows = (
        '{"id": 1, "text": "a", "status": "open", "day": "2026-01-05", "n": 3, "tags": ["x"], "ok": true, "code": "7", '
        '"no": null}\n'
        '{"id": 2, "text": "b", "day": "2026-02-05T10:00:00Z", "n": 4.5, "tags": [], "ok": false}\n'
    )
    path = write("c.jsonl", rows)
    types = {"status": "keyword", "day": "date", "n": "number", "tags": "keywords", "ok": "boolean", "code": "keyword"}
    assert types_of(path) == types
    fields = examine_corpus(path, "all")[1]
    first, second = read_corpus(path, fields=fields)
    assert first.fields["day"] == datetime(2026, 1, 5, tzinfo=UTC)
    assert second.fields == {"day": datetime(2026, 2, 5, 10, tzinfo=UTC), "n": 4.5, "ok": False}
    table = "id,text,status,day,n,code,ok,Size in cm\n1,a,open,2026-01-05,3,007,true,1\n2,b,,,4.5,8,false,2\n"
    types = {"status": "keyword", "day": "date", "n": "number", "code": "keyword", "ok": "boolean"}
    assert types_of(write("c.csv", table)) == types | {"Size_in_cm": "number"}


def test_fields_of_parquet(tmp_path: Path) -> None:
    columns = {
        "id": [1, 2],
        "text": ["a", "b"],
        "when": pyarrow.array([datetime(2026, 1, 5, 6), None], pyarrow.timestamp("ns")),
        "tags": [["x", "y"], None],
        "n": pyarrow.array([1, None], pyarrow.int8()),
        "kind": pyarrow.array(["x", "y"]).dictionary_encode(),
        "nested": [{"a": 1}, None],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    assert types_of(tmp_path / "c.parquet") == {"when": "date", "tags": "keywords", "n": "number", "kind": "keyword"}
    fields = examine_corpus(tmp_path / "c.parquet", "all")[1]
    first, second = read_corpus(tmp_path / "c.parquet", fields=fields)
    assert first.fields == {"when": datetime(2026, 1, 5, 6, tzinfo=UTC), "tags": ("x", "y"), "n": 1.0, "kind": "x"}
    assert type(first.fields["when"]) is datetime
    assert second.fields == {"kind": "y"}


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ('{"id": 1, "text": "a"}\n', "status", "no document has a value of status"),
        (
            '{"id": 1, "text": "a", "x": 1}\n{"id": 2, "text": "a", "x": "b"}\n',
            "x",
            ":2: x is a keyword here, and a number before",
        ),
        ('{"id": 1, "text": "a", "x": {"y": 1}}\n', "x", ":1: x is dict, which no field holds"),
        ('{"id": 1, "text": "a", "x": "b"}\n', "x:number", ":1: x must be a number, found str 'b'"),
    ],
)
def test_rows_that_do_not_fit(write: Write, content: str, fields: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        examine_corpus(write("c.jsonl", content), parse_fields(fields))
    assert message in str(caught.value)


def test_tables_need_the_columns_of_fields(write: Write) -> None:
    path = write("c.csv", "id,text,status\n1,a,open\n")
    with pytest.raises(DataError, match=r"c\.csv:1: missing column state \(found: id, text, status\)"):
        list(read_corpus(path, fields=[Field("state", "keyword")]))
    with pytest.raises(ValueError, match="field status has no type"):
        list(read_corpus(path, fields=[Field("status")]))


def test_typed_fields_of_a_document() -> None:
    document = Document("a", "text", fields={"n": 3, "tags": [], "day": "2026-01-05"})  # type: ignore[dict-item]
    types: dict[str, FieldType] = {"n": "number", "tags": "keywords", "day": "date"}
    assert typed_fields(document, types) == {"n": 3.0, "day": datetime(2026, 1, 5, tzinfo=UTC)}
    with pytest.raises(DataError, match="document 'a': the index has no field 'day'; it has n, tags"):
        typed_fields(document, {"n": "number", "tags": "keywords"})
    with pytest.raises(DataError, match="it has none"):
        typed_fields(document, {})


def test_names_differ_by_more_than_case() -> None:
    with pytest.raises(DataError, match="field Status is named twice"):
        check_fields([Field("status"), Field("Status")])


def test_lists_and_blank_columns_of_csv(write: Write) -> None:
    path = write("c.csv", ',id,text,tags,mixed\n0,1,a,"[""x"", ""y""]","[""x""]"\n1,2,b,[],x\n')
    _, fields = examine_corpus(path, "all")
    assert [(field.name, field.type) for field in fields] == [("tags", "keywords"), ("mixed", "keyword")]
    first, second = read_corpus(path, fields=fields)
    assert first.fields == {"tags": ("x", "y"), "mixed": '["x"]'}
    assert second.fields == {"mixed": "x"}
