"""Rewrite an index of an earlier format, or of an earlier Lucene, from its own vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from sparse_sts_index._utils.files import os_errors_as, sync_folder
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.builder import building
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import SHARDS_FOLDER
from sparse_sts_index.storage.manifest import FORMAT_VERSION
from sparse_sts_index.storage.shards import Collection, Shard, is_collection, open_collection
from sparse_sts_index.storage.snapshot import Snapshot


def upgrade(path: str | Path, *, progress: Callable[[int], None] | None = None) -> bool:
    """Rewrite an index, or each shard of a collection, in the current format with the Lucene in use.

    Everything comes from the index itself: no model is loaded, and hits and cosines stay what they were. The new one
    appears in the place of the old in one atomic step at the end; searches go on meanwhile, and there has to be room
    for both. What was deleted or replaced is left out, as by :meth:`.ImpactIndex.compact`.

    Parameters
    ----------
    path : str or Path
    progress : callable, optional
        Called with the number of documents written since its last call.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    ImpactIndexError
        No index there, a damaged one, one that a newer version wrote, or it cannot be written. It is as it was.
    JavaError
        No Java to do it with.
    """
    path = Path(path).absolute()
    with ImpactIndex.open(path) as index, index.using() as snapshot:
        if snapshot.manifest.format_version == FORMAT_VERSION and snapshot.reader.made_by_this_lucene:
            return False
        if is_collection(path):
            _upgrade_collection(path, progress)
        else:
            _rewrite(path, snapshot, path, progress)
    return True


def _rewrite(path: Path, before: Snapshot, target: Path, progress: Callable[[int], None] | None) -> None:
    """Write what is in the index at `path` to `target`, which may be the same."""
    manifest = before.manifest
    manifest.check_known(path)
    with building(target, manifest, before.vocabulary, overwrite=True, in_place=target == path) as transaction:
        if not before.is_current():  # from here on nobody else can change it
            raise ImpactIndexError(f"{path} was changed meanwhile: try again")
        transaction.add_snapshot(before, progress)


def _upgrade_collection(path: Path, progress: Callable[[int], None] | None) -> None:
    """Build all shards beside the old ones, and let ``collection.json`` name them."""
    before = Collection.read(path)
    name = f"shards-{hashlib.sha256(repr((before, FORMAT_VERSION)).encode()).hexdigest()[:12]}"
    shards = []
    with os_errors_as(ImpactIndexError, f"cannot write {path}"):
        for number, shard in enumerate(before.shards):
            target = path / name / f"{number:05}"
            with ImpactIndex.open(path / shard.folder) as old, old.using() as snapshot:
                _rewrite(path / shard.folder, snapshot, target, progress)
            with ImpactIndex.open(target) as new, new.using() as snapshot:
                shards.append(Shard(f"{name}/{target.name}", len(new), snapshot.sha256))
        after = dataclasses.replace(before, shards=tuple(shards))
        open_collection(path, after, check=False).release()
        if Collection.read(path) != before:
            raise ImpactIndexError(f"{path} was changed meanwhile: try again")
        sync_folder(path / name)
        after.write(path)
        sync_folder(path)
    for folder in {Path(shard.folder).parts[0] for shard in before.shards}:
        if SHARDS_FOLDER.fullmatch(folder):
            shutil.rmtree(path / folder, ignore_errors=True)
