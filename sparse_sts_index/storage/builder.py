"""An index that is built: it appears, or takes the place of the one before it, in one atomic step at the end."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparse_sts_index._utils.files import is_partial, os_errors_as, refuse_links, refuse_target, sync_folder
from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.layout import LUCENE_FOLDER, MANIFEST_FILE, VECTORS_FOLDER
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.transaction import Transaction, clean
from sparse_sts_index.vectors.vocabulary import Vocabulary


@contextlib.contextmanager
def building(
    path: Path,
    manifest: Manifest,
    vocabulary: Vocabulary,
    *,
    overwrite: bool = False,
    in_place: bool = False,
    start: float | None = None,
) -> Iterator[Transaction]:
    """Build an index that appears when the block ends well; parameters and errors are as of :meth:`ImpactIndex.build`.

    With `in_place` it takes the place of an index that the caller has open, whatever else is in its folder.
    """
    JAVA.check()
    start = time.monotonic() if start is None else start
    if not in_place:
        check_target(path, overwrite)
    ours = not _holds_index(path)  # whether all that comes into the folder is of this build
    made = [folder for folder in (path / LUCENE_FOLDER, path, *path.parents) if not folder.exists()]
    transaction: Transaction | None = None
    with os_errors_as(ImpactIndexError, f"cannot write {path}"):
        try:
            path.mkdir(parents=True, exist_ok=True)
            try:
                lucene = ImpactWriter(path / LUCENE_FOLDER)
            except ImpactIndexError:
                ours = False  # it may be of another build, which has the lock
                raise
            try:
                ours = not _holds_index(path)  # once more: now nobody else can build there
                if not in_place:
                    check_target(path, overwrite)
                transaction = Transaction(path, manifest, lucene, vocabulary)
            except BaseException:
                lucene.close()
                raise
            yield transaction
            transaction.merge_segments()
            transaction.commit(build_seconds=manifest.build_seconds or round(time.monotonic() - start, 3))
            for folder in made:
                sync_folder(folder.parent)
        except BaseException:
            if JAVA.inherited:  # a child that ends within the block; the build is its parent's
                raise
            if transaction is not None:
                with contextlib.suppress(ImpactIndexError):
                    transaction.close()
            remove_index(path, made, files=ours)
            raise
    clean(path, keep=transaction.committed)
    with contextlib.suppress(ImpactIndexError):  # it is done
        transaction.close()


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse to build over an index that may not be replaced, or over anything that is not an index."""
    complete = _holds_index(path)
    refuse_target(path, "an index", error=ImpactIndexError, parts=_is_part, complete=complete, overwrite=overwrite)
    refuse_links(path / LUCENE_FOLDER)


def _is_part(entry: Path) -> bool:
    known = entry.name in (LUCENE_FOLDER, MANIFEST_FILE) or VECTORS_FOLDER.fullmatch(entry.name) is not None
    return known or is_partial(entry, MANIFEST_FILE)


def _holds_index(path: Path) -> bool:
    """Whether a build has ever been committed there, by the file that every Lucene commit leaves."""
    return any((path / LUCENE_FOLDER).glob("segments_*"))


def remove_index(path: Path, folders: Sequence[Path], *, files: bool = True) -> None:
    """Remove the `files` of an index, and `folders`, innermost first, in which there is nothing else."""
    if files:
        shutil.rmtree(path / LUCENE_FOLDER, ignore_errors=True)
        (path / MANIFEST_FILE).unlink(missing_ok=True)
        if path.is_dir():
            clean(path, keep="")
    for folder in folders:
        with contextlib.suppress(OSError):  # it is not there, or something is in it
            folder.rmdir()
