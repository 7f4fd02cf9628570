"""Parquet as others write it: Arrow's and Polars' kinds of text, DuckDB's and pandas' kinds of id."""

from __future__ import annotations

import decimal
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies as st

from sparse_sts_index import DataError, load_pairs, read_corpus

TEXTS = ["a cat", "Zürich 😀", ""]
BYTES = [text.encode() for text in TEXTS]
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
KINDS = {
    "string": pa.array(TEXTS, pa.string()),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "binary": pa.array(BYTES, pa.binary()),
    "large_binary": pa.array(BYTES, pa.large_binary()),
    "binary_view": pa.array(BYTES, pa.binary_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of large_string": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2], pa.int8()), pa.array(TEXTS, pa.large_string())
    ),
    "dictionary, one value twice": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.uint16()), pa.array(TEXTS)),
    "chunked": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
}


def written(path: Path, **columns: pa.Array) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_every_kind(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "c.parquet", id=pa.array(["1", "2", "3"]), text=KINDS[kind])
    assert [document.text for document in read_corpus(path)] == TEXTS


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_pairs_of_every_kind(tmp_path: Path, kind: str) -> None:
    some = KINDS[kind].slice(0, 2)
    path = written(tmp_path / "c.parquet", _id=some, text=pa.array(["x", "y"]))
    assert [document.id for document in read_corpus(path)] == TEXTS[:2]
    pairs = load_pairs(written(tmp_path / "p.parquet", sentence1=some, sentence2=some, score=pa.array([0, 1])))
    assert (pairs.sentence1, pairs.sentence2) == (TEXTS[:2], TEXTS[:2])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, 2**63 - 1], pa.int64()), ["1", "9223372036854775807"]),
        (pa.array([1, 2**64 - 1], pa.uint64()), ["1", "18446744073709551615"]),
        (pa.array([1, 2], pa.int8()), ["1", "2"]),
        (pa.array([decimal.Decimal(1), decimal.Decimal(10**30)], pa.decimal128(38, 0)), ["1", str(10**30)]),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes, bytes(16)], pa.binary(16))),
            [str(ID), str(uuid.UUID(int=0))],
        ),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array([1, 2]).dictionary_encode(), ["1", "2"]),
        (pa.array(["007", "7"]), ["007", "7"]),
    ],
)
def test_ids_that_are_names_or_whole_numbers(tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    path = written(tmp_path / "c.parquet", id=ids, text=pa.array(["x", "y"]))
    assert [document.id for document in read_corpus(path)] == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([1, None]), "row 2: id must be a string or an integer, found nothing"),
        (pa.array(["a", None], pa.string_view()), "row 2: id must be a string or an integer, found nothing"),
        (pa.array([1.0, 2.0]), "row 1: id must be a string or an integer, found float; save such ids as integers"),
        (pa.array([decimal.Decimal("1.5"), None], pa.decimal128(4, 1)), "row 1: id must be .*, found Decimal"),
        (pa.array([True, False]), "row 1: id must be a string or an integer, found bool"),
        (pa.array([b"\xff", b"a"]), "row 1: id is not UTF-8"),
        (pa.array([b"a" * 2000, b"b" * 2000], pa.binary(2000)), "column id is fixed_size_binary.2000., neither text"),
        (pa.array([["a"], ["b"]]), "column id is list<.*neither text nor a number"),
    ],
)
def test_ids_that_are_not_are_refused(tmp_path: Path, ids: pa.Array, message: str) -> None:
    path = written(tmp_path / "c.parquet", id=ids, text=pa.array(["x", "y"]))
    with pytest.raises(DataError, match=message):
        list(read_corpus(path))


def test_columns_found_are_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "c.parquet", question=pa.array(["x"]), qid=pa.array([1]), id=pa.array([2]))
    with pytest.raises(DataError, match=r"missing column text.*\(found: question, qid, id\).*--columns text=question"):
        list(read_corpus(path))
    assert [document.id for document in read_corpus(path, columns={"text": "question"})] == ["2"]
    assert [document.id for document in read_corpus(path, columns={"text": "question", "id": "#"})] == ["1"]
    with pytest.raises(DataError, match="parquet has no delimiter"):
        list(read_corpus(path, delimiter="tab"))


@settings(deadline=None, max_examples=50)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=9),
    kind=st.sampled_from(
        [
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.large_binary(),
            pa.dictionary(pa.int32(), pa.string()),
        ]
    ),
)
def test_any_text_in_any_kind(tmp_path_factory: pytest.TempPathFactory, texts: list[str], kind: pa.DataType) -> None:
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    column = pa.array([text.encode() for text in texts] if binary else texts).cast(kind)
    path = written(tmp_path_factory.mktemp("p") / "c.parquet", id=pa.array(range(len(texts))), text=column)
    assert [document.text for document in read_corpus(path)] == texts
