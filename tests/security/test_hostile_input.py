"""Input of people who mean harm: a right result or one error of this library, in one line; no code of theirs is run.

The other errors of the readers are in test_records.py and test_documents.py. Slow searches for more are in tests/fuzz.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import tracemalloc
import types
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click.testing
import httpx
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from sparse_sts_index.cli.main import main
from support import VOCABULARY, build, random_vectors, store

from sparse_sts_index import (
    Document,
    ModelError,
    SparseStsIndex,
    explain_traces,
    load_pairs,
    read_corpus,
)
from sparse_sts_index._utils.hub import hub_reachable
from sparse_sts_index.data.documents import check_ids, count_documents
from sparse_sts_index.data.records import MAX_ROW_BYTES
from sparse_sts_index.encoding import model_safety
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.calibration import CALIBRATION_FILE, Calibration
from sparse_sts_index.encoding.model_safety import check_model
from sparse_sts_index.encoding.models import load_dense, load_splade
from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.backends.terms import escape
from sparse_sts_index.engines.export.anserini import write_chunks
from sparse_sts_index.engines.target import parse_url
from sparse_sts_index.errors import EngineError, ImpactIndexError, SparseStsError
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.server.app import create_app
from sparse_sts_index.server.service import Service
from sparse_sts_index.server.settings import ServerSettings
from sparse_sts_index.storage import builder
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import COLLECTION_FILE
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import Collection
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter, remove_vectors
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sparse_sts_index import (
        SparseStsEncoder,
    )

Write = Callable[..., Path]

_EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnp.exe\u202c <script>alert(1)</script> =cmd|' /C calc'!A0"
#: Sentences by id, both as bad as may be.
SENTENCES = {
    "plain": "A cat sleeps.",
    "esc\x1b[2J\x9bid": _EVIL,
    "nl\nid\r\n\ttab": "one\ntwo\r\nthree\ttab\x0b\x0c\x1c\x85\u2028\u2029 lone\rCR",
    "nul\0id": "nul\0text",
    "caf\u00e9": "NFC caf\u00e9",
    "cafe\u0301": "NFD cafe\u0301",
    '"q\\*:? AND OR NOT ~^[]{}()/': '"quotes" \\ backslash * : ?',
    "AND": "a\\",
    "\\": "\\",
    '"': '"',
    "*": "*:*",
    "\ufeffbom": "\ufefftext with a byte order mark",
    "\u200b": "zero\u200bwidth\u200d\u2060",
    "x" * 32_766: "an id as long as Lucene takes",
    "megabyte": "some words of many " * 55_000,
    "one word of a megabyte": "w" * 1_000_000,
    "zalgo": "z" + "\u0301\u0489" * 5_000 + " algo",
    "zwj": "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family \U0001f3f3\ufe0f\u200d\U0001f308",
    "empty": "",
    "blank": " \t\n\u3000",
    "##": "## ##ing [CLS] [SEP] [MASK] [PAD] [term1]",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "astral": "\U0010ffff\U000e0001\ufdd0",
    "delimiter": "\ue000 is private",
    "bidi": "\u202eabc\u202c \u2067x\u2069",
    "../../etc/passwd": "a path",
    "%2e%2e%2f": "an encoded path",
}


def one_line(error: BaseException) -> str:
    """A message that fits a line of a terminal and does nothing else to it."""
    message = str(error)
    assert message
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in message), message
    assert len(message) < 2_000
    return message


def refused(action: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(SparseStsError) as caught:
        action()
    for part in parts:
        assert part in one_line(caught.value)


# --- readers


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("c.jsonl", b'{"id": "1", "id": "2", "text": "a"}\n', ["c.jsonl:1: the name id comes twice"]),
        ("c.jsonl", b'{"id": "1", "text": "a", "m": {"b": 1, "b": 2}}\n', [":1: the name b comes twice"]),
        ("c.jsonl", b"[" * 100_000, [":1: malformed JSON"]),
        ("c.jsonl", b'{"a":' * 100_000, [":1: malformed JSON"]),
        ("c.jsonl", b'{"id": ' + b"9" * 5_000 + b', "text": "a"}', [":1: malformed JSON"]),
        ("c.jsonl", b'{"id": 1e400, "text": "a"}', [":1: id must be a string or an integer, found float"]),
        ("c.jsonl", b'{"id": NaN, "text": "a"}', [":1: id must be a string or an integer, found float"]),
        (
            "c.jsonl",
            b'{"id": ' + b"[" * 500 + b"]" * 500 + b', "text": "a"}',
            [":1: id must be a string", "found list"],
        ),
        ("c.jsonl", b'{"\\u001b]0;title\\u0007\\u202e\\ud800": 1}', [r"found: \x1b]0;title\x07\u202e\ud800"]),
        ("c.jsonl", json.dumps({str(n): 0 for n in range(100_000)}).encode(), ["found: 0, 1, 2", "9, ..."]),
        ("c.csv", b"\x1b[31mred,\xc2\x9bx\n", [r"found: \x1b[31mred, \x9bx"]),
        ("c.csv", b"x," * 500_000 + b"y\n", ["no header with any of", "x, ..."]),
        (
            "c.csv",
            b'id,text\n1,"' + b"a" * 200_000,
            ["c.csv:2: malformed csv (a field of more than 131,072 characters"],
        ),
        ("c.csv", b"id,text\n1,a\rb\n", [":2: malformed csv (a carriage return outside quotes)"]),
        ("c.tsv", b"id\ttext\n1\t" + b"a" * MAX_ROW_BYTES + b"\n", ["c.tsv:2: a line of more than 16 MiB"]),
        ("c.txt", b"\n" + b"a" * MAX_ROW_BYTES + b"\n", ["c.txt:2: a line of more than 16 MiB"]),
        ("c.jsonl.gz", gzip.compress(bytes(64 << 20), 1, mtime=0), [":1: a line of more than 16 MiB"]),
        ("c.txt", b"\xff\xfea\0\n\0", [":1: not UTF-8 (byte 1 of the line)"]),
        ("c.jsonl", b'{"id": "\xed\xa0\x80", "text": "a"}\n', [":1: not UTF-8"]),
    ],
)
def test_collections(write: Write, name: str, content: bytes, parts: list[str]) -> None:
    path = write(name, content)
    refused(lambda: count_documents(path), *parts)


def test_a_row_of_csv_has_an_end_even_where_fields_may_be_of_any_length(write: Write) -> None:
    """Another library may have raised the limit of Python's csv, which is for the whole process."""
    import csv

    path = write("c.csv", b'id,text\n1,"' + b"a\n" * (MAX_ROW_BYTES // 2))
    before = csv.field_size_limit(1 << 30)
    try:
        refused(lambda: count_documents(path), "c.csv:2: a row of more than 16 MiB (a quote that is not closed?)")
    finally:
        csv.field_size_limit(before)


def test_a_gzip_bomb_takes_no_memory(write: Write) -> None:
    """A quarter of a gigabyte in one line, out of a quarter of a megabyte."""
    path = write("bomb.txt.gz", b"".join(gzip.compress(bytes(16 << 20), 9) for _ in range(16)))
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    try:
        refused(lambda: count_documents(path), "bomb.txt.gz:1: a line of more than 16 MiB")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_ROW_BYTES


def test_a_line_of_16_mib_is_read(write: Write) -> None:
    text = "a" * (MAX_ROW_BYTES - len('{"id":"1","text":""}\n'))
    (document,) = read_corpus(write("c.jsonl", json.dumps({"id": "1", "text": text}, separators=(",", ":")) + "\n"))
    assert document == Document("1", text)


def test_names_too_long_for_a_file_system(tmp_path: Path) -> None:
    refused(lambda: list(read_corpus(tmp_path / ("a" * 5_000 + ".jsonl"))), "cannot read")
    refused(lambda: list(read_corpus("a\0b.jsonl")), r"no such file: a\x00b.jsonl")


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"id": ["1"], "text": [["a"]]}, ["column text is list<element: string>, neither text nor a number"]),
        ({"id": ["1"], "text": [{"a": "b"}]}, ["column text is struct<a: string>, neither text nor a number"]),
        ({"id": ["1"], "text": [None]}, ["row 1: text must be a string, found nothing (null)"]),
        ({"id": ["1"], "text": [b"\xff"]}, ["column text is binary, neither text nor a number"]),
        ({"id": ["1"], "text": pyarrow.array([b"a"], pyarrow.large_binary())}, ["column text is large_binary"]),
        ({"id": ["1"], "text": ["a"], "title": [["a"]]}, ["column title is list<element: string>"]),
        ({"id": [1.5], "text": ["a"]}, ["row 1: id must be a string or an integer, found float"]),
        ({"number": [1], "body\x1b": ["a"]}, ["missing column: none of _id", r"found: number, body\x1b"]),
        ({"id": pyarrow.array([2**62], pyarrow.timestamp("ms")), "text": ["a"]}, ["not a readable parquet file"]),
        (
            {"id": pyarrow.array([0], pyarrow.timestamp("s", "No/Where")), "text": ["a"]},
            ["not a readable parquet file"],
        ),
    ],
)
def test_parquet_of_odd_types(tmp_path: Path, columns: dict[str, Any], parts: list[str]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    refused(lambda: count_documents(tmp_path / "c.parquet"), *parts)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_parquet_whose_end_is_damaged(tmp_path: Path, filling: bytes) -> None:
    """Found by atheris: what Arrow says of it ends with a line feed."""
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1"], "text": ["a"]}), tmp_path / "c.parquet")
    content = (tmp_path / "c.parquet").read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    (tmp_path / "c.parquet").write_bytes(content[: -8 - length] + filling * length + content[-8:])
    refused(lambda: count_documents(tmp_path / "c.parquet"), "c.parquet")


def test_a_parquet_bomb(tmp_path: Path) -> None:
    """A text of 20 MiB a thousand times, in a few kilobytes; and one of 4 MiB, which is read row by row."""
    path = tmp_path / "c.parquet"
    for size in (20 << 20, 4 << 20):
        texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["a" * size])
        table = pyarrow.table({"id": [str(n) for n in range(1000)], "text": texts})
        pyarrow.parquet.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 10_000
        if size > MAX_ROW_BYTES:
            refused(lambda: count_documents(path), "a value of more than 16 MiB, in row 1 or one of the next")
    documents = read_corpus(path)
    tracemalloc.start()
    try:
        assert len([next(documents).text for _ in range(3)][2]) == 4 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MAX_ROW_BYTES


