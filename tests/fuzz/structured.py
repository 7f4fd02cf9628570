"""Structured fuzzing with hypothesis: files, JSON, models and requests that are nearly right.

``FUZZ_EXAMPLES`` says how many of each; FUZZ_COUNTS, if set, is a file for what was tried, accepted and refused.
"""

from __future__ import annotations

import atexit
import copy
import csv
import gzip
import io
import json
import os
import shutil
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import targets
from hypothesis import HealthCheck, given, settings, strategies as st
from support import build, random_vectors

from sparse_sts_index import Document, SparseStsEncoder, read_corpus
from sparse_sts_index.data.documents import check_ids
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.models import load_splade
from sparse_sts_index.storage.impact_index import ImpactIndex

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
COUNTS: Counter[str] = Counter()
_fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
_few = settings(_fuzz, max_examples=max(10, EXAMPLES // 5))


@atexit.register
def _keep_counts() -> None:
    if path := os.environ.get("FUZZ_COUNTS"):
        Path(path).write_text(json.dumps(COUNTS))


def count(what: str, accepted: bool) -> None:
    COUNTS[f"{what}: {'accepted' if accepted else 'refused'}"] += 1


#: Text with more of what breaks lines, directions, encodings and syntaxes than there is in the wild.
nasty = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "\0\t\n\r\x0b\x0c\x1b\x1c\x85\u2028\u2029\ufeff\u200b\u200d\u202e\u0301\ue000\"'\\*:?,;{}[]%#<&=+-@"
        ),
    ),
    max_size=40,
)
ids = nasty.filter(lambda text: text.strip() != "")
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def nearly(draw: st.DrawFn, good: Any) -> Any:
    """`good`, with some of what is in it replaced, left out or added."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        holder = value
        while True:
            places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(holder[place], dict | list) and holder[place] and draw(st.booleans()):
                holder = holder[place]
                continue
            change = draw(st.sampled_from(["replace", "remove", "add"]))
            if change == "remove":
                del holder[place]
            elif change == "replace" or isinstance(holder, list):
                holder[place] = draw(json_values)
            else:
                holder[draw(st.text(max_size=6))] = draw(json_values)
            break
    return value


@_fuzz
@given(st.lists(st.one_of(st.fixed_dictionaries({"id": st.one_of(ids, st.integers())}, optional={
    "text": st.one_of(nasty, json_values), "title": st.one_of(nasty, json_values), "_id": json_values, "x": json_values
}), json_values), max_size=5), st.sampled_from(["\n", "\r\n", "\n\n"]))  # fmt: skip
def test_jsonl(rows: list[Any], end: str) -> None:
    data = "".join(json.dumps(row) + end for row in rows).encode()
    count("jsonl", targets.corpus("jsonl")(data))
    count("jsonl.gz", targets.corpus("jsonl.gz")(gzip.compress(data, 1)))
    count("pairs.jsonl", targets.pairs("jsonl")(data))


@_fuzz
@given(st.dictionaries(ids, nasty, min_size=1, max_size=6))
def test_round_trips_of_files(documents: dict[str, str]) -> None:
    """What is written by others' writers is read as it was, whatever it is."""
    rows = [{"id": doc_id, "text": text} for doc_id, text in documents.items()]
    folder = targets.FOLDER
    (folder / "r.jsonl").write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "r.parquet")
    with (folder / "r.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("id", "text"), *documents.items()])
    for name in ("r.jsonl", "r.parquet", "r.csv"):
        read = {document.id: document.text for document in check_ids(read_corpus(folder / name))}
        assert read == documents, name
        count("round trips of files", True)


@_fuzz
@given(
    st.lists(st.lists(nasty, max_size=4), max_size=6),
    st.sampled_from([",", "\t"]),
    st.booleans(),
    st.binary(max_size=3),
)
def test_tables(rows: list[list[str]], delimiter: str, header: bool, tail: bytes) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerows([["id", "text"]] * header + rows)
    data = file.getvalue().encode() + tail
    format = "csv" if delimiter == "," else "tsv"
    count(format, targets.corpus(format)(data))
    count(f"pairs.{format}", targets.pairs(format)(data))


@_fuzz
@given(st.data())
def test_broken_gzip(data: st.DataObject) -> None:
    """Out of a gzip file that is cut or changed come documents of the whole one, and then an error."""
    documents = [(str(n), f"text {n}") for n in range(50)]
    whole = gzip.compress("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in documents).encode(), mtime=0)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + data.draw(st.integers(0, 3)) :]
    path = targets.FOLDER / "broken.jsonl.gz"
    path.write_bytes(changed)
    read: list[tuple[str, str]] = []

    def action() -> None:
        read.extend((document.id, document.text) for document in read_corpus(path))
        assert read == documents

    count("broken gzip", targets.attempt(action))


names = st.sampled_from(["id", "_id", "text", "title", "sentence1", "sentence2", "score", "x\n"])
columns = st.sampled_from([
    pyarrow.string(), pyarrow.large_string(), pyarrow.int64(), pyarrow.float64(), pyarrow.bool_(), pyarrow.null(),
    pyarrow.binary(), pyarrow.list_(pyarrow.string()), pyarrow.struct([("a", pyarrow.string())]), pyarrow.date32(),
    pyarrow.timestamp("us", "UTC"), pyarrow.decimal128(5), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    pyarrow.map_(pyarrow.string(), pyarrow.int32()), pyarrow.duration("s"), pyarrow.time64("us"),
])  # fmt: skip


@_fuzz
@given(st.lists(st.tuples(names, columns), min_size=1, max_size=5), st.integers(0, 3), st.data())
def test_parquet(fields: list[tuple[str, pyarrow.DataType]], rows: int, data: st.DataObject) -> None:
    arrays = []
    for _, kind in fields:
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_dictionary(kind):
            arrays.append(
                pyarrow.array(data.draw(st.lists(nasty, min_size=rows, max_size=rows)), pyarrow.string()).cast(kind)
            )
        else:
            arrays.append(pyarrow.nulls(rows, kind))
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, [name for name, _ in fields]), file)
    count("parquet", targets.corpus("parquet")(file.getvalue()))
    count("pairs.parquet", targets.pairs("parquet")(file.getvalue()))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    count("damaged parquet", targets.corpus("parquet")(bytes(content)))


