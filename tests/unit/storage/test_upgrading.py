"""Indexes of format 3, as they were written with Lucene 9.9: read, searched, changed, and upgraded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sparse_sts_index import ImpactIndexError, ModelError
from sparse_sts_index.encoding.matching import load_matching
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage import ImpactIndex, merge, upgrade
from sparse_sts_index.storage.lucene.reader import lucene_version
from sparse_sts_index.storage.manifest import FORMAT_VERSION, Manifest
from sparse_sts_index.storage.shards import Collection
from tests.support import VOCABULARY, build, chunk, random_vectors

FIXTURE = Path(__file__).parents[2] / "fixtures" / "format-3"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
QUERIES = csr_array(np.array(EXPECTED["queries"], np.float32))
KINDS = ("index", "collection")


@dataclasses.dataclass
class Old:
    """A copy of an old index, and what the version that wrote it answered."""

    path: Path
    documents: list[list[str]]
    hits: list[list[list[Any]]]


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    return copy(request.param, tmp_path)


def copy(kind: str, folder: Path) -> Old:
    shutil.copytree(FIXTURE / kind, folder / kind)
    return Old(folder / kind, EXPECTED[kind]["documents"], EXPECTED[kind]["hits"])


def documents(index: ImpactIndex) -> list[list[str]]:
    return [[document.id, document.text] for part in index.read() for document in part.documents]


def hits(index: ImpactIndex, in_memory: bool) -> list[list[list[Any]]]:
    with index.using() as snapshot:
        found = Searcher(snapshot, in_memory).search(QUERIES, 5)
    assert all(neighbours.certified for neighbours in found)
    return [[list(hit) for hit in zip(neighbours.ids, neighbours.cosines, strict=True)] for neighbours in found]


def check(old: Old, version: int) -> None:
    """All that was there is there, and answers are the same to the last bit, in memory and by Lucene."""
    with ImpactIndex.open(old.path) as index:
        assert index.manifest.format_version == version
        assert documents(index) == old.documents
        assert hits(index, in_memory=True) == hits(index, in_memory=False) == old.hits
        assert index.verify() == len(old.documents)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "write.lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_old_index_is_read_as_it_is_and_left_so(old: Old) -> None:
    before = digests(old.path)
    check(old, 3)
    assert digests(old.path) == before


def test_upgrading_changes_the_form_and_no_answer(old: Old) -> None:
    counted: list[int] = []
    with ImpactIndex.open(old.path) as reader:
        assert upgrade(old.path, progress=counted.append)
        assert hits(reader, in_memory=False) == old.hits  # an open reader keeps what it has
    assert sum(counted) == len(old.documents)
    check(old, FORMAT_VERSION)
    with ImpactIndex.open(old.path) as index, index.using() as snapshot:
        assert snapshot.reader.made_by_this_lucene
        assert snapshot.manifest.software["lucene"] == lucene_version()
        assert len(snapshot.store) == len(old.documents)  # rows of what was deleted are gone
        assert snapshot.manifest.build_seconds > 0
    before = digests(old.path)
    assert not upgrade(old.path)
    assert digests(old.path) == before


def test_what_else_is_in_the_folder_stays(old: Old) -> None:
    (old.path / "notes.txt").write_text("mine")
    assert upgrade(old.path)
    assert (old.path / "notes.txt").read_text() == "mine"
    check(old, FORMAT_VERSION)


def test_nothing_of_the_old_index_is_left(old: Old) -> None:
    upgrade(old.path)
    names = {path.name for path in old.path.iterdir()}
    if old.path.name == "index":
        assert names == {"lucene", "manifest.json", "vectors-000002"}
    else:
        (folder,) = {Path(shard.folder).parts[0] for shard in Collection.read(old.path).shards}
        assert names == {"collection.json", folder}
        assert folder != "shards-000000000003"


@pytest.mark.parametrize("documents_done", [1, 30, 59])
def test_an_interrupted_upgrade_changes_nothing(old: Old, documents_done: int) -> None:
    before, done = digests(old.path), 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done >= documents_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upgrade(old.path, progress=interrupt)
    after = digests(old.path)
    assert {name: after[name] for name in before} == before
    check(old, 3)
    assert upgrade(old.path)
    check(old, FORMAT_VERSION)


def test_a_change_by_another_writer_is_not_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at the index and having its lock."""
    old = copy("index", tmp_path)
    from sparse_sts_index.storage import upgrading

    building = upgrading.building

    def late(*arguments: Any, **options: Any) -> Any:
        with ImpactIndex.open(old.path, writable=True) as index:
            index.delete(["s10"])
        return building(*arguments, **options)

    monkeypatch.setattr(upgrading, "building", late)
    with pytest.raises(ImpactIndexError, match="changed meanwhile: try again"):
        upgrade(old.path)
    monkeypatch.undo()
    with ImpactIndex.open(old.path) as index:
        assert documents(index) == [document for document in old.documents if document[0] != "s10"]