def test_parquet_columns(tmp_path: Path) -> None:
    """Dictionaries are strings; columns that are not asked for are not looked at; none may be there twice."""
    words = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    when = pyarrow.array([2**62] * 3, pyarrow.timestamp("ms"))
    table = pyarrow.table({"id": pyarrow.array(["1", "2", "3"], pyarrow.large_string()), "text": words, "when": when})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert [document.text for document in read_corpus(tmp_path / "c.parquet")] == ["a", "b", "a"]
    twice = pyarrow.Table.from_arrays([pyarrow.array(["1"])] * 3, ["id", "text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    refused(lambda: count_documents(tmp_path / "twice.parquet"), "two columns text")


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "1e999", "1_0", '"0_1"', "true", '"0x1"', "[0]"])
def test_scores_that_are_none(write: Write, score: str) -> None:
    path = write("p.jsonl", f'{{"sentence1": "a", "sentence2": "b", "score": {score}}}\n')
    refused(lambda: load_pairs(path), "p.jsonl:1:")
    refused(lambda: load_pairs(write("p.csv", "a,b,0_1\n")), "p.csv:1:")


def test_score_ranges_beyond_float64(write: Write) -> None:
    path = write("p.csv", "a,b,0.5\n")
    refused(lambda: load_pairs(path, score_range=(-1e308, 1e308)), "score range")


