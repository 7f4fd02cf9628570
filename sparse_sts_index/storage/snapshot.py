"""One snapshot of an index, as readers see it: Lucene's half, the vectors', and what ties them together."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.files import os_errors_as, read_plain, refuse_links
from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.errors import ImpactIndexError, ModelError
from sparse_sts_index.storage.layout import LUCENE_FOLDER, MANIFEST_KEY, VOCABULARY_FILE
from sparse_sts_index.storage.lucene.reader import ImpactReader
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.vector_files import StoredVectors, VectorStore
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.vocabulary import Vocabulary

MEMORY_INDEX = "memory_index"  # what search derives, and takes over
_CHUNK = 2048  # documents read back at a time
_MOST_VOCABULARY = 1 << 28  # bytes
_ATTEMPTS = 10  # to open what a writer is replacing


class Snapshot:
    """One snapshot of an index, as readers see it: Lucene's half and the vectors'.

    Attributes
    ----------
    manifest : Manifest
    reader : ImpactReader
    store : StoredVectors
    vocabulary_file : bytes
        The content of the vocabulary's file.
    derived : dict
        What others compute from the snapshot and share, under :attr:`deriving`. Dropped when the last user is gone.
    earlier : tuple or None
        What was derived as :data:`MEMORY_INDEX` from an earlier snapshot, and the number of rows, from the first, that
        are the same in this one.
    deriving : Lock

    Parameters
    ----------
    manifest, reader, store, vocabulary_file
        See there.
    """

    def __init__(self, manifest: Manifest, reader: ImpactReader, store: StoredVectors, vocabulary_file: bytes) -> None:
        self.manifest, self.reader, self.store = manifest, reader, store
        self.vocabulary_file = vocabulary_file
        self.derived: dict[str, Any] = {}
        self.earlier: tuple[Any, int] | None = None
        self.deriving = threading.Lock()
        self._users, self._lock = 1, threading.Lock()

    @property
    def vocabulary(self) -> Vocabulary:
        """The terms, as they were when the index was built."""
        return vocabulary_of(self.vocabulary_file, self.manifest.vocabulary_sha256)

    @property
    def sha256(self) -> str:
        """Return the digest of the manifest that was committed, which differs between any two snapshots of an index."""
        return hashlib.sha256(self.reader.user_data[MANIFEST_KEY].encode()).hexdigest()

    def is_current(self) -> bool:
        """Whether nothing has been committed since."""
        return self.reader.is_current()

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of rows that count."""
        ids = self.store.ids(rows)
        docids = [place[1] for place in self.reader.find(ids) if place is not None]
        parts = (ids, self.reader.texts(docids), itertools.repeat("", len(ids)), self.store.fields_of(rows))
        return list(map(Document, *parts))

    def chunks(self, skip: int = 0) -> Iterator[Chunk]:
        """All documents with their vectors and impacts, in the order of addition, without the first `skip`."""
        quantizer = Quantizer(self.manifest.bits)
        for rows in self.store.live_rows(_CHUNK, skip):
            vectors = self.store.take(rows)
            yield Chunk(self.documents(rows), vectors, quantizer.quantize(vectors))

    def check(self, before: Snapshot | None = None) -> None:
        """Compare files with their checksums, and counts with each other; reads everything, about 1 GB a second.

        Parameters
        ----------
        before : Snapshot, optional
            An earlier one of the same index, which was checked: what both have is not read again.

        Raises
        ------
        ImpactIndexError
            Something is not as it was written; the message says what.
        """
        self.reader.check_integrity(None if before is None else before.reader)
        self.store.verify(None if before is None else before.store)
        vocabulary_of(self.vocabulary_file, self.manifest.vocabulary_sha256)
        counts = {"Lucene": len(self.reader), "the vectors": int(self.store.live.sum())}
        for what, count in counts.items():
            if count != self.manifest.documents:
                raise ImpactIndexError(
                    f"{self.reader.directory}: {count:,} documents in {what}, "
                    f"{self.manifest.documents:,} in the manifest"
                )

    def inherit(self, before: Snapshot) -> None:
        """Take over what was derived from the snapshot before this one, for committed rows in the same files."""
        if not self.store.extent.folder or self.store.stores[0].identity != before.store.stores[0].identity:
            return
        derived, earlier = before.derived.get(MEMORY_INDEX), before.earlier
        if derived is not None:  # rows that were not committed may have been dropped, and written over
            manifest = Manifest.from_json(before.reader.user_data[MANIFEST_KEY])
            same = manifest.vectors.folder == before.store.extent.folder
            earlier = (derived, manifest.vectors.rows if same else 0)
        if earlier is not None:
            self.earlier = (earlier[0], min(earlier[1], len(self.store)))

    def acquire(self) -> None:
        """One user more."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One user less; the last one closes the files, which in a forked process are the parent's."""
        if JAVA.inherited:
            return
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self.reader.close()
        del self.store
        self.derived.clear()
        self.earlier = None


def open_index_snapshot(path: Path, check: bool, before: Snapshot | None = None) -> Snapshot:
    """Open the last committed snapshot of an index; see :meth:`Snapshot.check`."""
    attempts = 0
    while True:
        attempts += 1
        refuse_links(path / LUCENE_FOLDER)
        reader = ImpactReader(path / LUCENE_FOLDER)
        try:
            text = reader.user_data.get(MANIFEST_KEY)
            if text is None:
                raise ImpactIndexError(f"{path} holds a Lucene index that sparse-sts did not build")
            manifest = Manifest.from_json(text)
            store = VectorStore(path, manifest.vectors, manifest.vocabulary_size, manifest.fields)
            snapshot = Snapshot(manifest, reader, store, read_vocabulary(path, manifest))
            if check:
                snapshot.check(before)
            return snapshot
        except BaseException as error:
            # A writer may have put other vectors in the place of these since the commit was read.
            again = isinstance(error, ImpactIndexError) and attempts < _ATTEMPTS and not reader.is_current()
            reader.close()
            if not again:
                raise


def read_vocabulary(path: Path, manifest: Manifest) -> bytes:
    """The content of the vocabulary's file, not looked into."""
    file = path / manifest.vectors.folder / VOCABULARY_FILE
    with os_errors_as(ImpactIndexError, f"{file}"):
        return read_plain(file, _MOST_VOCABULARY)


@functools.lru_cache(maxsize=4)
def vocabulary_of(content: bytes, sha256: str) -> Vocabulary:
    """What such a file holds; refuses one that is not as it was written."""
    try:
        vocabulary = Vocabulary(json.loads(content))
    except (ValueError, TypeError, RecursionError, ModelError) as error:
        raise ImpactIndexError(f"the index's {VOCABULARY_FILE} cannot be read") from error
    if vocabulary.sha256 != sha256:
        raise ImpactIndexError(f"the index's {VOCABULARY_FILE} is not as it was written (its checksum is another)")
    return vocabulary