def _good(name: str) -> Any:
    return json.loads(targets.TARGETS[name].seeds[0])


@pytest.mark.parametrize("name", ["manifest", "collection", "calibration", "vocabulary"])
def test_what_indexes_and_models_say_of_themselves(name: str) -> None:
    @_fuzz
    @given(nearly(_good(name)))
    def check(value: Any) -> None:
        count(name, targets.TARGETS[name].run(json.dumps(value).encode()))

    check()


def test_collections_whose_seal_is_right() -> None:
    """Whoever writes an index can seal it as well."""
    try:
        from sparse_sts_index._utils.files import to_sealed_json
    except ImportError:
        pytest.skip("collections are not sealed")

    good = _good("collection")

    @_fuzz
    @given(
        nearly(
            {
                name: value
                for name, value in good.items()
                if name in ("shards", "created", "build_seconds", "format_version")
            }
        )
    )
    def check(value: Any) -> None:
        try:
            sealed = to_sealed_json(value)
        except (TypeError, ValueError):
            return
        count("sealed collection", targets.collection(sealed.encode("utf-8", "replace")))

    check()


@_fuzz
@given(st.one_of(nasty, st.from_regex(r"[a-z]+\+(https?|file):(//)?[^\s]{0,30}", fullmatch=True)))
def test_urls(text: str) -> None:
    count("url", targets.url(text.encode("utf-8", "surrogatepass")))


