"""A living collection of unit vectors with their sentences: impacts in Lucene, floats beside them.

What is visible is what Lucene's last commit says: its user data carry the :class:`~.storage.manifest.Manifest`,
which says how much of the vector files counts. So both change in one atomic rename. A writer appends vectors, makes
them durable, and commits; killed at any point, it leaves what was committed before, whole. Readers keep the state that
they opened; one writer at a time, held to that by Lucene's lock.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.data.records import check_unicode
from sparse_sts_index.errors import DataError, ImpactIndexError
from sparse_sts_index.search.certified import Mode, Neighbours, search
from sparse_sts_index.storage.builder import building
from sparse_sts_index.storage.lucene.jvm import detach_thread
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import is_collection, open_state
from sparse_sts_index.storage.snapshot import LUCENE_FOLDER, State
from sparse_sts_index.storage.transaction import Changes, clean, open_to_change
from sparse_sts_index.storage.verification import verify
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.vocabulary import Vocabulary

_CHUNK = 2048  # documents read back at a time


class ImpactIndex:
    """Unit vectors and sentences by id, searched by cosine.

    Open one with :meth:`open`, make one with :meth:`build`. Several threads may search one; changes are for one thread
    at a time.

    Attributes
    ----------
    path : Path
    """

    def __init__(
        self, path: Path, state: State, changes: Changes | None, in_memory: bool | None, check: bool = True
    ) -> None:
        self.path = path
        self._check = check
        self._state = state
        self._writable, self._changes = changes is not None, changes
        self._in_memory = in_memory
        self._closed, self._lock = False, threading.Lock()

    @classmethod
    def open(
        cls, path: str | Path, *, writable: bool = False, in_memory: bool | None = None, check: bool = True
    ) -> Self:
        """Open an index, or a collection of them.

        Parameters
        ----------
        path : str or Path
        writable : bool
            To change it, which one process at a time may.
        in_memory : bool, optional
            Hold the vectors by term in memory, 16 bytes a posting, and search them there, exactly in every mode;
            otherwise by Lucene. Exact search finds the same either way. Default: in memory up to 262,144 documents,
            after the first 20 queries.
        check : bool
            Compare all files with their checksums first, and after :meth:`refresh` what is new, so that a damaged index
            is refused and gives no wrong answers. Reads everything, about 1 GB a second.

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
            return cls(path, open_state(path, in_memory, check), None, in_memory, check)
        state, changes = open_to_change(path, in_memory, check)
        clean(path, keep=changes.committed)
        return cls(path, state, changes, in_memory, check)

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
        with building(Path(path), manifest, vocabulary, overwrite=overwrite, start=start) as changes:
            for _ in overlap(functools.partial(_write_detached, changes), chunks):
                pass

    @property
    def manifest(self) -> Manifest:
        """Of the state that is seen."""
        return self._state.manifest

    @contextlib.contextmanager
    def using(self) -> Iterator[State]:
        """The state that is seen, its files held open while the block runs, whatever is refreshed or closed meanwhile.

        Raises
        ------
        ImpactIndexError, ForkError
            The index is closed; this process was forked after an index was opened.
        """
        JAVA.check()
        with self._lock:
            if self._closed:
                raise ImpactIndexError(f"{self.path} is closed")
            state = self._state
            state.acquire()
        try:
            yield state
        finally:
            state.release()

    def search(self, state: State, vectors: csr_array, k: int, mode: Mode = "exact") -> list[Neighbours]:
        """The nearest documents of each query in a state; see :func:`sparse_sts_index.search.certified.search`."""
        return search(
            state.reader,
            state.store,
            vectors,
            k,
            mode,
            inverted=state.inverted(vectors.shape[0]),
            terms=state.quoted_terms,
            scale=Quantizer(state.manifest.bits).scale,
            error=state.manifest.max_document_error,
        )

    def documents(self, state: State, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of rows that count."""
        ids = state.store.ids(rows)
        places = state.reader.find(ids)
        docids = [place[1] for place in places if place is not None]
        return [Document(*pair) for pair in zip(ids, state.reader.texts(docids), strict=True)]

    def read(self, *, skip: int = 0) -> Iterator[Chunk]:
        """All documents with their vectors and impacts, in the order of addition, some at a time.

        Parameters
        ----------
        skip : int
            Pass over so many.
        """
        with self.using() as state:
            yield from self._read(state, skip)

    def _read(self, state: State, skip: int = 0) -> Iterator[Chunk]:
        quantizer = Quantizer(state.manifest.bits)
        for rows in state.store.live_rows(_CHUNK, skip):
            vectors = state.store.take(rows)
            yield Chunk(self.documents(state, rows), vectors, quantizer.quantize(vectors))

    def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        return self.get_many([doc_id])[0]

    def get_many(self, ids: Sequence[str]) -> list[Document | None]:
        """The document with each id, or None where there is none.

        Raises
        ------
        DataError
            An id holds an unpaired surrogate, which none in an index does.
        """
        for doc_id in ids:
            check_unicode(doc_id, "id", f"id {doc_id!a:.40}")
        with self.using() as state:
            places = state.reader.find(ids)
            texts = iter(state.reader.texts([place[1] for place in places if place is not None]))
            return [None if place is None else Document(i, next(texts)) for i, place in zip(ids, places, strict=True)]

    def __len__(self) -> int:
        return self.manifest.documents

    def refresh(self) -> bool:
        """See what has been committed since; whether there was anything."""
        with self.using() as state:
            if self._changes is not None or state.is_current():
                return False
            self._see(open_state(self.path, self._in_memory, self._check, before=state))
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
        with self._changing(commit) as (state, changes):
            for chunk in chunks:
                places = state.reader.find([document.id for document in chunk.documents])
                rows = [place[0] for place in places if place is not None]
                if rows and not replace:
                    taken = next(d for d, place in zip(chunk.documents, places, strict=True) if place is not None)
                    raise DataError(
                        f"{taken.where or self.path}: there is a document with id {taken.id!r} in the index already"
                    )
                changes.kill(state.store, rows)
                changes.add(chunk.documents, chunk.vectors, chunk.impacts, replace=bool(rows))
                replaced += len(rows)
        return replaced

    def delete(self, ids: Iterable[str], *, commit: bool = True) -> int:
        """Delete documents by id; how many of them there were. Parameters and errors as for :meth:`write`."""
        if isinstance(ids, str):
            raise ValueError("ids must be several strings, not one string")
        wanted = dict.fromkeys(ids)
        for doc_id in wanted:
            check_unicode(doc_id, "id", f"id {doc_id!a:.40}")
        unique = iter(wanted)
        deleted = 0
        with self._changing(commit) as (state, changes):
            while chunk := list(itertools.islice(unique, _CHUNK)):
                rows = [place[0] for place in state.reader.find(chunk) if place is not None]
                changes.kill(state.store, rows)
                changes.lucene.delete(chunk)
                deleted += len(rows)
        return deleted

    def commit(self) -> None:
        """Make all changes so far durable, and visible to others, in one atomic step."""
        with self._changing(commit=True):
            pass

    def compact(self, *, progress: Callable[[int], None] | None = None) -> None:
        """Write the index anew without what was deleted or replaced, in one segment; readers are not disturbed.

        Everything comes from the index itself: nothing is encoded. Commits.
        """
        with self._changing(commit=True) as (state, changes):
            changes.start_over()
            for chunk in self._read(state):
                changes.add(chunk.documents, chunk.vectors, chunk.impacts)
                if progress is not None:
                    progress(len(chunk.documents))
            changes.lucene.merge()
        clean(self.path, keep=changes.committed)

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
        with self.using() as state:
            return verify(self.path, state, progress)

    def close(self) -> None:
        """Release the files; drops changes that are not committed. Does nothing in a forked process."""
        if JAVA.inherited:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._state.release()
        if self._changes is not None:
            with contextlib.suppress(ImpactIndexError):  # what is committed is done, and the rest is dropped anyway
                self._changes.close()
            self._changes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check_writable(self) -> Changes:
        """Refuse an index that was not opened to be changed."""
        JAVA.check()
        if not self._writable or self._closed:
            raise ImpactIndexError(f"{self.path} was not opened to be changed (writable=True)")
        return self._changes or self._open_to_change()

    def _open_to_change(self, before: State | None = None) -> Changes:
        state, changes = open_to_change(self.path, self._in_memory, self._check, before)
        clean(self.path, keep=changes.committed)
        self._changes = changes
        self._see(state)
        return changes

    @contextlib.contextmanager
    def _changing(self, commit: bool) -> Iterator[tuple[State, Changes]]:
        """Changes under way: the state before them and where to make them; undone if the block fails."""
        changes, committed = self.check_writable(), False
        with self.using() as before:
            try:
                yield before, changes
                if commit:
                    changes.commit()
                    committed = True
                state = changes.state(self._in_memory)
            except BaseException as error:
                if JAVA.inherited:  # a child that ends within the block; the changes are its parent's
                    raise
                self._changes = None
                with contextlib.suppress(ImpactIndexError):
                    changes.close()
                with contextlib.suppress(ImpactIndexError):  # the next change tries again
                    self._open_to_change(before)
                if committed and isinstance(error, ImpactIndexError):
                    return  # it is done; only the writer broke after it, and there is another one now
                if isinstance(error, OSError):
                    raise ImpactIndexError(f"cannot write {self.path}: {error.strerror or error}") from error
                raise
        self._see(state)

    def _see(self, state: State) -> None:
        with self._lock:
            before, self._state = self._state, state
        before.release()


def _write_detached(changes: Changes, chunk: Chunk) -> None:
    """Write a chunk in a thread that is going to end."""
    try:
        changes.add(chunk.documents, chunk.vectors, chunk.impacts)
    finally:
        detach_thread()
