"""Changes to an index on their way to a commit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sparse_sts_index._utils.environment import package_versions
from sparse_sts_index._utils.files import atomic_writer, refuse_links, to_sealed_json
from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.data.fields import typed_fields
from sparse_sts_index.errors import DataError
from sparse_sts_index.storage.layout import LUCENE_FOLDER, MANIFEST_FILE, MANIFEST_KEY, VECTORS_FOLDER, VOCABULARY_FILE
from sparse_sts_index.storage.lucene.jvm import java_version
from sparse_sts_index.storage.lucene.reader import lucene_version
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.manifest import FORMAT_VERSION, Manifest
from sparse_sts_index.storage.snapshot import Snapshot, open_index_snapshot, read_vocabulary, vocabulary_of
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter, remove_vectors
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.vocabulary import Vocabulary

_ROWS = 1 << 14  # at a time


class Transaction:
    """Changes on their way to a commit. Each method changes Lucene, the vectors and the manifest together.

    Attributes
    ----------
    committed : str
        The folder of the vectors that the last commit names; empty before the first commit.

    Parameters
    ----------
    path : Path
        Folder of the index.
    manifest : Manifest
        The manifest of the last commit.
    lucene : ImpactWriter
        Closed with the transaction.
    vocabulary : Vocabulary, optional
        Start an empty index with this vocabulary; `manifest` then describes the model alone.
    """

    def __init__(
        self, path: Path, manifest: Manifest, lucene: ImpactWriter, vocabulary: Vocabulary | None = None
    ) -> None:
        self._path, self._manifest, self._lucene = path, manifest, lucene
        if vocabulary is not None:
            self.committed = ""
            self._vocabulary = json.dumps(vocabulary.tokens).encode()
            self._begin()
        else:
            self.committed = manifest.vectors.folder
            self._vocabulary = read_vocabulary(path, manifest)
            self._vectors = VectorWriter(path, manifest.vectors, manifest.fields)

    def _begin(self) -> None:
        """An extent of its own, with nothing in it."""
        name = f"vectors-{max(_generations(self._path), default=0) + 1:06}"
        extent = Extent.empty(name, fields=bool(self._manifest.fields))
        self._vectors = VectorWriter(self._path, extent, self._manifest.fields)
        with atomic_writer(self._path / extent.folder / VOCABULARY_FILE) as file:
            file.write(self._vocabulary.decode())
        self._manifest = dataclasses.replace(
            self._manifest, max_document_error=0.0, documents=0, empty_documents=0, postings=0, vectors=extent
        )

    @property
    def _terms(self) -> tuple[str, ...]:
        return vocabulary_of(self._vocabulary, self._manifest.vocabulary_sha256).terms

    @property
    def documents(self) -> int:
        """Number of documents after the changes so far."""
        return self._manifest.documents

    def clear(self) -> None:
        """Delete all documents."""
        self._lucene.clear()
        self._vectors.close()
        self._begin()

    def add(self, chunk: Chunk) -> None:
        """Append documents whose ids are new."""
        self._append(chunk, replace=False)

    def replace(self, before: Snapshot, chunk: Chunk) -> int:
        """Append documents, and delete the documents with the same ids.

        Parameters
        ----------
        before : Snapshot
            The documents before this call.
        chunk : Chunk

        Returns
        -------
        int
            Number of documents replaced.
        """
        rows = _rows(before, [document.id for document in chunk.documents])
        self._delete_rows(before, rows)
        self._append(chunk, replace=bool(rows))
        return len(rows)

    def delete(self, before: Snapshot, ids: Sequence[str]) -> int:
        """Delete documents by id, and return how many there were; see :meth:`replace`."""
        rows = _rows(before, ids)
        self._delete_rows(before, rows)
        self._lucene.delete(ids)
        return len(rows)

    def _append(self, chunk: Chunk, replace: bool) -> None:
        manifest, impacts = self._manifest, chunk.impacts
        ids, texts = [document.id for document in chunk.documents], [document.text for document in chunk.documents]
        fields = [typed_fields(document, manifest.fields) for document in chunk.documents]
        first_row = self._vectors.rows
        self._vectors.add(chunk.vectors, ids, fields)
        self._lucene.add(
            ids, texts, impacts, self._terms, first_row, replace=replace, fields=fields if manifest.fields else ()
        )
        errors = Quantizer(manifest.bits).errors(chunk.vectors)
        self._manifest = dataclasses.replace(
            manifest,
            max_document_error=max(manifest.max_document_error, float(errors.max(initial=0))),
            documents=manifest.documents + len(ids),
            empty_documents=manifest.empty_documents + int((np.diff(impacts.indptr) == 0).sum()),
            postings=manifest.postings + impacts.nnz,
        )

    def add_snapshot(self, snapshot: Snapshot, progress: Callable[[int], None] | None = None) -> None:
        """Append all documents of a snapshot of another index, with what it says of them.

        Parameters
        ----------
        snapshot : Snapshot
        progress : callable, optional
            Called with the number of documents added since its last call.
        """
        manifest, whole = self._manifest, snapshot.manifest
        if not snapshot.reader.made_by_this_lucene:  # whose files Lucene reads and changes, and refuses to merge
            for chunk in snapshot.chunks():
                self.add(chunk)
                if progress is not None:
                    progress(len(chunk.documents))
            return
        self._lucene.add_reader(snapshot.reader)
        starts = np.array(snapshot.store.starts)
        for rows in snapshot.store.live_rows(_ROWS):
            ids, new = snapshot.store.ids(rows), self._vectors.rows + np.arange(len(rows))
            self._vectors.add(snapshot.store.take(rows), ids, snapshot.store.fields_of(rows))
            held = rows - starts[np.searchsorted(starts, rows, side="right") - 1]  # in Lucene, a shard has its own
            moved = np.flatnonzero(held != new)
            self._lucene.number([ids[place] for place in moved.tolist()], new[moved])
            if progress is not None:
                progress(len(rows))
        self._manifest = dataclasses.replace(
            manifest,
            max_document_error=max(manifest.max_document_error, whole.max_document_error),
            documents=manifest.documents + whole.documents,
            empty_documents=manifest.empty_documents + whole.empty_documents,
            postings=manifest.postings + whole.postings,
        )

    def _delete_rows(self, before: Snapshot, rows: Sequence[int]) -> None:
        manifest = self._manifest
        impacts = Quantizer(manifest.bits).quantize(before.store.take(np.array(rows, np.int64)))
        self._vectors.kill(rows)
        self._manifest = dataclasses.replace(
            manifest,
            documents=manifest.documents - len(rows),
            empty_documents=manifest.empty_documents - int((np.diff(impacts.indptr) == 0).sum()),
            postings=manifest.postings - impacts.nnz,
        )

    def name_model(self, model: str) -> None:
        """Write another place or id of the same model into the manifest."""
        self._manifest = dataclasses.replace(self._manifest, model=model)

    def merge_segments(self) -> None:
        """Merge Lucene's files to one segment: most of the work before a commit, and the fastest to search."""
        self._lucene.merge()

    def commit(self, build_seconds: float | None = None) -> None:
        """Write the vectors durably, then commit Lucene with the manifest, then write the manifest's readable copy.

        Parameters
        ----------
        build_seconds : float, optional
            How long the build took, for the manifest.
        """
        before, now = self._manifest, datetime.now(UTC).isoformat(timespec="seconds")
        self._manifest = dataclasses.replace(
            before,
            format_version=FORMAT_VERSION,
            software=before.software | software(),
            vectors=self._vectors.extent(durable=True),
            created=before.created or now,
            updated=now,
            build_seconds=before.build_seconds if build_seconds is None else build_seconds,
        )
        # Before it is so: an interrupt may arrive just after it is. Files of a commit that failed are litter for later.
        self.committed = self._manifest.vectors.folder
        self._lucene.commit({MANIFEST_KEY: self._manifest.to_json()})
        with contextlib.suppress(DataError, OSError), atomic_writer(self._path / MANIFEST_FILE) as file:
            file.write(to_sealed_json(json.loads(self._manifest.to_json())))

    def snapshot(self) -> Snapshot:
        """Return what there is now, committed or not."""
        extent = self._vectors.extent(durable=False)
        self._manifest = dataclasses.replace(self._manifest, vectors=extent)
        store = VectorStore(self._path, extent, self._manifest.vocabulary_size, self._manifest.fields)
        return Snapshot(self._manifest, self._lucene.reader(), store, self._vocabulary)

    def close(self) -> None:
        """Drop what is not committed, and release the files."""
        self._vectors.close()
        if self._manifest.vectors.folder != self.committed:
            remove_vectors(self._path / self._manifest.vectors.folder)
        self._lucene.close()


