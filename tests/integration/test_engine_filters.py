"""Fields in serving engines, and filters in their own form: the hits are those of brute force over what passes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_server import Server
from filter_support import START, TYPES, documents, filters, holds
from hypothesis import HealthCheck, find, given, settings, strategies as st
from support import VOCABULARY, brute_force, random_vectors

from sparse_sts_index import DataError, EngineError, Manifest, Quantizer
from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.data.filters import Filter, parse_filter, typed_filter
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.export.files import export_files
from sparse_sts_index.engines.pushing import push
from sparse_sts_index.engines.remote_index import RemoteIndex
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.storage.impact_index import ImpactIndex

LOCAL, HTTP = ("milvus", "qdrant"), ("elasticsearch", "opensearch", "solr")
NAMES = {**TYPES, "a-b.c": "keyword", "z\u00fcge": "number"}
COUNT = 80


def rows() -> list[dict[str, Any]]:
    """Fields of some documents, among them names that engines read in other ways, and no fields at all."""
    rng = np.random.default_rng(3)
    examples = [find(documents, lambda row, n=n: len(row) >= n) for n in range(len(TYPES) + 1)]
    odd = [{"a-b.c": "x"}, {"a-b.c": "y", "z\u00fcge": 2.5}, {"d": START + timedelta(microseconds=1)}]
    values = {
        "k": ["a", "b", 'q"\\', "\u00e4 \U0001f600", "true", "z\n"],
        "ks": [("a",), ("b", "a"), ('q"\\', "z\n", "true")],
        "n": [-1e300, -1.5, 0.0, 1.0, 1.0000000000000002, 3.0, 1e300],
        "d": [START + timedelta(days=days) for days in range(-2, 3)],
        "b": [True, False],
    }
    some = [
        {name: each[rng.integers(len(each))] for name, each in values.items() if rng.random() < 0.7}
        for _ in range(COUNT - len(examples) - len(odd))
    ]
    return [*examples, *odd, *some]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ImpactIndex:
    path: Path = tmp_path_factory.mktemp("fields") / "index"
    vectors = random_vectors(np.random.default_rng(5), COUNT)
    held = [Document(f"d{row:03}", f"text {row}", "", fields) for row, fields in enumerate(rows())]
    manifest = Manifest.without_model(VOCABULARY, 8).with_fields(NAMES)  # type: ignore[arg-type]
    ImpactIndex.build(path, [Chunk(held, vectors, Quantizer(8).quantize(vectors))], manifest, VOCABULARY)
    return ImpactIndex.open(path)


@pytest.fixture(scope="module", params=[*LOCAL, *HTTP])
def remote(
    request: pytest.FixtureRequest, index: ImpactIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteIndex]:
    """The index in each engine: in files, or behind its client at a server that is none."""
    folder, server = tmp_path_factory.mktemp("engine"), None
    if request.param in LOCAL:
        pytest.importorskip({"milvus": "milvus_lite", "qdrant": "qdrant_client"}[request.param])
        url = f"{request.param}+file:{folder}/{'engine.db' if request.param == 'milvus' else 'engine'}/glosses"
    else:
        server = Server()
        url = server.url(request.param)
    engine = connect(url)
    push(Source.of_index(index), engine, batch_size=30)
    yield RemoteIndex(engine, back_off=BackOff(sleep=lambda seconds: None))
    engine.close()
    if server is not None:
        server.http.shutdown()
        server.http.server_close()


def test_fields_come_back(remote: RemoteIndex, index: ImpactIndex) -> None:
    assert dict(remote.metadata.fields) == NAMES
    every = random_vectors(np.random.default_rng(7), 1, 400)
    (hits,) = remote.search_vectors(every, VOCABULARY, COUNT)
    held = {document.id: document.fields for document in next(index.read()).documents}
    assert len(hits) > COUNT / 2
    assert {hit.id: hit.fields for hit in hits} == {hit.id: held[hit.id] for hit in hits}


@given(filters, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filtered_by_the_engine(remote: RemoteIndex, index: ImpactIndex, where: Filter, seed: int) -> None:
    agree(remote, index, where, lambda fields: holds(where, fields), seed)


def agree(
    remote: RemoteIndex, index: ImpactIndex, where: Any, passes: Callable[[dict[str, Any]], bool], seed: int = 1
) -> None:
    chunk = next(index.read())
    passing = [row for row, document in enumerate(chunk.documents) if passes(dict(document.fields))]
    query = random_vectors(np.random.default_rng(seed), 1)
    (hits,) = remote.search_vectors(query, VOCABULARY, 4, where=where)
    names = [chunk.documents[row].id for row in passing]
    assert hits.certified, where
    assert [(hit.id, hit.cosine) for hit in hits] == brute_force(names, chunk.vectors[passing], query, 4), where


@pytest.mark.parametrize("where", ['a-b.c = "x"', "z\u00fcge > 2 and a-b.c exists", 'not a-b.c in ("x", "z")'])
def test_names_of_all_kinds(remote: RemoteIndex, index: ImpactIndex, where: str) -> None:
    typed = typed_filter(parse_filter(where), NAMES)  # type: ignore[arg-type]
    agree(remote, index, where, lambda fields: holds(typed, fields))


def test_filters_that_do_not_fit(remote: RemoteIndex) -> None:
    query = random_vectors(np.random.default_rng(1), 1)
    for where, message in (
        ("x = 1", "no field 'x'; there are a-b.c, b, d"),
        ('n = "a"', "n is a number"),
        ("n >", "expected"),
    ):
        with pytest.raises(DataError, match=message):
            remote.search_vectors(query, VOCABULARY, where=where)


def test_other_fields_want_another_collection(index: ImpactIndex, tmp_path: Path) -> None:
    engine, source = connect(f"qdrant+file:{tmp_path}/q/c"), Source.of_index(index)
    push(source, engine)
    vectors = random_vectors(np.random.default_rng(5), 2)
    manifest = Manifest.without_model(VOCABULARY, 8).with_fields({"k": "number"})
    held = [Document(name, name, "", {"k": 1.0}) for name in "ab"]
    ImpactIndex.build(tmp_path / "other", [Chunk(held, vectors, Quantizer(8).quantize(vectors))], manifest, VOCABULARY)
    other = Source.of_index(ImpactIndex.open(tmp_path / "other"))
    with pytest.raises(
        EngineError, match=r"has a-b\.c \(keyword\), b .*, the documents have k \(number\); .*--overwrite"
    ):
        push(other, engine)
    push(other, engine, overwrite=True)
    assert engine.metadata() == other.metadata
    engine.close()


def test_a_solr_field_of_another_type_is_replaced(index: ImpactIndex) -> None:
    server = Server()
    engine, source = connect(server.url("solr")), Source.of_index(index)
    server.solr_schema["fields"].append({"name": "sts_field_k", "type": "sparse_sts_number"})
    push(source, engine)
    assert {field["type"] for field in server.solr_schema["fields"] if field["name"] == "sts_field_k"} == {
        "sparse_sts_keyword"
    }
    engine.close()
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b.c", "a.b"), ("a.",), ("a..b",)])
@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch"])
def test_names_that_are_no_paths_are_refused_early(index: ImpactIndex, engine: str, names: tuple[str, ...]) -> None:
    server = Server()
    opened, source = connect(server.url(engine)), Source.of_index(index)
    push(source, opened)
    metadata = dataclasses.replace(source.metadata, fields=dict.fromkeys(names, "keyword"))
    with pytest.raises(EngineError, match=f"{engine} takes the field's name a.* for a path"):
        push(dataclasses.replace(source, metadata=metadata), opened, overwrite=True)
    assert len(server.documents) == COUNT
    opened.close()
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize("format", ["elasticsearch", "opensearch", "solr", "milvus", "qdrant"])
def test_exported_files_have_the_fields(index: ImpactIndex, format: str, tmp_path: Path) -> None:
    written = export_files(Source.of_index(index), format, tmp_path / "out")
    assert written == COUNT
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["fields"] == NAMES
    parts = "".join(path.read_text() for path in sorted((tmp_path / "out").glob("part-*")))
    assert parts.count("2026-01-02T00:00:00") >= sum(row.get("d") == START + timedelta(days=1) for row in rows()) > 0
    setup = "".join(
        path.read_text() for path in (tmp_path / "out").glob("*.json") if path.name[:4] not in ("mani", "part")
    )
    assert format == "milvus" or all(name in setup.replace("\\u00fc", "\u00fc") for name in NAMES)


def test_qdrant_requests_are_of_its_models(index: ImpactIndex, tmp_path: Path) -> None:
    """Those of the client, which are generated from Qdrant's OpenAPI description."""
    models = pytest.importorskip("qdrant_client.http.models")
    export_files(Source.of_index(index), "qdrant", tmp_path / "out")
    bodies = [path.read_text() for path in sorted((tmp_path / "out").glob("payload-index-*.json"))]
    indexes = [models.CreateFieldIndex.model_validate_json(body) for body in bodies]
    paths = [f"fields.{name}" for name in TYPES] + ['fields."a-b.c"', 'fields."z\u00fcge"']
    assert [index.field_name for index in indexes] == paths
