"""Milvus Lite and Qdrant's local mode, for real: pushed, searched, resumed, replaced."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import VOCABULARY, build, chunk, random_vectors, unit_vectors

from sparse_sts_index import (
    DataError,
    EngineError,
    MissingExtraError,
    ModelMismatchError,
    load_pairs,
)
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.base import Busy
from sparse_sts_index.engines.pushing import push
from sparse_sts_index.engines.remote_index import RemoteIndex
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.storage.impact_index import ImpactIndex

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder, SparseStsIndex
    from sparse_sts_index.engines.base import Engine, Point

ENGINES = ("milvus", "qdrant")
COUNT = 130


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}+file:{tmp_path}/{'engine.db' if request.param == 'milvus' else 'engine'}/glosses"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Some ties, and two documents without a term."""
    vectors = random_vectors(np.random.default_rng(5), COUNT).toarray()
    vectors[[3, 77]] = 0
    build(tmp_path / "index", [f"d{row:03}" for row in range(COUNT)], unit_vectors(vectors))
    return Source.of_index(ImpactIndex.open(tmp_path / "index"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = connect(url)
    yield opened
    opened.close()


def held(engine: Engine) -> dict[str, str]:
    """Texts by id of all that can be found."""
    every = unit_vectors(np.ones((1, len(VOCABULARY))))
    (hits,) = RemoteIndex(engine).search_vectors(every, VOCABULARY, 500)
    return {hit.id: hit.text for hit in hits}


def test_answers_are_those_of_the_index(
    url: str, sample_index: SparseStsIndex, tiny: SparseStsEncoder, tmp_path: Path
) -> None:
    """Top 10 with ids, texts, cosines to the last bit, explanations, ties, and the proof."""
    opened = connect(url)
    done = push(Source.of_index(ImpactIndex.open(sample_index.path)), opened, batch_size=300)
    opened.close()
    assert (done.documents, done.skipped, done.empty) == (1000, 0, 0)
    queries = [*load_pairs("sample", "test").sentence1[:60], "Three girls paint a fence."]
    with RemoteIndex.open(url, tiny) as remote:
        found = remote.search(queries, 10, explain=True)
    for hits, expected in zip(found, sample_index.search(queries, 10, explain=True), strict=True):
        assert hits.certified
        assert hits.hits == expected.hits
        assert hits.bound >= expected.bound - 1e-6
    assert len(found) == 61


def test_the_model_is_the_one_that_the_collection_says(
    url: str, sample_index: SparseStsIndex, tiny: SparseStsEncoder
) -> None:
    opened = connect(url)
    source = Source.of_index(ImpactIndex.open(sample_index.path))
    push(source, opened)
    remote = RemoteIndex(opened, precision="float32")
    assert remote.metadata == source.metadata
    assert remote.encoder.fingerprint == tiny.fingerprint
    opened.close()
    other = type(tiny).load("tiny", precision="float32", max_active_dims=7)
    with RemoteIndex.open(url, other) as wrong, pytest.raises(ModelMismatchError, match="was built with model .*tiny"):
        wrong.search(["x"])


def test_twice_is_once_and_what_has_changed_changes(source: Source, engine: Engine, tmp_path: Path) -> None:
    for _ in range(2):
        done = push(source, engine, batch_size=50)
        assert (done.documents, done.empty) == (COUNT - 2, 2)
    first = held(engine)
    assert len(first) == COUNT - 2
    changed = ImpactIndex.open(tmp_path / "index", writable=True)
    changed.delete(["d000"])
    changed.write([chunk(["d001", "new"], random_vectors(np.random.default_rng(6), 2))], replace=True, commit=True)
    changed.close()
    again = Source.of_index(ImpactIndex.open(tmp_path / "index"))
    push(again, engine)
    assert set(held(engine)) == {*first, "new"}  # a push removes nothing
    push(again, engine, overwrite=True)
    assert set(held(engine)) == {*first, "new"} - {"d000"}


class Killed(Exception):  # noqa: N818
    pass


def dies_after(engine: Engine, writes: int, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let so many batches through; what was sent."""
    sent: list[list[str]] = []
    write = engine.write

    def limited(points: Sequence[Point], terms: Sequence[str]) -> None:
        if len(sent) == writes:
            raise Killed
        sent.append([point.id for point in points])
        write(points, terms)

    monkeypatch.setattr(engine, "write", limited)
    return sent


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_push_goes_on(
    source: Source, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    journal = tmp_path / "journal.json"
    if overwrite:
        push(source, engine)
    with monkeypatch.context() as patch:
        dies_after(engine, 3, patch)
        with pytest.raises(Killed):
            push(source, engine, batch_size=20, journal=journal, overwrite=overwrite)
    assert json.loads(journal.read_text())["acknowledged"] == 60
    sent = dies_after(engine, 100, monkeypatch)
    steps: list[int] = []
    done = push(source, engine, batch_size=20, journal=journal, overwrite=overwrite, progress=steps.append)
    assert (done.skipped, done.documents, sum(steps)) == (60, 69, COUNT)  # one of the two without a term was before
    assert sent[0][0] == "d060"
    assert not journal.exists()
    assert len(held(engine)) == COUNT - 2


def test_a_journal_of_something_else_does_not_count(
    source: Source, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.json"

    def kill() -> None:
        with monkeypatch.context() as patch:
            dies_after(engine, 2, patch)
            with pytest.raises(Killed):
                push(source, engine, batch_size=20, journal=journal)

    kill()
    other = dataclasses.replace(source, state="another")
    assert push(other, engine, journal=journal).documents == COUNT - 2
    kill()
    engine.drop()  # what was acknowledged is gone
    assert push(source, engine, journal=journal).documents == COUNT - 2
    assert len(held(engine)) == COUNT - 2
    for text in ("[1]", "{}", '{"acknowledged": "60"}', '{"acknowledged": -1}'):
        journal.write_text(text)
        with pytest.raises(DataError, match="not the journal of a push"):
            push(source, engine, journal=journal)


def test_what_was_acknowledged_to_a_collection_that_is_gone_is_sent_again(
    source: Source, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has made it anew, and however far that has come."""
    journal = tmp_path / "journal.json"

    def dies(after: int, keep: bool, overwrite: bool = False) -> None:
        with monkeypatch.context() as patch:
            dies_after(engine, after, patch)
            with pytest.raises(Killed):
                push(source, engine, batch_size=20, journal=journal if keep else None, overwrite=overwrite)

    dies(3, keep=True)
    engine.drop()
    dies(0, keep=True)
    assert not journal.exists()
    assert push(source, engine, batch_size=20, journal=journal).skipped == 0
    assert len(held(engine)) == COUNT - 2
    engine.drop()
    dies(3, keep=True)
    dies(1, keep=False, overwrite=True)
    assert json.loads(journal.read_text())["acknowledged"] == 60
    assert push(source, engine, batch_size=20, journal=journal).skipped == 0
    assert len(held(engine)) == COUNT - 2


@pytest.mark.parametrize("before", [False, True])
def test_a_killed_push_goes_on_only_as_it_was_begun(
    source: Source, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    journal = tmp_path / "journal.json"
    stale = chunk(["stale"], unit_vectors([[1.0]]))
    push(dataclasses.replace(source, read=lambda skip: iter([stale])), engine)
    with monkeypatch.context() as patch:
        dies_after(engine, 3, patch)
        with pytest.raises(Killed):
            push(source, engine, batch_size=20, journal=journal, overwrite=before)
    done = push(source, engine, batch_size=20, journal=journal, overwrite=not before)
    assert done.skipped == 0
    assert "stale" not in held(engine)
    assert len(held(engine)) == COUNT - 2


def test_no_journal_goes_on_in_a_collection_that_no_push_has_made(
    source: Source, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of exported files, which may be made again without a sign."""
    engine.create(source.metadata)
    with monkeypatch.context() as patch:
        dies_after(engine, 3, patch)
        with pytest.raises(Killed):
            push(source, engine, batch_size=20, journal=tmp_path / "journal")
    assert push(source, engine, batch_size=20, journal=tmp_path / "journal").skipped == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_collection_is_made_once_though_the_answer_is_lost(
    source: Source, engine: Engine, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        push(source, engine)
    lost = {"drop", "create"} if overwrite else {"create"}
    calls: list[str] = []

    def answer_lost(name: str) -> None:
        done = getattr(engine, name)

        def call(*arguments: object) -> None:
            calls.append(name)
            done(*arguments)
            if name in lost:
                lost.remove(name)
                raise Busy("timed out")

        monkeypatch.setattr(engine, name, call)

    answer_lost("create")
    answer_lost("drop")
    push(source, engine, overwrite=overwrite, back_off=BackOff(sleep=lambda seconds: None))
    assert calls == (["drop", "create"] if overwrite else ["create"])
    assert len(held(engine)) == COUNT - 2


def test_another_model_is_refused_by_name(source: Source, engine: Engine) -> None:
    theirs = dataclasses.replace(source.metadata, model="their-model", model_fingerprint="f" * 64)
    engine.create(theirs)
    with pytest.raises(ModelMismatchError, match="is of the model their-model .*--overwrite"):
        push(source, engine)
    assert engine.metadata() == theirs
    push(source, engine, overwrite=True)
    assert engine.metadata() == source.metadata


def test_what_is_busy_is_tried_again(source: Source, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refusals = engine.write, iter([Busy("later", 7.0), Busy("some", left=[]), None, Busy("again")])

    def busy(points: Sequence[Point], terms: Sequence[str]) -> None:
        refusal = next(refusals, None)
        if refusal is None:
            return write(points, terms)
        if refusal.left is not None:  # a part is taken
            write(points[10:], terms)
            raise Busy("some", left=points[:10])
        raise refusal

    monkeypatch.setattr(engine, "write", busy)
    waits: list[float] = []
    push(source, engine, batch_size=100, back_off=BackOff(sleep=waits.append, random=lambda: 0.5))
    assert waits == [7.0, 1.0, 0.5]
    assert len(held(engine)) == COUNT - 2


def test_it_gives_up(source: Source, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(points: Sequence[Point], terms: Sequence[str]) -> None:
        raise Busy("HTTP 503", asked)

    monkeypatch.setattr(engine, "write", busy)
    waits: list[float] = []
    back_off = BackOff(sleep=waits.append, random=lambda: 1.0)
    asked: float | None = None
    with pytest.raises(EngineError, match=r"HTTP 503 \(given up after 10 attempts\)"):
        push(source, engine, back_off=back_off)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    asked = 3600.0
    with pytest.raises(EngineError, match="given up after 1 "):
        push(source, engine, back_off=back_off)


def test_odd_ids_and_texts(engine: Engine, tmp_path: Path) -> None:
    ids = ["ü" * 9000, "a'b\"c]\\", "tab\tnul\0", "😀", " x ", "0", "sha256:abc"]
    build(tmp_path / "odd", ids, unit_vectors(np.eye(len(ids), len(VOCABULARY)) + 0.1))
    push(Source.of_index(ImpactIndex.open(tmp_path / "odd")), engine)
    assert held(engine) == {doc_id: f"text of {doc_id}" for doc_id in ids}


def test_collections_that_are_not_there_or_not_ours(
    source: Source, url: str, engine: Engine, other_collection: Callable[[Engine], None]
) -> None:
    with pytest.raises(EngineError, match="is not there"):
        RemoteIndex(engine)
    other_collection(engine)
    for overwrite in (False, True):
        with pytest.raises(EngineError, match="not made by sparse-sts"):
            push(source, engine, overwrite=overwrite)


@pytest.fixture
def other_collection() -> Callable[[Engine], None]:
    """Make a collection of someone else's under the engine's name."""

    def make(engine: Engine) -> None:
        client = engine._client  # type: ignore[attr-defined]
        if engine.name == "milvus":
            client.create_collection(engine.target.name, dimension=4)
        else:
            client.create_collection(engine.target.name, vectors_config={})

    return make


def test_urls_that_lead_nowhere(tmp_path: Path) -> None:
    for url, message in (
        (f"milvus+file:{tmp_path}/none/x.db/c", "no folder"),
        (f"milvus+file:{tmp_path}/x/c", "has to end in .db"),
        (f"solr+file:{tmp_path}/x/c", "solr has no local mode"),
        ("faiss+http://host/c", "no engine 'faiss'; there are elasticsearch"),
        ("qdrant+http://user:secret@host:6333/c", "takes a token"),
    ):
        with pytest.raises(EngineError, match=message) as caught:
            connect(url)
        assert "secret" not in str(caught.value)
    first = connect(f"qdrant+file:{tmp_path}/q/c")
    with pytest.raises(EngineError, match="already accessed"):
        connect(f"qdrant+file:{tmp_path}/q/c")
    first.close()


@pytest.mark.parametrize(
    ("engine", "module"),
    [
        *(("elasticsearch", "elasticsearch"), ("opensearch", "opensearchpy"), ("solr", "pysolr")),
        *(("milvus", "pymilvus"), ("qdrant", "qdrant_client")),
    ],
)
def test_a_client_that_is_not_installed(engine: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'sparse-sts-index\[{engine}\]'"):
        connect(f"{engine}+http://host/x")


def test_a_text_too_long_for_milvus(tmp_path: Path) -> None:
    vectors = unit_vectors([[1.0] + [0.0] * 39])
    long = chunk(["a"], vectors)
    engine = connect(f"milvus+file:{tmp_path}/m.db/c")
    source = Source(
        Source.of_index(_tiny_index(tmp_path)).metadata,
        VOCABULARY,
        "s",
        1,
        lambda skip: iter(
            [dataclasses.replace(long, documents=[dataclasses.replace(long.documents[0], text="ü" * 40_000)])]
        ),
    )
    with pytest.raises(EngineError, match="document 'a': its text is longer than the 65,535 bytes"):
        push(source, engine)
    engine.close()


def _tiny_index(tmp_path: Path) -> ImpactIndex:
    build(tmp_path / "tiny", ["a"], unit_vectors([[1.0] + [0.0] * 39]))
    return ImpactIndex.open(tmp_path / "tiny")


def test_more_hits_than_an_engine_gives(source: Source, engine: Engine) -> None:
    push(source, engine)
    with pytest.raises(EngineError, match="hits at most"):
        RemoteIndex(engine).search_vectors(unit_vectors(np.ones((1, 40))), VOCABULARY, engine.max_hits + 1)
