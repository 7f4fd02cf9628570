"""Changes to an index on their way to a commit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from sparse_sts_index._utils.files import atomic_writer, refuse_links, to_sealed_json
from sparse_sts_index.data.documents import Document
from sparse_sts_index.errors import DataError
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import VectorShards
from sparse_sts_index.storage.snapshot import (
    LUCENE_FOLDER,
    MANIFEST_FILE,
    MANIFEST_KEY,
    VOCABULARY_FILE,
    State,
    open_index_state,
    read_vocabulary,
    vocabulary_of,
)
from sparse_sts_index.storage.vector_files import Extent, Vectors, VectorStore, VectorWriter, remove_vectors
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.vocabulary import Vocabulary

_ROWS = 1 << 14  # at a time
VECTORS_FOLDER = re.compile(r"vectors-(\d+)")


class Changes:
    """Changes on their way to a commit; the manifest as it will be."""

    def __init__(
        self, path: Path, manifest: Manifest, lucene: ImpactWriter, vocabulary: Vocabulary | None = None
    ) -> None:
        """To change what `manifest` describes; with a `vocabulary`, to begin anew."""
        self._path = path
        self.manifest = manifest
        self.lucene = lucene
        if vocabulary is not None:
            self.committed = ""
            self._vocabulary = json.dumps(vocabulary.tokens).encode()
            self._begin()
        else:
            self.committed = manifest.vectors.folder  # where the vectors are that count
            self._vocabulary = read_vocabulary(path, manifest)
            self._vectors = VectorWriter(path, manifest.vectors)

    def _begin(self) -> None:
        """An extent of its own, with nothing in it."""
        extent = Extent.empty(f"vectors-{max(_generations(self._path), default=0) + 1:06}")
        self._vectors = VectorWriter(self._path, extent)
        with atomic_writer(self._path / extent.folder / VOCABULARY_FILE) as file:
            file.write(self._vocabulary.decode())
        self.manifest = dataclasses.replace(
            self.manifest, max_document_error=0.0, documents=0, empty_documents=0, postings=0, vectors=extent
        )

    @property
    def _terms(self) -> tuple[str, ...]:
        return vocabulary_of(self._vocabulary, self.manifest.vocabulary_sha256).terms

    def start_over(self) -> None:
        """Drop all documents; those that follow are to take their place."""
        self.lucene.clear()
        self._vectors.close()
        self._begin()

    def add(
        self, documents: Sequence[Document], vectors: csr_array, impacts: csr_array, *, replace: bool = False
    ) -> None:
        """Append documents, in place of those with their ids if `replace`."""
        manifest = self.manifest
        ids, texts = [document.id for document in documents], [document.text for document in documents]
        first_row = self._vectors.rows
        self._vectors.add(vectors, ids)
        self.lucene.add(ids, texts, impacts, self._terms, first_row, replace=replace)
        errors = Quantizer(manifest.bits).errors(vectors)
        self.manifest = dataclasses.replace(
            manifest,
            max_document_error=max(manifest.max_document_error, float(errors.max(initial=0))),
            documents=manifest.documents + len(ids),
            empty_documents=manifest.empty_documents + int((np.diff(impacts.indptr) == 0).sum()),
            postings=manifest.postings + impacts.nnz,
        )

    def add_state(self, state: State) -> None:
        """Append all documents of a state of another index, with what it says of them."""
        manifest, whole = self.manifest, state.manifest
        self.lucene.add_reader(state.reader)
        starts = np.array(state.store.starts if isinstance(state.store, VectorShards) else [0])
        for rows in state.store.live_rows(_ROWS):
            ids, new = state.store.ids(rows), self._vectors.rows + np.arange(len(rows))
            self._vectors.add(state.store.take(rows), ids)
            held = rows - starts[np.searchsorted(starts, rows, side="right") - 1]  # in Lucene, a shard has its own
            moved = np.flatnonzero(held != new)
            self.lucene.number([ids[place] for place in moved.tolist()], new[moved])
        self.manifest = dataclasses.replace(
            manifest,
            max_document_error=max(manifest.max_document_error, whole.max_document_error),
            documents=manifest.documents + whole.documents,
            empty_documents=manifest.empty_documents + whole.empty_documents,
            postings=manifest.postings + whole.postings,
        )

    def kill(self, store: Vectors, rows: Sequence[int]) -> None:
        """The vectors' half of deleting documents."""
        manifest = self.manifest
        impacts = Quantizer(manifest.bits).quantize(store.take(np.array(rows, np.int64)))
        self._vectors.kill(rows)
        self.manifest = dataclasses.replace(
            manifest,
            documents=manifest.documents - len(rows),
            empty_documents=manifest.empty_documents - int((np.diff(impacts.indptr) == 0).sum()),
            postings=manifest.postings - impacts.nnz,
        )

    def commit(self) -> None:
        """Vectors first, durably; then Lucene's commit, with the manifest in it; then the copy to read."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.manifest = dataclasses.replace(
            self.manifest, vectors=self._vectors.extent(durable=True), created=self.manifest.created or now, updated=now
        )
        # Before it is so: an interrupt may arrive just after it is. Files of a commit that failed are litter for later.
        self.committed = self.manifest.vectors.folder
        self.lucene.commit({MANIFEST_KEY: self.manifest.to_json()})
        with contextlib.suppress(DataError, OSError), atomic_writer(self._path / MANIFEST_FILE) as file:
            file.write(to_sealed_json(json.loads(self.manifest.to_json())))

    def state(self, in_memory: bool | None) -> State:
        """What there is now, committed or not."""
        extent = self._vectors.extent(durable=False)
        self.manifest = dataclasses.replace(self.manifest, vectors=extent)
        store = VectorStore(self._path, extent, self.manifest.vocabulary_size)
        return State(self.manifest, self.lucene.reader(), store, self._vocabulary, in_memory)

    def close(self) -> None:
        """Drop what is not committed, and release the files."""
        self._vectors.close()
        if self.manifest.vectors.folder != self.committed:
            remove_vectors(self._path / self.manifest.vectors.folder)
        self.lucene.close()


def open_to_change(
    path: Path, in_memory: bool | None, check: bool, before: State | None = None
) -> tuple[State, Changes]:
    """The last committed state (see :meth:`.State.check`), and where to change it; no one else can meanwhile."""
    refuse_links(path / LUCENE_FOLDER)
    lucene = ImpactWriter(path / LUCENE_FOLDER, create=False)
    try:
        state = open_index_state(path, in_memory, check, before)
        try:
            return state, Changes(path, state.manifest, lucene)
        except BaseException:
            state.release()
            raise
    except BaseException:
        lucene.close()
        raise


def _generations(path: Path) -> list[int]:
    return [int(match[1]) for entry in path.iterdir() if (match := VECTORS_FOLDER.fullmatch(entry.name))]


def clean(path: Path, keep: str) -> None:
    """Remove what no commit names any more, or never did, and copies half written. For who has Lucene's lock."""
    for entry in path.iterdir():
        if VECTORS_FOLDER.fullmatch(entry.name) and entry.name != keep:
            remove_vectors(entry)
        elif entry.match(f".{MANIFEST_FILE}.*.partial"):
            entry.unlink(missing_ok=True)
