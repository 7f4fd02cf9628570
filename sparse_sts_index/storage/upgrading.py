"""Rewrite an index of an earlier format, or of an earlier Lucene, from its own vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

from sparse_sts_index._utils.files import folder_writer, locked_folder, os_errors_as, sync_folder
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.builder import building, remove_index
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import SHARDS_FOLDER, is_collection
from sparse_sts_index.storage.manifest import FORMAT_VERSION
from sparse_sts_index.storage.shards import Collection, Shard, open_collection
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
    DataError
        ``collection.json`` cannot be written.
    ImpactIndexError
        No index there, a damaged one, one that a newer version wrote, or it cannot be written. It is as it was.
    JavaError
        No Java to do it with.
    """
    path = Path(path).absolute()
    with ImpactIndex.open(path) as index, index.using() as snapshot:
        if snapshot.manifest.format_version == FORMAT_VERSION and snapshot.reader.made_by_this_lucene:
            return False
        snapshot.manifest.check_known(path)
        if is_collection(path):
            _upgrade_collection(path, snapshot, progress)
        else:
            _rewrite(path, snapshot, path, progress)
    return True


def _rewrite(path: Path, before: Snapshot, target: Path, progress: Callable[[int], None] | None) -> None:
    """Write what is in the index at `path` to `target`, which may be the same."""
    with building(target, before.manifest, before.vocabulary, in_place=target == path) as transaction:
        if not before.is_current():  # from here on nobody else can change it
            raise ImpactIndexError(f"{path} was changed meanwhile: try again")
        transaction.add_snapshot(before, progress)


def _upgrade_collection(path: Path, before: Snapshot, progress: Callable[[int], None] | None) -> None:
    """Build all shards beside the old ones, and let ``collection.json`` name them."""
    with os_errors_as(ImpactIndexError, f"cannot write {path}"), locked_folder(path):
        if not before.is_current():
            raise ImpactIndexError(f"{path} was changed meanwhile: try again")
        old = Collection.read(path)
        name = f"shards-{hashlib.sha256(repr((old, FORMAT_VERSION)).encode()).hexdigest()[:12]}"
        if any(entry.is_symlink() for entry in path.glob(f"*{name}*")):  # as a stranger's collection may have it
            raise ImpactIndexError(f"{path / name}: a link; a collection holds its own files")
        shards = []
        with folder_writer(path / name) as folder:
            for number, shard in enumerate(old.shards):
                target = folder / f"{number:05}"
                with ImpactIndex.open(path / shard.folder, check=False) as index, index.using() as snapshot:
                    _rewrite(path / shard.folder, snapshot, target, progress)
                with ImpactIndex.open(target) as index, index.using() as snapshot:
                    shards.append(Shard(f"{name}/{target.name}", len(index), snapshot.sha256))
        new = dataclasses.replace(old, shards=tuple(shards))
        open_collection(path, new, check=False).release()
        new.write(path)
        sync_folder(path)
        root = path.resolve()
        for shard in old.shards:
            folder = root / shard.folder
            if SHARDS_FOLDER.fullmatch(Path(shard.folder).parts[0]) and folder.resolve() == folder:  # no links
                remove_index(folder, [folder, *itertools.takewhile(root.__ne__, folder.parents)])