def test_ids_that_look_alike_are_two(write: Write) -> None:
    rows = [{"id": doc_id, "text": "a"} for doc_id in ("caf\u00e9", "cafe\u0301", "a", "A", "a ", "\uff41", "a\u200b")]
    path = write("c.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [document.id for document in check_ids(read_corpus(path))] == [row["id"] for row in rows]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_sentences_come_out_of_files_as_they_went_in(tmp_path: Path, format: str) -> None:
    import csv

    kept = {i: text for i, text in SENTENCES.items() if format != "csv" or len(text) < 131_072}
    path = tmp_path / f"c.{format}"
    if format == "jsonl":
        path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in kept.items()), encoding="utf-8")
    elif format == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("id", "text"), *kept.items()])
    else:
        pyarrow.parquet.write_table(pyarrow.table({"id": list(kept), "text": list(kept.values())}), path)
    assert {document.id: document.text for document in read_corpus(path)} == kept


# --- what an index says of itself


def hostile_manifests() -> Iterator[tuple[str, str]]:
    extent = Extent.empty("vectors-000001")
    manifest = json.loads(Manifest.without_model(VOCABULARY, 8).to_json()) | {"vectors": extent.to_json()}
    Manifest.from_json(json.dumps(manifest))  # which is a good one
    for folder in ("../x", "/etc", "a/b", "..", ".", "", "a\0", 5, None, ["a"], "-\n"):
        yield f"folder {folder!r}", json.dumps({**manifest, "vectors": {**manifest["vectors"], "folder": folder}})
    files, sizes = manifest["vectors"]["files"], (0.0, -1, "0", None, True, 1e400, [])
    one_file = [{**files, "terms.i32": {"bytes": 4, "crc32": 0}}, {**files, "terms.i32": {"bytes": 0}}]
    one_file += [{**files, "ids.utf8": {"bytes": size, "crc32": 0}} for size in sizes]
    one_file += [{**files, "ids.utf8": {"bytes": 0, "crc32": checksum}} for checksum in sizes]
    for damaged in ({}, [], None, list(files), dict.fromkeys(files, 0), *one_file):
        yield f"files {damaged!r:.300}", json.dumps({**manifest, "vectors": {**manifest["vectors"], "files": damaged}})
    old = {"folder": extent.folder, "sizes": extent.sizes, "crc32": extent.crc32}
    Manifest.from_json(json.dumps({**manifest, "format_version": 3, "vectors": old}))  # which is a good one, too
    for sizes in ({}, [], {**extent.sizes, "terms.i32": 4}, {**extent.sizes, "x": 0}, {**extent.sizes, "ids.utf8": -1}):
        vectors = {**old, "sizes": sizes}
        yield f"sizes {sizes}", json.dumps({**manifest, "format_version": 3, "vectors": vectors})
    for name, value in {
        "bits": 1e9, "documents": "5", "postings": -1, "vocabulary_size": 2**40, "precision": "auto", "model": None,
        "software": ["a"], "max_active_dims": 0, "max_document_error": float("nan"), "build_seconds": 10**400,
        "created": 5, "features": [5], "vectors": None,
    }.items():  # fmt: skip
        yield name, json.dumps({**manifest, name: value})
    for version in (4.0, True, 1e400, None, [], "\x1b[31m\n", "9" * 5_000):
        yield f"version {version!r:.20}", json.dumps({**manifest, "format_version": version})
    yield "nested", "[" * 100_000
    yield "empty", ""


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in hostile_manifests()])
def test_manifests(text: str) -> None:
    known = '"format_version": 3,' in text or '"format_version": 4,' in text
    refused(lambda: Manifest.from_json(text), "manifest cannot be read" if known else "")