def test_another_writer_keeps_an_upgrade_away(tmp_path: Path) -> None:
    old = copy("index", tmp_path)
    with (
        ImpactIndex.open(old.path, writable=True),
        pytest.raises(ImpactIndexError, match="another writer is at this index"),
    ):
        upgrade(old.path)
    check(old, 3)


def test_one_upgrade_of_a_collection_at_a_time(tmp_path: Path) -> None:
    old = copy("collection", tmp_path)

    def another(_: int) -> None:
        with pytest.raises(ImpactIndexError, match="another process is writing there"):
            upgrade(old.path)

    assert upgrade(old.path, progress=another)
    check(old, FORMAT_VERSION)


_KILLED_IN_THE_SECOND_SHARD = """
import os, signal, sys
from sparse_sts_index.storage import upgrade

done = 0
def progress(count):
    global done
    done += count
    if done > 25:
        os.kill(os.getpid(), signal.SIGKILL)

upgrade(sys.argv[1], progress=progress)
"""


def test_a_killed_upgrade_of_a_collection_is_made_again(tmp_path: Path) -> None:
    old = copy("collection", tmp_path)
    before = digests(old.path)
    killed = subprocess.run([sys.executable, "-c", _KILLED_IN_THE_SECOND_SHARD, str(old.path)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = {entry.name for entry in old.path.iterdir()} - {"collection.json", "shards-000000000003"}
    assert left.endswith(".partial")
    assert {name: digest for name, digest in digests(old.path).items() if not name.startswith(left)} == before
    check(old, 3)
    assert upgrade(old.path)
    check(old, FORMAT_VERSION)
    assert not (old.path / left).exists()


@pytest.mark.parametrize("form", ["{}", ".{}.partial", ".{}.replaced"])
def test_links_in_a_strangers_collection_lead_nowhere(tmp_path: Path, form: str) -> None:
    """The name of the new folder can be computed beforehand."""
    old, trial, victim = copy("collection", tmp_path), copy("collection", tmp_path / "trial"), tmp_path / "victim"
    upgrade(trial.path)
    name = Path(Collection.read(trial.path).shards[0].folder).parts[0]
    (victim / "00000").mkdir(parents=True)
    (victim / "00000" / "precious").write_text("mine")
    (old.path / form.format(name)).symlink_to(victim)
    with pytest.raises(ImpactIndexError, match="a link; a collection holds its own files"):
        upgrade(old.path)
    assert (victim / "00000" / "precious").read_text() == "mine"
    check(old, 3)


def test_shards_elsewhere_stay(tmp_path: Path) -> None:
    """Of a collection that names a link to another's index as its own."""
    old = copy("collection", tmp_path)
    shards, elsewhere = old.path / "shards-000000000003", tmp_path / "elsewhere"
    (shards / "00001").rename(elsewhere)
    (shards / "00001").symlink_to(elsewhere)
    before = digests(elsewhere)
    assert upgrade(old.path)
    check(old, FORMAT_VERSION)
    assert digests(elsewhere) == before


def test_what_else_is_among_old_shards_stays(tmp_path: Path) -> None:
    old = copy("collection", tmp_path)
    shards = old.path / "shards-000000000003"
    for file in (shards / "notes.txt", shards / "00001" / "notes.txt"):
        file.write_text("mine")
    assert upgrade(old.path)
    check(old, FORMAT_VERSION)
    assert {path.name for path in shards.rglob("*")} == {"notes.txt", "00001"}


def test_an_old_index_is_changed_and_compacted(tmp_path: Path) -> None:
    old, extra = copy("index", tmp_path), random_vectors(np.random.default_rng(5), 7)
    ids = [f"x{number}" for number in range(7)]
    build(tmp_path / "other", ids, extra)
    with ImpactIndex.open(old.path, writable=True) as index, ImpactIndex.open(tmp_path / "other") as other:
        index.write([chunk(ids, extra)], replace=False, commit=True)
        assert index.manifest.format_version == FORMAT_VERSION
        assert documents(index) == old.documents + documents(other)
        merged = [
            sorted([*a, *b], key=lambda hit: (-hit[1], hit[0]))[:5]
            for a, b in zip(old.hits, hits(other, True), strict=True)
        ]
        assert hits(index, in_memory=False) == merged
        assert index.delete(ids) == 7
        index.compact()
    check(old, FORMAT_VERSION)


def test_old_indexes_are_merged(tmp_path: Path) -> None:
    shards = copy("collection", tmp_path)
    merge(tmp_path / "whole", [shards.path])
    check(Old(tmp_path / "whole", shards.documents, shards.hits), FORMAT_VERSION)


def test_an_empty_index_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, written = copy("index", tmp_path), Manifest.to_json

    def of_version_3(self: Manifest) -> str:
        values = json.loads(written(self)) | {"format_version": 3}
        del values["features"]
        return json.dumps(values | {"vectors": dataclasses.asdict(self.vectors)})

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "to_json", of_version_3)
        with ImpactIndex.open(old.path, writable=True) as index:
            index.delete([doc_id for doc_id, _ in old.documents])
    check(Old(old.path, [], [[]] * len(old.hits)), 3)
    assert upgrade(old.path)
    check(Old(old.path, [], [[]] * len(old.hits)), FORMAT_VERSION)


def test_what_a_newer_version_has_added_is_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read; what would write it anew says why it does not."""
    path, written = tmp_path / "index", Manifest.to_json

    def newer(self: Manifest) -> str:
        return json.dumps(json.loads(written(self)) | {"owners": ["me"]})

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "to_json", newer)
        build(path, ["1", "2"], random_vectors(np.random.default_rng(1), 2))
    before = digests(path)
    with ImpactIndex.open(path) as index:
        assert [doc_id for doc_id, _ in documents(index)] == ["1", "2"]
        assert index.verify() == 2
    for change in (
        lambda: ImpactIndex.open(path, writable=True),
        lambda: merge(tmp_path / "merged", [path]),
    ):
        with pytest.raises(ImpactIndexError, match="can be read here, and not changed: the index has owners"):
            change()
    assert digests(path) == before
    assert not (tmp_path / "merged").exists()


def test_an_unknown_precision_is_refused_by_the_encoder() -> None:
    spec = Manifest("tiny", "", VOCABULARY.sha256, 40, "int4", 8)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="idx was encoded in int4, which this version does not know: update"):
        load_matching(spec, "idx")


@pytest.mark.parametrize(("name", "documents"), [("created", 3), ("added-to", 60)])
def test_indexes_of_lucene_10(tmp_path: Path, name: str, documents: int) -> None:
    """Lucene 9 refuses them, and says what wrote them and what to do."""
    path = tmp_path / name
    shutil.copytree(FIXTURE.parent / "lucene-10" / name, path)
    if int(lucene_version().split(".")[0]) >= 10:
        with ImpactIndex.open(path) as index:
            assert index.verify() == documents
        assert upgrade(path) == (name == "added-to")
        return
    wrote = r"written by Lucene 10\.5\.0 \(sparse-sts-index 0\.2\.0, Python 3\.13\.0\)"
    message = f"{wrote}, which Lucene {lucene_version()} does not read: use a newer Pyserini"
    before = digests(path)
    for attempt in (
        lambda: ImpactIndex.open(path),
        lambda: ImpactIndex.open(path, writable=True),
        lambda: upgrade(path),
    ):
        with pytest.raises(ImpactIndexError, match=message):
            attempt()
    assert digests(path) == before
    (path / "manifest.json").write_text("no JSON")
    with pytest.raises(ImpactIndexError, match="written by another version of Lucene, which Lucene"):
        ImpactIndex.open(path)
