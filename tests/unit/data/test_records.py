from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

from sparse_sts_index.data.columns import Columns
from sparse_sts_index.data.reading import read_records
from sparse_sts_index.errors import DataError

COLUMNS = Columns({"a": ("a",), "b": ("b",)}, required=(), positional=("a", "b"))
Write = Callable[..., Path]


def values(path: Path | str, format: str | None = None) -> list[dict[str, object]]:
    return [record.values for record in read_records(path, COLUMNS, format)]


def test_every_format_gives_the_same_rows(write: Write, tmp_path: Path) -> None:
    rows = [{"a": 'é, "q"', "b": "日本 😀"}, {"a": "x", "b": "y"}]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    table = io.StringIO()
    writer = csv.DictWriter(table, ["a", "b"])
    writer.writeheader()
    writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert values(write("rows.jsonl", jsonl)) == rows
    assert values(write("rows.jsonl.gz", gzip.compress(jsonl.encode()))) == rows
    assert values(write("rows.csv", table.getvalue())) == rows
    assert values(write("rows.tsv", 'A\tB\né, "q"\t日本 😀\nx\ty\n')) == rows
    assert values(write("bom.csv", b"\xef\xbb\xbf" + table.getvalue().encode())) == rows
    assert values(tmp_path / "rows.parquet") == rows


def test_txt_ids_are_line_numbers_and_blank_lines_count(write: Write) -> None:
    assert values(write("rows.txt", "one\n\n  three \n")) == [{"id": "1", "text": "one"}, {"id": "3", "text": "three"}]


def test_rows_name_their_line(write: Write) -> None:
    path = write("rows.csv", 'a,b\n"two\nlines",x\ny,z\n')
    assert [record.number for record in read_records(path, COLUMNS)] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": \n', r":2: malformed JSON \(Expecting value at column 7\)"),
        ("x.jsonl", '{"a": 1}\n\n[1]\n', ":3: expected one JSON object a line, found an array"),
        ("x.jsonl", '{"a": ' * 100_000, ":1: malformed JSON"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r":2: not UTF-8 \(byte 8 of the line\)"),
        ("x.txt", b"fine\nfine\n\xe9t\xe9\n", ":3: not UTF-8"),
        ("x.csv", "a,b\n1\n", ":2: 1 columns where 2 are expected"),
        ("x.csv", "a,b\n1,2,3\n", ":2: 3 columns where 2 are expected"),
        ("x.csv", 'a,b\n"1,2\n', ":2: malformed csv"),
        ("x.csv", "c,d,e\n1,2,3\n", ":1: no header with any of a, b"),
        ("x.csv", "a,b,a\n1,2,3\n", ":1: the header has two columns a"),
        ("x.jsonl.gz", b"not gzip", "broken gzip file"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "broken gzip file"),
        ("x.parquet", b"PAR1 is not enough", "not a readable parquet file"),
        ("x.doc", "", "unknown format"),
    ],
)
def test_bad_files_are_refused_with_their_line(write: Write, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(write(name, content))


def test_parquet_with_text_that_is_not_utf8(tmp_path: Path) -> None:
    bad = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")]
    )
    pyarrow.parquet.write_table(pyarrow.table({"a": bad}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        values(tmp_path / "x.parquet")


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input is closed"):
        values("-")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        values(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        values(tmp_path)


@pytest.mark.parametrize(
    ("content", "rows"),
    [(b'{"a": "1"}\n', [{"a": "1"}]), (b"plain {text}\n", [{"id": "1", "text": "plain {text}"}]), (b"", [])],
)
def test_standard_input_is_jsonl_or_txt(
    monkeypatch: pytest.MonkeyPatch, content: bytes, rows: list[dict[str, str]]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert values("-") == rows


def test_reading_is_streamed(write: Write) -> None:
    """A bad line is met only when it is reached: what comes before it has been handed out by then."""
    records = read_records(write("x.jsonl", '{"a": 1}\n' * 5 + "broken\n"), COLUMNS)
    assert [next(records).values for _ in range(5)] == [{"a": 1}] * 5
    with pytest.raises(DataError, match=":6:"):
        next(records)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_csv_round_trip(rows: list[tuple[str, str]]) -> None:
    """Whatever Python's csv module writes is read back, but for rows that are blank."""
    from sparse_sts_index.data.text_formats import read_delimited

    try:
        "".join(cell for row in rows for cell in row).encode()
    except UnicodeEncodeError:
        return
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    lines = io.StringIO(table.getvalue(), newline="\n")
    read = [tuple(record.values.values()) for record in read_delimited(iter(lines), "x", COLUMNS, ",")]
    assert read == [row for row in rows if any(cell.strip() for cell in row)]
