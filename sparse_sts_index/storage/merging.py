"""Several indexes folded into one, without encoding anything again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from sparse_sts_index.errors import DataError
from sparse_sts_index.storage.builder import building, check_target
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.shards import check_alike
from sparse_sts_index.storage.snapshot import Snapshot

_ROWS = 1 << 16  # at a time


def merge(
    output: str | Path,
    sources: Sequence[str | Path],
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make one index of the documents of several indexes or collections, in their order.

    Lucene merges the postings (``IndexWriter.addIndexes``), the vectors are copied; the result is what one build of all
    documents would have given, and appears in one atomic step at the end. All ids are held in memory. What an earlier
    Lucene has created is rewritten from the vectors, which takes several times as long.

    Parameters
    ----------
    output : str or Path
        Folder for the index.
    sources : sequence of str or Path
        At least one. They are not changed.
    overwrite : bool
        Replace an index that is there.
    progress : callable, optional
        Called with the number of documents added since its last call.

    Raises
    ------
    DataError
        An id is in two of them, or there are no documents.
    ImpactIndexError
        A source cannot be read, two differ in model or settings, or `output` cannot be written.
    JavaError
        No Java to do it with.
    ValueError
        No sources.
    """
    if not sources:
        raise ValueError("nothing to merge")
    check_target(Path(output), overwrite)
    paths = [Path(source).absolute() for source in sources]
    with ExitStack() as opened:
        indexes = [opened.enter_context(ImpactIndex.open(path)) for path in paths]
        snapshots = [opened.enter_context(index.using()) for index in indexes]
        for snapshot, path in zip(snapshots, paths, strict=True):
            snapshot.manifest.check_known(path)
        check_alike(snapshots, paths)
        check_ids_differ(snapshots, paths)
        # A transaction resets the counts.
        manifest = dataclasses.replace(snapshots[0].manifest, created="", build_seconds=0.0)
        with building(Path(output), manifest, snapshots[0].vocabulary, overwrite=overwrite) as transaction:
            for snapshot in snapshots:
                transaction.add_snapshot(snapshot, progress)
            if not transaction.documents:
                raise DataError("no documents to merge")


def check_ids_differ(snapshots: Sequence[Snapshot], paths: Sequence[Path]) -> None:
    """Refuse snapshots that share a document id.

    Raises
    ------
    DataError
        They do.
    """
    seen: set[str] = set()
    for snapshot, path in zip(snapshots, paths, strict=True):
        for rows in snapshot.store.live_rows(_ROWS):
            ids = snapshot.store.ids(rows)
            if not seen.isdisjoint(ids):
                taken = next(doc_id for doc_id in ids if doc_id in seen)
                raise DataError(f"{path}: there is a document with id {taken!r} in another index already")
            seen.update(ids)