@pytest.mark.parametrize(
    "shards",
    [
        [], {}, 5, None, [{"folder": "../x"}], [5],
        *([{"folder": folder, "documents": 1, "manifest_sha256": ""}] for folder in ("../x", "/etc", "a/../..", "", 5)),
        [{"folder": "a\0", "documents": 1, "manifest_sha256": ""}],
        [{"folder": "a", "documents": "1", "manifest_sha256": ""}],
        [{"folder": "a", "documents": 1, "manifest_sha256": None}],
        [{"folder": "a", "documents": 1, "manifest_sha256": ""}] * 2,
    ],
)  # fmt: skip
def test_collections_of_shards(tmp_path: Path, shards: object) -> None:
    values = {"shards": shards, "created": "", "build_seconds": 1.0, "format_version": 1}
    (tmp_path / COLLECTION_FILE).write_text(json.dumps(values))
    refused(lambda: Collection.read(tmp_path), "collection.json cannot be read")
    refused(lambda: ImpactIndex.open(tmp_path), "collection.json cannot be read")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format_version": 1e400}', '{"format_version": "\\u001b\\n"}', "\xff"]
)
def test_collections_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / COLLECTION_FILE).write_bytes(text.encode("latin-1"))
    refused(lambda: Collection.read(tmp_path), "collection.json")


@pytest.mark.parametrize("tokens", [5, "ab", {"a": 1}, [1], [["a"]], [False], ["a", 1.5]])
def test_vocabularies(tokens: Any) -> None:
    with pytest.raises(TypeError):
        Vocabulary(tokens)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "{}", "null", '{"scale": [0, 1], "cosines": [1e400], "scores": [1], "pairs": 1}',
        *(
            json.dumps({"scale": [0, 5], "cosines": [0.0, 1.0], "scores": [0.0, 5.0], "model_fingerprint": "",
                        "pairs": 20, **changed})
            for changed in ({"pairs": 10**400, "cosines": [10**400]}, {"pairs": float("inf")}, {"scale": [5, 0]},
                            {"scale": [0, float("nan")]}, {"scale": [0, float("inf")]}, {"scores": [0.0, 9.0]},
                            {"scores": [0.0]}, {"scores": [5.0, 0.0]}, {"cosines": [float("nan"), 1.0]},
                            {"cosines": []})
        ),
    ],
)  # fmt: skip
def test_calibrations(tmp_path: Path, text: str) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(text)
    refused(lambda: Calibration.of_folder(tmp_path), CALIBRATION_FILE)


def damaged(name: str, values: Any, tmp_path: Path) -> VectorStore:
    """A store whose files are of the right length, and hold what no writer writes."""
    stored = store(tmp_path, random_vectors(np.random.default_rng(1), 20), [3])
    content = np.memmap(tmp_path / "v" / name, stored._arrays[list(stored.extent.sizes).index(name)].dtype, "r+")
    content[: len(values)] = values
    content.flush()
    return VectorStore(tmp_path, stored.extent, 40)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ends.i64", [-1]), ("ends.i64", [2**60]), ("ends.i64", [50, 4]), ("id_ends.i64", [2**62]),
        ("id_ends.i64", [9, 1]), ("dead.i64", [-1]), ("dead.i64", [20]), ("terms.i32", [40]), ("terms.i32", [-1]),
        ("terms.i32", [2**31 - 1]), ("weights.f32", [np.nan]), ("weights.f32", [np.inf]), ("ids.utf8", [0xFF]),
    ],
)  # fmt: skip
def test_vectors_that_cannot_be(tmp_path: Path, name: str, values: list[float]) -> None:
    rows, query = np.arange(20), np.full(40, 0.1)

    def use() -> None:
        stored = damaged(name, values, tmp_path)
        if name == "ids.utf8":
            stored.ids(rows)
            return
        for read in (lambda: stored.scores(rows, query), lambda: stored.take(rows), lambda: list(stored.blocks())):
            with pytest.raises(ImpactIndexError):
                read()
        stored.take(rows)

    refused(use, name, "damaged")


# --- paths