def open_transaction(path: Path, check: bool, before: Snapshot | None = None) -> tuple[Snapshot, Transaction]:
    """Lock an index, and return its last committed snapshot (see :meth:`.Snapshot.check`) and a transaction."""
    refuse_links(path / LUCENE_FOLDER)
    lucene = ImpactWriter(path / LUCENE_FOLDER, create=False)
    try:
        snapshot = open_index_snapshot(path, check, before)
        try:
            snapshot.manifest.check_known(path)
            return snapshot, Transaction(path, snapshot.manifest, lucene)
        except BaseException:
            snapshot.release()
            raise
    except BaseException:
        lucene.close()
        raise


def _rows(snapshot: Snapshot, ids: Sequence[str]) -> list[int]:
    """Return the rows of the documents with these ids, of those that exist."""
    return [place[0] for place in snapshot.reader.find(ids) if place is not None]


def _generations(path: Path) -> list[int]:
    return [int(match[1]) for entry in path.iterdir() if (match := VECTORS_FOLDER.fullmatch(entry.name))]


def clean(path: Path, keep: str) -> None:
    """Remove what no commit names any more, or never did, and copies half written. For who has Lucene's lock."""
    for entry in path.iterdir():
        if VECTORS_FOLDER.fullmatch(entry.name) and entry.name != keep:
            remove_vectors(entry)
        elif entry.match(f".{MANIFEST_FILE}.*.partial"):
            entry.unlink(missing_ok=True)


def software() -> dict[str, str]:
    """Versions of what writes an index here, by name, as a manifest has them."""
    packages = package_versions(("sparse-sts-index", "pyserini"))
    return {**packages, "lucene": lucene_version(), "java": java_version()}
