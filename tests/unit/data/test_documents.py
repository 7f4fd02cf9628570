from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sparse_sts_index import DataError, Document, read_corpus
from sparse_sts_index.data.documents import examine_corpus

Write = Callable[..., Path]


def read(path: Path | str) -> list[tuple[str, str]]:
    return [(document.id, document.text) for document in read_corpus(path)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("beir.jsonl", '{"_id": "d1", "title": "A", "text": "b c", "metadata": {}}\n', [("d1", "A b c")]),
        ("beir.jsonl", '{"_id": "d1", "title": "", "text": "b"}\n', [("d1", "b")]),
        ("pyserini.jsonl", '{"id": "7", "contents": "x\\ny"}\n', [("7", "x\ny")]),
        ("plain.jsonl", '{"id": 7, "text": ""}\n', [("7", "")]),
        ("c.csv", 'id,text\n1,"a, b"\n', [("1", "a, b")]),
        ("c.tsv", 'docid\tsentence\tlang\n1\ta "b" c\ten\n', [("1", 'a "b" c')]),
        ("c.txt", "first\n\nthird\n", [("1", "first"), ("3", "third")]),
    ],
)
def test_formats(write: Write, name: str, content: str, expected: list[tuple[str, str]]) -> None:
    assert read(write(name, content)) == expected


def test_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2], "text": ["a", "b"]}), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet") == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", '{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n', r":2: duplicate id '1'"),
        ("c.jsonl", '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}\n', r":2: duplicate id '1'"),
        ("c.jsonl", '{"text": "a"}\n', ":1: missing column _id or id or docid"),
        ("c.jsonl", '{"id": "1", "body": "a"}\n', ":1: missing column text or contents or sentence"),
        ("c.jsonl", '{"id": null, "text": "a"}\n', ":1: id must be a string or an integer"),
        ("c.jsonl", '{"id": true, "text": "a"}\n', ":1: id must be a string or an integer"),
        ("c.jsonl", '{"id": " ", "text": "a"}\n', ":1: id is empty"),
        ("c.jsonl", '{"id": "' + "x" * 33_000 + '", "text": "a"}\n', ":1: id is longer than 32,766 bytes"),
        ("c.jsonl", '{"id": "1", "text": ["a"]}\n', ":1: text must be a string, found list"),
        ("c.jsonl", '{"id": "1", "title": 3, "text": "a"}\n', ":1: title must be a string, found int"),
        ("c.jsonl", '{"id": "\\udc00", "text": "a"}\n', ":1: id holds an unpaired surrogate"),
        ("c.jsonl", '{"id": "1", "text": "\\ud83d"}\n', ":1: text holds an unpaired surrogate"),
        ("c.csv", "docno,body\n1,a\n", ":1: no header .*--columns id=docno,text=body"),
        ("c.csv", "", "no documents in it"),
        ("c.txt", "\n \n", "no documents in it"),
    ],
)
def test_bad_corpora(write: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        examine_corpus(write(name, content))


def test_documents_made_by_hand_are_checked_too() -> None:
    with pytest.raises(DataError, match="id is empty"):
        Document("", "text")
    with pytest.raises(DataError, match="unpaired surrogate"):
        Document("1", "\ud800")


def test_reading_holds_no_more_than_it_must(write: Write) -> None:
    """Fifty thousand documents of 200 bytes, one at a time: memory stays far below the file's 10 MB."""
    path = write("c.jsonl", "".join(f'{{"id": "{i}", "text": "{"x" * 180}"}}\n' for i in range(50_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_corpus(path)) == 50_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