def test_links_in_an_index_lead_nowhere(tmp_path: Path) -> None:
    """To the owner's files: they are not read as vectors, not written to, and not removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "terms.i32").write_text("dear to me")
    index = tmp_path / "index"
    build(index, ["a", "b", "c"], random_vectors(np.random.default_rng(2), 3))

    (index / "vectors-000007").symlink_to(precious)  # what no commit names is removed by the next writer
    ImpactIndex.open(index, writable=True).close()
    assert not (index / "vectors-000007").exists()
    assert (precious / "terms.i32").read_text() == "dear to me"

    (index / "vectors-000001" / "dead.i64").unlink()
    (index / "vectors-000001" / "dead.i64").symlink_to(precious / "terms.i32")
    for writable in (False, True):
        refused(lambda writable=writable: ImpactIndex.open(index, writable=writable), "dead.i64: a link")
    with pytest.raises(OSError, match="symbolic links"):
        VectorWriter(index, Extent.empty("vectors-000001"))
    shutil.move(index / "vectors-000001", tmp_path / "elsewhere")
    (index / "vectors-000001").symlink_to(tmp_path / "elsewhere")
    for writable in (False, True):
        refused(lambda writable=writable: ImpactIndex.open(index, writable=writable), "a link")
    refused(lambda: VectorWriter(index, Extent.empty("vectors-000001")), "a link")
    remove_vectors(index / "vectors-000001")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 7
    assert (precious / "terms.i32").read_text() == "dear to me"


def test_links_to_what_lucene_and_the_vocabulary_are_kept_in(tmp_path: Path) -> None:
    """A build into another's index must not come out in one of ours; nothing without an end is read."""
    vectors = random_vectors(np.random.default_rng(2), 3)
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    build(mine, ["a", "b", "c"], vectors)
    theirs.mkdir()
    (theirs / "lucene").symlink_to("../mine/lucene")
    refused(lambda: build(theirs, ["d", "e", "f"], vectors, overwrite=True), "lucene: a link")
    for writable in (False, True):
        refused(lambda writable=writable: ImpactIndex.open(theirs, writable=writable), "lucene: a link")
    with ImpactIndex.open(mine) as index:
        assert index.verify() == 3
    shutil.rmtree(theirs)
    shutil.copytree(mine, theirs)
    (segment,) = (theirs / "lucene").glob("*.cfs")
    segment.unlink()
    segment.symlink_to(mine / "lucene" / segment.name)
    refused(lambda: ImpactIndex.open(theirs), "a link")
    shutil.rmtree(theirs)
    shutil.copytree(mine, theirs)
    vocabulary = theirs / "vectors-000001" / "vocabulary.json"
    vocabulary.unlink()
    vocabulary.symlink_to("/dev/zero")
    refused(lambda: ImpactIndex.open(theirs), "vocabulary.json")
    vocabulary.unlink()
    os.mkfifo(vocabulary)
    refused(lambda: ImpactIndex.open(theirs), "vocabulary.json: not a plain file")
    vocabulary.unlink()
    with vocabulary.open("wb") as file:
        file.truncate(1 << 40)
    refused(lambda: ImpactIndex.open(theirs), "vocabulary.json: more than 268,435,456 bytes")


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("_raw", "no JSON", ["a sentence that sparse-sts did not write"]),
        ("_raw", '{"id": "a",\n"contents": "a"}', ["a sentence that sparse-sts did not write"]),
        ("_raw", '["a"]', ["a sentence that sparse-sts did not write"]),
        ("_raw", '{"contents": 5}', ["a sentence that sparse-sts did not write"]),
        ("_row", 3, ["another row than there is"]),
        ("_row", -1, ["another row than there is"]),
    ],
)
def test_what_lucene_holds_of_an_index_of_others(tmp_path: Path, field: str, value: Any, parts: list[str]) -> None:
    """Its checksums are right, and yet it is not as we write it."""

    class Theirs(ImpactWriter):
        def _make_document(self) -> None:
            super()._make_document()
            ours = getattr(self, field)
            setter = "setStringValue" if field == "_raw" else "setLongValue"
            setattr(self, field, types.SimpleNamespace(**{setter: lambda _: getattr(ours, setter)(value)}))

    vectors = random_vectors(np.random.default_rng(2), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "ImpactWriter", Theirs)
        build(tmp_path / "index", ["a", "b", "c"], vectors)
    for in_memory in (False, True):
        with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:

            def ask(index: ImpactIndex = index, searcher: Searcher = Searcher(state, in_memory)) -> list[Document]:  # noqa: B008
                (found,) = searcher.search(vectors[[0]], 3)
                return searcher.snapshot.documents(np.array(found.rows))

            if field == "_raw" or not in_memory:
                refused(ask, *parts)
            refused(index.verify, "index")


# --- engines


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "solr", "solr+http", "solr+http:", "solr+http://", "solr+http://host", "solr+http://host/",
        "SOLR+http://h/n", "solr+http://[::1/n", "solr+http://host:99999/n", "solr+http://host:x/n", "solr+ftp://h/n",
        "solr+http://host/n?q=1", "solr+http://host/n#f", "solr+http://ho\nst/n", "solr+http://host/%00",
        "solr+http://host/%0a", "solr+http://host/%ff", "solr+http://us%ffer@host/n", "solr+http://host/n\udcff",
        "solr+http://host/%1b[31m", "solr+file:n", "solr+file:/", "solr+http://user:secret@ho\u2100st/n",
    ],
)  # fmt: skip
def test_urls_of_engines(url: str) -> None:
    with pytest.raises(EngineError) as caught:
        parse_url(url)
    assert "secret" not in one_line(caught.value)


@pytest.mark.parametrize("text", ["", "A", "AAAA", "!!!!", "\u20ac", None, 5, "AAAAAAAA" * 2 + "A", "AAAAAAAAwH8="])
def test_packed_vectors_that_are_none(text: Any) -> None:
    if text == "":
        assert unpack(text).terms == []
        return
    with pytest.raises(EngineError, match="not as sparse-sts wrote it"):
        unpack(text)


@pytest.mark.parametrize("values", [([1, 1], [0.5, 0.5]), ([2, 1], [0.5, 0.5]), ([1], [-1.0]), ([1], [float("nan")])])
def test_packed_vectors_have_ascending_terms_and_weights(values: tuple[list[int], list[float]]) -> None:
    from sparse_sts_index.engines.base import Vector

    with pytest.raises(EngineError):
        unpack(pack(Vector(*values)))


