"""A flipped bit, or a cut, in every file of an index and of a collection of shards: it does not open, and unchecked,
verify says so."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import warm
from conftest import Faults
from looking import look
from test_kills import BUILD, CHUNK, Setting, setting  # noqa: F401

from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import MANIFEST_FILE
from sparse_sts_index.storage.shards import Collection, Shard

FLIPS, CUTS = 60, 20


@pytest.fixture(scope="module")
def whole(setting: Setting) -> Path:  # noqa: F811
    """Two shards, one of them of several segments, with dead rows and deleted documents."""
    options = {"chunk": CHUNK, "folder": setting.folder}
    path = setting.folder / "collection"
    shutil.copytree(setting.base, path / "one")
    assert warm.run([*BUILD, "others.jsonl", "--output", path / "two"], **options).status == 0
    for arguments in (["delete", path / "two", "--ids", "gone.txt"], ["update", path / "one", "changed.jsonl"]):
        assert warm.run(arguments, **options).status == 0
    warm.call(make_collection, path)
    assert warm.call(look, path) is not None
    return path


def make_collection(path: Path) -> None:
    shards = []
    for folder in ("one", "two"):
        with ImpactIndex.open(path / folder) as index, index.using() as snapshot:
            shards.append(Shard(folder, len(index), snapshot.sha256))
    Collection(tuple(shards), "2026-01-01T00:00:00+00:00", 1.0).write(path)


@pytest.mark.parametrize("what", ["flipped bit", "cut file"])
def test_damage(what: str, whole: Path, faults: Faults, share: float, seed: int) -> None:
    rng = random.Random(f"{seed} {what}")
    files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.name != "write.lock"]
    for file in files:
        content = file.read_bytes()
        if not content:
            continue
        row = faults.row(f"{what}: {'lucene' if file.parent.name == 'lucene' else file.name}")
        for _ in range(round((FLIPS if what == "flipped bit" else CUTS) * share)):
            position = rng.randrange(len(content))
            if what == "flipped bit":
                changed = bytearray(content)
                changed[position] ^= 1 << rng.randrange(8)
            else:
                changed = bytearray(content[:position])
            file.write_bytes(changed)
            row.tried += 1
            opened = opens(whole)
            if opened and file.name != MANIFEST_FILE:  # of which the copy is not read
                row.wrong += 1
                faults.failed(f"{file}, {position}: opens")
            if verifies(whole):
                row.wrong += 1
                faults.failed(f"{file}, {position}: verifies")
        file.write_bytes(content)
    assert opens(whole)
    assert verifies(whole)


def opens(path: Path) -> bool:
    try:
        ImpactIndex.open(path).close()
    except ImpactIndexError:
        return False
    return True


def verifies(path: Path) -> bool:
    try:
        with ImpactIndex.open(path, check=False) as index:
            index.verify()
    except ImpactIndexError:
        return False
    return True
