"""Files that are read several times, and copied row by row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

from sparse_sts_index import DataError
from sparse_sts_index.data.row_file import Row, RowFile

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x00"), min_size=1).filter(str.strip)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[tuple[bytes, bool]]]:
    """A format, and the pieces of a file of it, each with whether it is a row."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=12))
    format = draw(st.sampled_from(["txt", "jsonl", "csv", "tsv"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    pieces: list[tuple[bytes, bool]] = []
    if format in ("csv", "tsv"):
        pieces.append((f"text{',' if format == 'csv' else chr(9)}more{end}".encode(), False))
    for text in texts:
        if draw(st.booleans()):
            pieces.append((end.encode(), False))
        if format == "csv":
            cell = io.StringIO()
            row = [draw(st.sampled_from([text, f"{text}\nnext", f'"{text}"'])), "1"]
            csv.writer(cell, lineterminator=end).writerow(row)
            line = cell.getvalue()
        elif format == "jsonl":
            line = json.dumps({"more": 1, "text": text}, ensure_ascii=draw(st.booleans())) + end
        else:
            line = " ".join(text.split()) + ("\t1" if format == "tsv" else "") + end
        pieces.append((line.encode(), True))
    if draw(st.booleans()) and format in ("txt", "jsonl", "tsv"):
        pieces[-1] = (pieces[-1][0].removesuffix(end.encode()), True)
    if draw(st.booleans()):
        pieces.insert(0, (b"\xef\xbb\xbf", False))
    return format, pieces


@given(files(), st.booleans(), st.integers(0, 1 << 30))
def test_copies_of_rows_are_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, list[tuple[bytes, bool]]], packed: bool, seed: int
) -> None:
    format, pieces = file
    folder = tmp_path_factory.mktemp("rows")
    content = b"".join(piece for piece, _ in pieces)
    source, target = folder / f"in.{format}", folder / f"out.{format}.gz"
    if packed:
        source = source.with_name(source.name + ".gz")
    source.write_bytes(gzip.compress(content) if packed else content)
    rows = RowFile(source)
    assert len(rows) == sum(is_row for _, is_row in pieces)

    wanted = np.random.default_rng(seed).random(len(rows)) < 0.5
    rows.copy(target, wanted)
    left = iter(wanted)
    assert gzip.decompress(target.read_bytes()) == b"".join(piece for piece, row in pieces if not row or next(left))


def test_copied_parquet_has_the_rows_and_the_schema(tmp_path: Path) -> None:
    count = 300_000
    schema = pyarrow.schema(
        [
            pyarrow.field("text", pyarrow.large_string(), metadata={"a": "b"}),
            ("tags", pyarrow.list_(pyarrow.string())),
            ("more", pyarrow.struct([("deep", pyarrow.timestamp("ns", "UTC"))])),
        ],
        metadata={"pandas": "{}"},
    )
    table = pyarrow.table(
        {
            "text": [f"sentence {number}" for number in range(count)],
            "tags": [["a", "b"][: number % 3] for number in range(count)],
            "more": [{"deep": number} if number % 2 else None for number in range(count)],
        },
        schema,
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "in.parquet")  # lists' items have another name in parquet
    rows = RowFile(tmp_path / "in.parquet")
    wanted = np.random.default_rng(0).random(count) < 0.9
    rows.copy(tmp_path / "out.parquet", wanted)
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.equals(table.filter(pyarrow.array(wanted)))
    assert found.schema.equals(table.schema, check_metadata=True)
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups <= 3
    rows.copy(tmp_path / "out.parquet", np.zeros(count, bool))
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").equals(table.slice(0, 0))


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_need_no_ids_and_may_have_one_twice(tmp_path: Path) -> None:
    path = written(tmp_path, [{"text": "a"}, {"id": 7, "text": "b"}, {"id": 7, "title": "c", "text": "d"}])
    rows = RowFile(path)
    assert list(rows.texts()) == ["a", "b", "c d"]
    assert rows.rows({0, 2}) == {0: Row(1, None, "a"), 2: Row(3, "7", "c d")}


@pytest.mark.parametrize(
    ("keep", "numbers"),
    [
        ("longest", [2, 3, 1]),
        ("votes", [3, float("nan"), -1.5]),
        ("votes:number", [3, float("nan"), -1.5]),
        ("score", [1, 2, 3]),
        ("made", [0, 86_400_000_000, float("nan")]),
        ("open", [1, 0, float("nan")]),
    ],
)
def test_preference_is_of_lengths_or_a_column(tmp_path: Path, keep: str, numbers: list[float]) -> None:
    path = written(
        tmp_path,
        [
            {"text": "aa", "score": 1, "votes": 3, "made": "1970-01-01", "open": True},
            {"text": "aaa", "score": 2, "votes": None, "made": "1970-01-02T00:00:00Z", "open": False},
            {"text": "a", "score": 3, "votes": -1.5},
        ],
    )
    np.testing.assert_array_equal(RowFile(path, keep).preference(), numbers)
    assert RowFile(path).preference() is None


def test_row_files_that_cannot_be_read_so_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [{"text": "a", "name": "x"}, {"text": "b", "name": 3}])
    for keep, reason in (
        ("nme", "no document has a value of nme"),
        ("name", "name is a number here, and a keyword before"),
        ("text", "text is text; numbers, dates and booleans have an order"),
        ("name:number", "in.jsonl:1: name must be a number"),
    ):
        with pytest.raises(DataError, match=reason):
            RowFile(path, keep)
    named = written(tmp_path, [{"text": "a", "name": "x"}])
    with pytest.raises(DataError, match="name is text; numbers, dates and booleans have an order"):
        RowFile(named, "name")
    with pytest.raises(DataError, match="standard input is read once"):
        RowFile("-")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="is read once"):
        RowFile(tmp_path / "pipe.jsonl")
    (tmp_path / "none.txt").write_text("\n\n")
    with pytest.raises(DataError, match="no sentences in it"):
        RowFile(tmp_path / "none.txt")


