"""Input of people who mean harm: a right result or one error of this library, in one line; no code of theirs is run.

The other errors of the readers are in test_records.py and test_documents.py. Slow searches for more are in tests/fuzz.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hostile import SENTENCES, one_line, refused
from support import VOCABULARY, build, random_vectors, store

from sparse_sts_index import (
    Document,
    load_pairs,
    read_corpus,
)
from sparse_sts_index._utils.hub import hub_reachable
from sparse_sts_index.data.documents import check_ids, examine_corpus
from sparse_sts_index.data.records import MAX_ROW_BYTES
from sparse_sts_index.encoding.calibration import CALIBRATION_FILE, Calibration
from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.backends.terms import escape
from sparse_sts_index.engines.target import parse_url
from sparse_sts_index.errors import EngineError, ImpactIndexError
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage import builder
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import COLLECTION_FILE
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import Collection
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter, remove_vectors
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    pass

Write = Callable[..., Path]

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
        ("c.txt", b"\xff\xfea\0\n\0", [":1: UTF-16, not UTF-8"]),
        ("c.jsonl", b'{"id": "\xed\xa0\x80", "text": "a"}\n', [":1: not UTF-8"]),
    ],
)
def test_collections(write: Write, name: str, content: bytes, parts: list[str]) -> None:
    path = write(name, content)
    refused(lambda: examine_corpus(path), *parts)


def test_a_row_of_csv_has_an_end_even_where_fields_may_be_of_any_length(write: Write) -> None:
    """Another library may have raised the limit of Python's csv, which is for the whole process."""
    import csv

    path = write("c.csv", b'id,text\n1,"' + b"a\n" * (MAX_ROW_BYTES // 2))
    before = csv.field_size_limit(1 << 30)
    try:
        refused(lambda: examine_corpus(path), "c.csv:2: a row of more than 16 MiB (a quote that is not closed?)")
    finally:
        csv.field_size_limit(before)


def test_a_gzip_bomb_takes_no_memory(write: Write) -> None:
    """A quarter of a gigabyte in one line, out of a quarter of a megabyte."""
    path = write("bomb.txt.gz", b"".join(gzip.compress(bytes(16 << 20), 9) for _ in range(16)))
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    try:
        refused(lambda: examine_corpus(path), "bomb.txt.gz:1: a line of more than 16 MiB")
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
        ({"id": ["1"], "text": [b"\xff"]}, ["row 1: text is not UTF-8 (byte 1)"]),
        ({"id": ["1"], "text": ["a"], "title": [["a"]]}, ["column title is list<element: string>"]),
        ({"id": [1.5], "text": ["a"]}, ["row 1: id must be a string or an integer, found float"]),
        (
            {"number": [1], "body\x1b": ["a"]},
            ["missing column _id or id or docid and text", r"found: number, body\x1b"],
        ),
        ({"id": pyarrow.array([2**62], pyarrow.timestamp("ms")), "text": ["a"]}, ["not a readable parquet file"]),
        (
            {"id": pyarrow.array([0], pyarrow.timestamp("s", "No/Where")), "text": ["a"]},
            ["not a readable parquet file"],
        ),
    ],
)
def test_parquet_of_odd_types(tmp_path: Path, columns: dict[str, Any], parts: list[str]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    refused(lambda: examine_corpus(tmp_path / "c.parquet"), *parts)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_parquet_whose_end_is_damaged(tmp_path: Path, filling: bytes) -> None:
    """Found by atheris: what Arrow says of it ends with a line feed."""
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1"], "text": ["a"]}), tmp_path / "c.parquet")
    content = (tmp_path / "c.parquet").read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    (tmp_path / "c.parquet").write_bytes(content[: -8 - length] + filling * length + content[-8:])
    refused(lambda: examine_corpus(tmp_path / "c.parquet"), "c.parquet")


def test_a_parquet_bomb(tmp_path: Path) -> None:
    """A text of 20 MiB a thousand times, in a few kilobytes; and one of 4 MiB, which is read row by row."""
    path = tmp_path / "c.parquet"
    for size in (20 << 20, 4 << 20):
        texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["a" * size])
        table = pyarrow.table({"id": [str(n) for n in range(1000)], "text": texts})
        pyarrow.parquet.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 10_000
        if size > MAX_ROW_BYTES:
            refused(lambda: examine_corpus(path), "a value of more than 16 MiB, in row 1 or one of the next")
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
    refused(lambda: examine_corpus(tmp_path / "twice.parquet"), "two columns text")


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
    evil = "\x1b[31m\n\u202e" * 1_000
    yield "evil feature", json.dumps({**manifest, "features": [evil], "software": {"sparse-sts-index": evil}})
    yield "evil version", json.dumps({**manifest, "format_version": 9, "software": {"sparse-sts-index": evil}})
    yield "nested", "[" * 100_000
    yield "empty", ""


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in hostile_manifests()])
def test_manifests(text: str) -> None:
    known = '"format_version": 3,' in text or ('"format_version": 4,' in text and '"features": []' in text)
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
    content = np.memmap(tmp_path / "v" / name, stored._arrays[name].dtype, "r+")
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