@_few
@given(st.dictionaries(ids, nasty, min_size=1, max_size=12))
def test_lucene_gives_back_what_it_was_given(documents: dict[str, str]) -> None:
    import numpy as np

    folder = targets.FOLDER / "index"
    shutil.rmtree(folder, ignore_errors=True)
    names = list(documents)
    build(folder, names, random_vectors(np.random.default_rng(len(names)), len(names)))
    with ImpactIndex.open(folder, writable=True) as index:
        assert index.verify() == len(names)
        for name in names:
            assert index.get(name) == Document(name, f"text of {name}")
        assert [d.id for chunk in index.read() for d in chunk.documents] == names
        assert index.delete([names[0]]) == 1
        assert index.get(names[0]) is None
        assert len(index) == len(names) - 1
    count("ids through Lucene", True)


_MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "sentence_bert_config.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    load_splade("tiny").save_pretrained(str(folder), create_model_card=False)
    assert (folder / "model.safetensors").stat().st_size == (tiny_folder() / "model.safetensors").stat().st_size
    return folder


@_few
@given(st.sampled_from([*_MODEL_FILES, "model.safetensors"]), st.data())
def test_damaged_models(model: Path, file: str, data: st.DataObject) -> None:
    """They do not load, or encode as well as they can, or say that they cannot."""
    good = (model / file).read_bytes()
    if file == "model.safetensors" or data.draw(st.booleans()):
        place = data.draw(st.integers(0, min(len(good), 100_000)))
        content = good[:place] + data.draw(st.binary(max_size=20)) + good[place + data.draw(st.integers(0, 20)) :]
    else:
        value = json.loads(good)
        if file == "tokenizer.json":  # its vocabulary is long
            parts = {name: part for name, part in value.items() if name != "model"}
            changed = data.draw(nearly(parts))
            content = json.dumps({**changed, "model": value["model"]}).encode()
        else:
            content = json.dumps(data.draw(nearly(value))).encode()
    (model / file).write_bytes(content)
    try:

        def action() -> None:
            vectors = SparseStsEncoder(load_splade(model), "x", precision="float32").encode(["a cat", "\u0301 \x00"])
            assert ((vectors.data >= 0) & (vectors.data <= 1.0001)).all()

        try:
            count(f"model: {file}", targets.attempt(action))
        except BaseException:
            (targets.FOLDER / f"failed-{file}").write_bytes(content)
            raise
    finally:
        (model / file).write_bytes(good)


_BODIES: dict[bytes, Any] = {
    b"/v1/search": {"queries": ["a", "b"], "k": 3, "mode": "exact", "explain": True},
    b"/v1/score": {"pairs": [{"sentence1": "a", "sentence2": "b"}]},
    b"/v1/explain": {"pairs": [{"sentence1": "a", "sentence2": "b"}]},
    b"/v1/documents": {"documents": [{"id": "x", "text": "y"}]},
    b"/v1/documents/delete": {"ids": ["x"]},
}


@_fuzz
@given(st.sampled_from(sorted(_BODIES)), st.data())
def test_requests(path: bytes, data: st.DataObject) -> None:
    if not targets._server:
        targets._server.append(targets.Server())
    body = data.draw(nearly(_BODIES[path]))
    method = data.draw(st.sampled_from(["POST", "PUT"]))
    count("request", targets._server[0].ask(method, path, json.dumps(body).encode()) < 400)


@_fuzz
@given(
    st.text(string.printable, max_size=30), st.binary(max_size=30), st.sampled_from(["application/json", "text/plain"])
)
def test_paths(path: str, body: bytes, kind: str) -> None:
    if not targets._server:
        targets._server.append(targets.Server())
    from urllib.parse import quote

    for method in ("GET", "DELETE", "POST"):
        raw = b"/v1/documents/" + quote(path, safe="/%").encode()
        count("path", targets._server[0].ask(method, raw, body, kind) < 400)