def test_targets_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [{"text": "a"}, {"text": "b"}])
    rows = RowFile(path)
    (tmp_path / "link.jsonl").symlink_to(path)
    os.link(path, tmp_path / "hard.jsonl")
    for target, reason in (
        ("in.jsonl", "is the input"),
        ("link.jsonl", "is the input"),
        ("hard.jsonl", "is the input"),
        ("out.csv", "has to be jsonl as well, not csv"),
        ("out.parquet", "has to be jsonl as well, not parquet"),
        ("no/out.jsonl", "no folder "),
    ):
        with pytest.raises(DataError, match=reason):
            rows.copy(tmp_path / target, np.ones(2, bool))
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for name in ("loop.jsonl", "x" * 250):
        with pytest.raises(DataError, match="cannot write"):
            rows.copy(tmp_path / name, np.ones(2, bool))
    with pytest.raises(DataError, match="has to be csv as well, not jsonl"):
        RowFile(path, delimiter=";", columns={"text": 1}, format="csv").copy(tmp_path / "o.jsonl", np.ones(2, bool))


def test_files_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [{"text": "a"}, {"text": "b"}])
    rows = RowFile(path)
    (tmp_path / "out.jsonl").write_text("before")
    written(tmp_path, [{"text": "b"}, {"text": "a"}])
    os.utime(path, ns=(0, 0))
    for use in (lambda: list(rows.texts()), lambda: rows.copy(tmp_path / "out.jsonl", np.ones(2, bool))):
        with pytest.raises(DataError, match=r"in.jsonl has changed while it was read"):
            use()
    assert (tmp_path / "out.jsonl").read_text() == "before"
    assert not list(tmp_path.glob(".*"))


def test_string_views_and_damaged_columns_of_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [str(number) for number in range(500)], "more": ["y" * 100] * 500})
    views = table.set_column(1, "more", table["more"].cast(pyarrow.string_view()))
    path = tmp_path / "in.parquet"
    pyarrow.parquet.write_table(views, path)
    wanted = np.random.default_rng(0).random(500) < 0.5
    RowFile(path).copy(tmp_path / "out.parquet", wanted)
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["text"].to_pylist() == [
        str(number) for number in np.flatnonzero(wanted)
    ]
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    begin = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    content[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match="in.parquet: not a readable parquet file"):
        RowFile(path).copy(tmp_path / "out.parquet", wanted)


def test_ids_have_to_be_unicode(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "\\ud800", "text": "a"}\n')
    with pytest.raises(DataError, match="in.jsonl:1: id "):
        RowFile(tmp_path / "in.jsonl")
