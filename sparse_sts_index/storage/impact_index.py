"""A living collection of unit vectors with their sentences: impacts in Lucene, floats beside them.

What is visible is what Lucene's last commit says: its user data carry the :class:`~.storage.manifest.Manifest`,
which says how much of the vector files counts. So both change in one atomic rename. A writer appends vectors, makes
them durable, and commits; killed at any point, it leaves what was committed before, whole. Readers keep the
snapshot that they opened; one writer at a time, held to that by Lucene's lock.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np

from sparse_sts_index._utils.files import os_errors_as
from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index._utils.text import check_strings
from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.errors import DataError, ImpactIndexError
from sparse_sts_index.storage.builder import building
from sparse_sts_index.storage.layout import LUCENE_FOLDER, is_collection
from sparse_sts_index.storage.lucene.jvm import detach_thread
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import open_snapshot
from sparse_sts_index.storage.snapshot import Snapshot
from sparse_sts_index.storage.transaction import Transaction, clean, open_transaction
from sparse_sts_index.storage.verification import verify
from sparse_sts_index.vectors.vocabulary import Vocabulary

_CHUNK = 2048  # ids looked up at a time


class ImpactIndex:
    """Unit vectors and sentences by id.

    Open one with :meth:`open`, make one with :meth:`build`. Several threads may search one, and change one: a change
    waits for the change before it. The documents of a change may be read from the index itself; what hands them out
    must not change it, nor wait for another thread that does.

    Attributes
    ----------
    path : Path
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, transaction: Transaction | None = None, check: bool = True
    ) -> None:
        self.path = path
        self._check = check
        self._snapshot = snapshot
        self._writable, self._transaction = transaction is not None, transaction
        self._closed, self._lock = False, threading.Lock()
        self._changes, self._changer = threading.Lock(), 0  # held for a whole change, and by which thread

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False, check: bool = True) -> Self:
        """Open an index, or a collection of them.

        Parameters
        ----------
        path : str or Path
        writable : bool
            To change it, which one process at a time may.
        check : bool
            Compare files with their checksums, all of them now and new ones after :meth:`refresh`.

        Raises
        ------
        ImpactIndexError
            No index there, an unfinished or damaged one, one of another format, or (to write) another writer is at it.
        JavaError
            No Java to read it with.
        """
        path = Path(path)
        if not path.exists():
            raise ImpactIndexError(f"no index at {path}")
        if is_collection(path):
            if writable:
                raise ImpactIndexError(f"{path} is a collection of shards, which is only read: merge it to change it")
        elif not (path / LUCENE_FOLDER).is_dir():
            raise ImpactIndexError(f"not an index: {path} has no folder {LUCENE_FOLDER}")
        path = path.absolute()  # the process may go elsewhere
        if not writable:
            return cls(path, open_snapshot(path, check), check=check)
        snapshot, transaction = open_transaction(path, check)
        clean(path, keep=transaction.committed)
        return cls(path, snapshot, transaction, check)

    @classmethod
    def build(
        cls,
        path: str | Path,
        chunks: Iterable[Chunk],
        manifest: Manifest,
        vocabulary: Vocabulary,
        *,
        overwrite: bool = False,
        start: float | None = None,
    ) -> None:
        """Make an index; it appears, or takes the place of the one before it, in one atomic step at the end.

        Parameters
        ----------
        path : str or Path
        chunks : iterable of Chunk
            No id twice. Drawn in this thread, while those before them are written in another.
        manifest : Manifest
            What it says of the model and the quantizer counts; the rest is filled in.
        vocabulary : Vocabulary
        overwrite : bool
            Replace an index that is there.
        start : float, optional
            When the build began, by ``time.monotonic``. Default: now.

        Raises
        ------
        DataError
            No documents.
        ImpactIndexError
            `path` holds an index (and not `overwrite`) or something else, or cannot be written.
        """
        with building(Path(path), manifest, vocabulary, overwrite=overwrite, start=start) as transaction:
            for _ in overlap(functools.partial(_write_detached, transaction), chunks):
                pass
            if not transaction.documents:
                raise DataError("no documents to index")

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the current snapshot."""
        return self._snapshot.manifest

    @contextlib.contextmanager
    def using(self) -> Iterator[Snapshot]:
        """Hold the current snapshot open while the block runs, whatever is refreshed or closed meanwhile.

        Raises
        ------
        ImpactIndexError, ForkError
            The index is closed; this process was forked after an index was opened.
        """
        JAVA.check()
        with self._lock:
            if self._closed:
                raise ImpactIndexError(f"{self.path} is closed")
            snapshot = self._snapshot
            snapshot.acquire()
        try:
            yield snapshot
        finally:
            snapshot.release()

    def read(self, *, skip: int = 0) -> Iterator[Chunk]:
        """All documents with their vectors and impacts, in the order of addition, some at a time.

        Parameters
        ----------
        skip : int
            Pass over so many.
        """
        with self.using() as snapshot:
            yield from snapshot.chunks(skip)

    def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        return self.get_many([doc_id])[0]

    def get_many(self, ids: Iterable[str]) -> list[Document | None]:
        """The document with each id, or None where there is none.

        Raises
        ------
        DataError
            An id holds an unpaired surrogate, which none in an index does.
        ValueError
            `ids` is one string, or holds something that is not a string.
        """
        wanted = check_strings(ids, "id")
        with self.using() as snapshot:
            places = snapshot.reader.find(wanted)
            rows = np.array([place[0] for place in places if place is not None], np.int64)
            found = iter(snapshot.documents(rows))
            return [None if place is None else next(found) for place in places]

    def __len__(self) -> int:
        return self.manifest.documents

    def refresh(self) -> bool:
        """See what has been committed since; whether there was anything."""
        with self.using() as snapshot:
            if self._transaction is not None or snapshot.is_current():
                return False
            self._see(open_snapshot(self.path, self._check, before=snapshot))
        return True

    def write(self, chunks: Iterable[Chunk], *, replace: bool, commit: bool) -> int:
        """Add documents, all of them or, if something fails, none.

        Parameters
        ----------
        chunks : iterable of Chunk
            No id twice.
        replace : bool
            A document takes the place of the one with its id. Otherwise there must be none.
        commit : bool
            Make it durable, and visible to others. Otherwise it is visible here alone, until :meth:`commit`.

        Returns
        -------
        int
            How many have taken the place of others.

        Raises
        ------
        DataError
            An id is there already (and not `replace`).
        ImpactIndexError
            The index is not writable. Whatever fails, all that was not committed is dropped.
        """
        replaced = 0
        with self._changing(commit) as (snapshot, transaction):
            for chunk in chunks:
                if replace:
                    replaced += transaction.replace(snapshot, chunk)
                    continue
                places = snapshot.reader.find([document.id for document in chunk.documents])
                for document, place in zip(chunk.documents, places, strict=True):
                    if place is not None:
                        where = document.where or self.path
                        raise DataError(f"{where}: there is a document with id {document.id!r} in the index already")
                transaction.add(chunk)
        return replaced

    def delete(self, ids: Iterable[str], *, commit: bool = True) -> int:
        """Delete documents by id; how many of them there were. Parameters and errors as for :meth:`write`."""
        unique = iter(dict.fromkeys(check_strings(ids, "id")))
        deleted = 0
        with self._changing(commit) as (snapshot, transaction):
            while chunk := list(itertools.islice(unique, _CHUNK)):
                deleted += transaction.delete(snapshot, chunk)
        return deleted

    def commit(self) -> None:
        """Make all changes so far durable, and visible to others, in one atomic step."""
        with self._changing(commit=True):
            pass

    def name_model(self, model: str) -> None:
        """Name another place or id of the same model, and commit. The caller has compared the models."""
        with self._changing(commit=True) as (_, transaction):
            transaction.name_model(model)

    def compact(self, *, progress: Callable[[int], None] | None = None) -> None:
        """Write the index anew without what was deleted or replaced, in one segment; readers are not disturbed.

        Everything comes from the index itself: nothing is encoded. Commits.
        """
        with self._changing(commit=True) as (snapshot, transaction):
            transaction.clear()
            for chunk in snapshot.chunks():
                transaction.add(chunk)
                if progress is not None:
                    progress(len(chunk.documents))
            transaction.merge_segments()
        clean(self.path, keep=transaction.committed)

    def verify(self, *, progress: Callable[[int], None] | None = None) -> int:
        """Compare everything with everything: files with their checksums, counts, each document with its vector.

        Returns
        -------
        int
            The number of documents.

        Raises
        ------
        ImpactIndexError
            Something is not as it was written; the message says what.
        """
        with self.using() as snapshot:
            return verify(self.path, snapshot, progress)

    def close(self) -> None:
        """Release the files; drops changes that are not committed. Does nothing in a forked process."""
        if JAVA.inherited:
            return
        with self._one_change():
            with self._lock:
                if self._closed:
                    return
                self._closed = True
            self._snapshot.release()
            if self._transaction is not None:
                with contextlib.suppress(ImpactIndexError):  # what is committed is done, and the rest is dropped anyway
                    self._transaction.close()
                self._transaction = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_writable(self) -> None:
        """Refuse an index that is closed, or was not opened to be changed."""
        JAVA.check()
        if self._closed:
            raise ImpactIndexError(f"{self.path} is closed")
        if not self._writable:
            raise ImpactIndexError(f"{self.path} was not opened to be changed (writable=True)")

    def _open_to_change(self, before: Snapshot | None = None) -> Transaction:
        snapshot, transaction = open_transaction(self.path, self._check, before)
        clean(self.path, keep=transaction.committed)
        self._transaction = transaction
        self._see(snapshot)
        return transaction

    @contextlib.contextmanager
    def _changing(self, commit: bool) -> Iterator[tuple[Snapshot, Transaction]]:
        """Yield the snapshot before a change, and the transaction to make it in; drop the change if the block fails."""
        self.check_writable()
        with self._one_change():
            yield from self._change(commit)

    @contextlib.contextmanager
    def _one_change(self) -> Iterator[None]:
        """Wait for the changes before this one.

        Raises
        ------
        ImpactIndexError
            This thread is in the middle of a change.
        """
        if self._changer == threading.get_ident():
            raise ImpactIndexError(f"{self.path}: a change is being made; make the next one, or close it, after that")
        with self._changes:
            self._changer = threading.get_ident()
            try:
                yield
            finally:
                self._changer = 0

    def _change(self, commit: bool) -> Iterator[tuple[Snapshot, Transaction]]:
        self.check_writable()  # it may have been closed meanwhile
        transaction, committed = self._transaction or self._open_to_change(), False
        with os_errors_as(ImpactIndexError, f"cannot write {self.path}"), self.using() as before:
            try:
                yield before, transaction
                if commit:
                    transaction.commit()
                    committed = True
                snapshot = transaction.snapshot()
            except BaseException as error:
                if JAVA.inherited:  # a child that ends within the block; the changes are its parent's
                    raise
                self._transaction = None
                with contextlib.suppress(ImpactIndexError):
                    transaction.close()
                with contextlib.suppress(ImpactIndexError):  # the next change tries again
                    self._open_to_change(before)
                if committed and isinstance(error, ImpactIndexError):
                    return  # it is done; only the writer broke after it, and there is another one now
                raise
        self._see(snapshot)

    def _see(self, snapshot: Snapshot) -> None:
        snapshot.inherit(self._snapshot)
        with self._lock:
            before, self._snapshot = self._snapshot, snapshot
        before.release()


def _write_detached(transaction: Transaction, chunk: Chunk) -> None:
    """Write a chunk in a thread that is going to end."""
    try:
        transaction.add(chunk)
    finally:
        detach_thread()