@pytest.mark.parametrize("space", ["\u3000", "\u2007", "\u202f", "\u00a0", "\u1680", "\u2028", "\x1c", "\x85"])
def test_names_of_features_have_no_white_space(space: str) -> None:
    """Found by atheris: engines trim the white space of scripts other than Latin, too."""
    name = escape(f"{space}a{space}")
    assert name.split() == [name]
    assert name.strip(space) == name
    assert unquote(name) == f"{space}a{space}"


def test_a_hub_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr("sparse_sts_index._utils.hub.getproxies", dict)
    monkeypatch.delenv("ALL_PROXY", raising=False)
    for endpoint in ("http://host:port", "http://[::1", "http://" + "a" * 100 + ".x", ""):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert isinstance(hub_reachable(), bool)


# --- models


class Touch:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


_TRANSFORMER = "sentence_transformers.sparse_encoder.models.MLMTransformer"
_POOLING = "sentence_transformers.sparse_encoder.models.SpladePooling"


def hostile_model(
    folder: Path, modules: list[tuple[str, str]] | None, settings: dict[str, Any], config: dict[str, Any]
) -> Path:
    """tiny, but for what is given; its weights left out."""
    shutil.copytree(tiny_folder(), folder, ignore=shutil.ignore_patterns("heads.pt", "model.safetensors"))
    values = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    if modules is not None:
        listed = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, **settings}))
        (folder / "1_SpladePooling").mkdir()
        (folder / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "max"}')
    return folder


_BOTH = [(_TRANSFORMER, ""), (_POOLING, "1_SpladePooling")]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("modules", "settings", "config"),
    [
        (None, {}, {}),
        (_BOTH, {}, {}),
        # with these sentence-transformers 6.2 and transformers 5.23 do run what is in the pickle
        (_BOTH, {"model_args": {"weights_only": False, "dtype": "auto"}}, {"dtype": None, "torch_dtype": None}),
        (_BOTH, {"model_kwargs": {"weights_only": False, "dtype": "auto"}}, {"dtype": None, "torch_dtype": None}),
    ],
)
def test_no_pickle_is_run(
    tmp_path: Path, zipped: bool, modules: Any, settings: dict[str, Any], config: dict[str, Any]
) -> None:
    mark = tmp_path / "mark"
    folder = hostile_model(tmp_path / "model", modules, settings, config)
    torch.save({"x": Touch(mark)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    for load in (load_splade, load_dense):
        refused(lambda load=load: load(folder))
        assert not mark.exists()
    # Not even if the folder's own look at it were passed by, as by a model from the hub.
    from sparse_sts_index.encoding.model_safety import MODEL_KWARGS

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever sentence-transformers raises
        torch_loaded(folder, MODEL_KWARGS)
    assert not mark.exists()


def torch_loaded(folder: Path, kwargs: dict[str, Any]) -> object:
    from sentence_transformers import SparseEncoder

    return SparseEncoder(str(folder), local_files_only=True, model_kwargs=dict(kwargs))


def test_the_pickles_of_these_tests_are_live(tmp_path: Path) -> None:
    """Otherwise they would show nothing."""
    torch.save({"x": Touch(tmp_path / "mark")}, tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("os.system", "of a kind that is not loaded: os.system"),
        ("custom.Module", "of a kind that is not loaded: custom.Module"),
        ("sentence_transformers.util.misc.importlib", "of a kind that is not loaded"),
        ("sentence_transformers.base.model.torch", "of a kind that is not loaded"),
        ("sentence_transformers.SentenceTransformer", "of a kind that is not loaded"),
        ("sentence_transformers.models.WordEmbeddings", "of a kind that is not loaded"),
        ("\x1b[31m\n", r"\x1b[31m\n"),
        (5, "is damaged"),
    ],
)
def test_modules_of_ones_own(tmp_path: Path, kind: Any, parts: str) -> None:
    folder = hostile_model(tmp_path / "model", [(kind, ""), (_POOLING, "1_SpladePooling")], {}, {})
    (folder / "custom.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Module: pass\n")
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    refused(lambda: load_splade(folder), parts)
    assert not (tmp_path / "mark").exists()


def test_a_model_of_pooling_alone(tmp_path: Path) -> None:
    """Found by fuzzing: it loaded, and failed at the first sentence."""
    folder = hostile_model(tmp_path / "model", [(_POOLING, "1_SpladePooling")], {}, {})
    refused(lambda: load_splade(folder), "its first module takes no text")


def test_modules_of_a_router(tmp_path: Path) -> None:
    router = ("sentence_transformers.models.Router", "1_SpladePooling")
    folder = hostile_model(tmp_path / "model", [router], {}, {})
    for routes in ({"a": "os.system"}, {"a": "sentence_transformers.SentenceTransformer"}, {"../../a": _POOLING}):
        (folder / "1_SpladePooling" / "router_config.json").write_text(json.dumps({"types": routes}))
        refused(lambda: load_splade(folder), "has a module")
    for route in ("", "./"):
        routes = {route: "sentence_transformers.models.Router"}
        (folder / "1_SpladePooling" / "router_config.json").write_text(json.dumps({"types": routes}))
        refused(lambda: load_splade(folder), "has more than 100 modules, or one within itself")


@pytest.mark.parametrize("kind", sorted(model_safety._MODULES))
def test_code_that_comes_with_a_module(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked on stdin is not answered by a corpus that comes that way."""
    automatic = {"AutoConfig": "code.C", "AutoModelForMaskedLM": "code.M", "AutoTokenizer": ["code.T", "code.T"]}
    package = "sentence_transformers.sparse_encoder.models." if "S" in kind else "sentence_transformers.models."
    folder = hostile_model(tmp_path / "model", [(package + kind, "0_M")], {}, {})
    code = f"open({str(tmp_path / 'mark')!r}, 'w')\nclass T: pass\nclass C: pass\nclass M: pass\n"
    (folder / "0_M").mkdir()
    for place in (folder, folder / "0_M"):
        shutil.copy(tiny_folder() / "model.safetensors", place)
        shutil.copy(tiny_folder() / "tokenizer.json", place)
        (place / "code.py").write_text(code)
        (place / "config.json").write_text(json.dumps({"model_type": "their_own", "auto_map": automatic}))
        (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": automatic}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    with pytest.raises(ModelError):
        load_splade(folder)
    assert not (tmp_path / "mark").exists()


def test_code_that_comes_with_a_model(tmp_path: Path) -> None:
    """A configuration may name classes in files of its own (``auto_map``); with or without them, they are not run."""
    automatic = {"AutoConfig": "code.C", "AutoModelForMaskedLM": "code.M", "AutoTokenizer": ["code.T", "code.T"]}
    for model_type in ("bert", "their_own"):
        folder = hostile_model(tmp_path / model_type, None, {}, {"auto_map": automatic, "model_type": model_type})
        shutil.copy(tiny_folder() / "model.safetensors", folder)
        (folder / "code.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"auto_map": automatic}))
        try:
            load_splade(folder)
        except ModelError as error:
            one_line(error)
        assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("path", "settings", "config", "parts"),
    [
        ("../../x", {}, {}, "a module elsewhere"),
        ("/etc", {}, {}, "a module elsewhere"),
        ("", {"model_args": {"device_map": "disk", "offload_folder": "/tmp"}}, {}, "not for it to say: device_map"),
        ("", {"model_args": {"use_safetensors": False}}, {}, "not for it to say: use_safetensors"),
        ("", {"model_args": {"attn_implementation": "a/b"}}, {}, "asks for code from the hub"),
        ("", {}, {"attn_implementation": "a/b"}, "asks for code from the hub"),
        ("", {}, {"transformers_weights": "../x.bin"}, "no safetensors file"),
        ("", {}, {"vocab_size": 2**40}, ""),
        ("", {}, {"hidden_size": -1}, ""),
        ("", {}, {"num_hidden_layers": "many"}, ""),
        ("", {}, {"num_attention_heads": 0}, ""),
    ],
)
def test_settings_of_models(
    tmp_path: Path, path: str, settings: dict[str, Any], config: dict[str, Any], parts: str
) -> None:
    folder = hostile_model(tmp_path / "model", [(_TRANSFORMER, path), _BOTH[1]], settings, config)
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    refused(lambda: load_splade(folder), parts)


@pytest.mark.parametrize(
    "file",
    ["config.json", "modules.json", "tokenizer.json", "sentence_bert_config.json", "1_SpladePooling/config.json"],
)
def test_damaged_models(tmp_path: Path, file: str) -> None:
    folder = hostile_model(tmp_path / "model", _BOTH, {}, {})
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    good = (folder / file).read_bytes()
    for content in (b"[" * 100_000, good[: len(good) // 2], b"\xff\xfe", b"[1]"):
        (folder / file).write_bytes(content)
        refused(lambda: load_splade(folder))
    (folder / file).write_bytes(good)
    check_model(str(folder))


def test_a_panic_in_the_tokenizer_is_an_error_like_others(tmp_path: Path) -> None:
    """Rust's panics derive from BaseException; a tokenizer without its unknown token may cause one."""
    from sparse_sts_index.encoding.models import _load_error

    class PanicException(BaseException):
        pass

    assert isinstance(_load_error("x", True, False, PanicException("index out of bounds")), ModelError)
    with pytest.raises(KeyboardInterrupt):
        _load_error("x", True, False, KeyboardInterrupt())


# --- sentences, from end to end


@pytest.fixture(scope="module")
def hostile(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparseStsIndex]:
    documents = [Document(doc_id, text) for doc_id, text in SENTENCES.items()]
    index = SparseStsIndex.build(tmp_path_factory.mktemp("hostile") / "index", documents, tiny)
    yield index
    index.close()


def test_sentences_come_out_of_an_index_as_they_went_in(hostile: SparseStsIndex) -> None:
    assert hostile.verify() == len(SENTENCES)
    read = {document.id: document.text for chunk in hostile.read() for document in chunk.documents}
    assert read == SENTENCES
    assert list(read) == list(SENTENCES)
    for doc_id, text in SENTENCES.items():
        assert hostile.get(doc_id) == Document(doc_id, text)
    assert hostile.get("cafe") is None
    assert hostile.get("x" * 32_767) is None


def test_every_sentence_finds_itself(hostile: SparseStsIndex) -> None:
    for doc_id, hits in zip(SENTENCES, hostile.search(list(SENTENCES.values()), k=len(SENTENCES)), strict=True):
        assert hits.certified
        found = {hit.id: hit for hit in hits}
        assert found[doc_id].cosine == pytest.approx(1, abs=1e-5)
        assert found[doc_id].text == SENTENCES[doc_id]


def test_sentences_are_explained(hostile: SparseStsIndex) -> None:
    texts = [text[:20_000] for text in SENTENCES.values()]
    traces = hostile.encoder.trace(texts)
    for trace, text in zip(traces, texts, strict=True):
        explanation = explain_traces(hostile.encoder.vocabulary, trace, traces[0])
        assert explanation.cosine == pytest.approx(float((trace.vector @ traces[0].vector.T).sum()), abs=1e-6)
        assert all(0 <= word.start < word.end <= len(text) for word in explanation.first.words)


def test_sentences_are_exported_and_compared(hostile: SparseStsIndex) -> None:
    file = io.StringIO(newline="\n")
    write_chunks(hostile.read(), hostile.encoder.vocabulary.terms, file)
    lines = [json.loads(line) for line in file.getvalue().split("\n") if line]
    assert {line["id"]: line["contents"] for line in lines} == SENTENCES
    pairs = {(pair.first.id, pair.second.id) for pair in hostile.duplicates(0.999)}
    assert ("caf\u00e9", "cafe\u0301") not in pairs  # ids and sentences that look alike are not the same
    assert all(first != second for first, second in pairs)


def test_lone_surrogates_are_refused(hostile: SparseStsIndex) -> None:
    refused(lambda: hostile.search(["\udcff"]), "unpaired surrogate at character 1")
    refused(lambda: hostile.score_pairs(["a"], ["\ud800"]), "unpaired surrogate")
    refused(lambda: Document("\udcff", "a"), "unpaired surrogate")


def test_tables_show_no_control_characters(hostile: SparseStsIndex) -> None:
    """What a sentence holds does not reach the terminal as orders to it (escape sequences, line ends)."""
    runner = click.testing.CliRunner()
    for arguments in (
        ["search", str(hostile.path), _EVIL, "-k", "30", "--explain"],
        ["score", _EVIL, "a\x1b[2J\nb", "--model", "tiny", "--explain"],
        ["duplicates", str(hostile.path), "--threshold", "0.3"],
        ["cluster", str(hostile.path), "--threshold", "0.3"],
    ):
        result = runner.invoke(main, arguments, color=True)  # as at a terminal: click takes nothing out
        assert result.exit_code == 0, result.output
        shown = result.output.replace("\n", "")
        assert not any(unicodedata.category(letter) == "Cc" for letter in shown), repr(shown)


def test_requests(hostile: SparseStsIndex) -> None:
    """Through the whole application, in this process; another suite sends what the schema allows."""
    deep = b'{"queries":' + b"[" * 100_000
    bodies: list[tuple[bytes, int]] = [
        (b"", 422), (b"\xff", 400), (b"null", 422), (b"[]", 422), (deep, 400), (b'{"queries": ["\\ud800"]}', 422),
        (b'{"queries": ["a"], "k": 1e400}', 422), (b'{"queries": ["a"], "k": NaN}', 422),
        (b'{"queries": ["a"], "k": ' + b"9" * 5_000 + b"}", 400), (b'{"queries": ["a"], "\\u001b\\n": 1}', 422),
        (b'{"queries": ["' + b"a" * 10_001 + b'"]}', 422), (b'{"queries": [""], "queries": ["a"]}', 200),
        (b'{"queries": ["\\u0000\\u202e"]}', 200), (json.dumps({"queries": [_EVIL]}).encode(), 200),
    ]  # fmt: skip
    paths = [("/v1/documents/%ff", 404), ("/v1/documents/..%2f..%2fetc%2fpasswd", 200), ("/v1/documents/..%2f..", 404),
             ("/v1/documents/%2500", 404), ("/v1/documents/nul%00id", 200), ("/v1/documents/nl%0Aid%0D%0A%09tab", 404),
             ("/v1/documents/caf%C3%A9", 200), ("/v1/documents/cafe%CC%81", 200), ("/%2e%2e/%2e%2e/etc/passwd", 404),
             ("/page.css/..%2f..%2fapp.py", 404), ("/v1/documents/" + "a" * 5_000, 422)]  # fmt: skip

    async def ask() -> None:
        index = SparseStsIndex.open(hostile.path, hostile.encoder)
        service = Service(index, ServerSettings(refresh=0))
        app = create_app(service)
        await service.load()
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for body, status in bodies:
                answer = await client.post("/v1/search", content=body, headers={"content-type": "application/json"})
                assert answer.status_code == status, (body[:50], answer.text)
                if status != 200:
                    assert "\n" not in answer.json()["detail"]
            for path, status in paths:
                answer = await client.get(httpx.URL("http://localhost", raw_path=path.encode()))
                assert answer.status_code == status, (path, answer.text)
            answer = await client.get(httpx.URL("http://localhost", raw_path=b"/v1/documents/cafe%CC%81"))
            assert answer.json() == {"id": "cafe\u0301", "text": SENTENCES["cafe\u0301"]}
            answer = await client.post("/v1/search", json={"queries": [_EVIL], "k": 1, "explain": True})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.json()["results"][0]["hits"][0]["text"] == _EVIL
        await service.close()

    asyncio.run(ask())
