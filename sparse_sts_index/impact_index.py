"""A living collection of unit vectors with their sentences: impacts in Lucene, floats beside them.

What is visible is what Lucene's last commit says: its user data carry the :class:`~sparse_sts_index.manifest.Manifest`,
which says how much of the vector files counts. So both change in one atomic rename. A writer appends vectors, makes
them durable, and commits; killed at any point, it leaves what was committed before, whole. Readers keep the state that
they opened; one writer at a time, held to that by Lucene's lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index.corpus import Chunk, Document
from sparse_sts_index.errors import DataError, ImpactIndexError
from sparse_sts_index.files import atomic_writer
from sparse_sts_index.inverted import InvertedVectors
from sparse_sts_index.jvm import detach_thread
from sparse_sts_index.lucene import ImpactReader, ImpactWriter, impact_query, only, quoted
from sparse_sts_index.manifest import Manifest
from sparse_sts_index.overlap import overlap
from sparse_sts_index.quantizer import Quantizer
from sparse_sts_index.search import Mode, Neighbours, search
from sparse_sts_index.vectors import Extent, VectorStore, VectorWriter
from sparse_sts_index.vocabulary import Vocabulary

LUCENE_FOLDER, MANIFEST_FILE, _VOCABULARY_FILE = "lucene", "manifest.json", "vocabulary.json"
_MANIFEST_KEY = "sparse-sts-manifest"
_VECTORS_FOLDER = re.compile(r"vectors-(\d+)")
_CHUNK = 2048  # documents read back at a time
_IN_MEMORY_DOCUMENTS, _QUERIES_THAT_PAY = 1 << 18, 20  # up to so many, after so many
_ATTEMPTS = 10  # to open what a writer is replacing


class State:
    """One state of an index, as readers see it: Lucene's half and the vectors'.

    Attributes
    ----------
    manifest : Manifest
    reader : ImpactReader
    store : VectorStore
    vocabulary : bytes
        The content of its file.
    in_memory : bool, optional
        See :meth:`ImpactIndex.open`.
    """

    def __init__(
        self,
        manifest: Manifest,
        reader: ImpactReader,
        store: VectorStore,
        vocabulary: bytes,
        in_memory: bool | None,
    ) -> None:
        self.manifest, self.reader, self.store = manifest, reader, store
        self._vocabulary = vocabulary
        self._in_memory = in_memory
        self._queries = 0
        self._inverted: InvertedVectors | None = None
        self._users, self._lock, self._transposing = 1, threading.Lock(), threading.Lock()

    @property
    def vocabulary(self) -> Vocabulary:
        """The terms, as they were when the index was built."""
        return _vocabulary(self._vocabulary, self.manifest.vocabulary_sha256)

    @property
    def quoted_terms(self) -> tuple[str, ...]:
        """Lucene's terms of :attr:`vocabulary`, as queries name them."""
        return _quoted_terms(self._vocabulary, self.manifest.vocabulary_sha256)

    def inverted(self, queries: int) -> InvertedVectors | None:
        """The vectors by term, if that is to be had, or pays for one who asks so many queries more."""
        with self._transposing:
            self._queries += queries
            wanted = self._in_memory
            if wanted is None:  # a state that a change is about to replace is not worth the transposing
                wanted = self.manifest.documents <= _IN_MEMORY_DOCUMENTS and self._queries > _QUERIES_THAT_PAY
            if wanted and self._inverted is None:
                self._inverted = InvertedVectors(self.store)
            return self._inverted

    def acquire(self) -> None:
        """One user more."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One user less; the last one closes the files."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self.reader.close()
        del self.store
        self._inverted = None


class ImpactIndex:
    """Unit vectors and sentences by id, searched by cosine.

    Open one with :meth:`open`, make one with :meth:`build`. Several threads may search one; changes are for one thread
    at a time.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, state: State, changes: _Changes | None, in_memory: bool | None) -> None:
        self.path = path
        self._state = state
        self._changes = changes
        self._in_memory = in_memory
        self._closed, self._lock = False, threading.Lock()

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False, in_memory: bool | None = None) -> Self:
        """Open an index.

        Parameters
        ----------
        path : str or Path
        writable : bool
            To change it, which one process at a time may.
        in_memory : bool, optional
            Hold the vectors by term in memory, 16 bytes a posting, and search them there, exactly in every mode;
            otherwise by Lucene. Exact search finds the same either way. Default: in memory up to 262,144 documents,
            after the first 20 queries.

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
        if not (path / LUCENE_FOLDER).is_dir():
            raise ImpactIndexError(f"not an index: {path} has no folder {LUCENE_FOLDER}")
        path = path.absolute()  # the process may go elsewhere
        if not writable:
            return cls(path, _open_state(path, in_memory), None, in_memory)
        state, changes = _open_to_change(path, in_memory)
        _clean(path, keep=changes.committed)
        return cls(path, state, changes, in_memory)

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
        path, start = Path(path), time.monotonic() if start is None else start
        check_target(path, overwrite)
        ours = not _holds_index(path)  # then whatever comes into the folder is of this build
        made = [folder for folder in (path / LUCENE_FOLDER, path, *path.parents) if not folder.exists()]
        changes: _Changes | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            try:
                lucene = ImpactWriter(path / LUCENE_FOLDER)
            except ImpactIndexError:
                ours = False  # it may be of another build, which has the lock
                raise
            try:
                changes = _Changes(path, manifest, lucene, vocabulary)
            except BaseException:
                lucene.close()
                raise
            for _ in overlap(functools.partial(_write_detached, changes), chunks):
                pass
            if not changes.manifest.documents:
                raise DataError("no documents to index")
            lucene.merge()
            seconds = round(time.monotonic() - start, 3)
            changes.manifest = dataclasses.replace(changes.manifest, build_seconds=seconds)
            changes.commit()
        except BaseException as error:
            if changes is not None:
                changes.close()
            _undo(path, made, files=ours)
            if isinstance(error, OSError):
                raise ImpactIndexError(f"cannot write {path}: {error.strerror or error}") from error
            raise
        _clean(path, keep=changes.committed)
        changes.close()

    @property
    def manifest(self) -> Manifest:
        """Of the state that is seen."""
        return self._state.manifest

    @contextlib.contextmanager
    def using(self) -> Iterator[State]:
        """The state that is seen, its files held open while the block runs, whatever is refreshed or closed meanwhile.

        Raises
        ------
        ImpactIndexError
            The index is closed.
        """
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
        """The nearest documents of each query in a state; see :func:`sparse_sts_index.search.search`."""
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

    def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        with self.using() as state:
            (place,) = state.reader.find([doc_id])
            return None if place is None else Document(doc_id, *state.reader.texts([place[1]]))

    def __len__(self) -> int:
        return self.manifest.documents

    def refresh(self) -> bool:
        """See what has been committed since; whether there was anything."""
        with self.using() as state:
            if self._changes is not None or state.reader.is_current():
                return False
        self._see(_open_state(self.path, self._in_memory))
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
        unique = iter(dict.fromkeys(ids))
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
            quantizer = Quantizer(state.manifest.bits)
            changes.start_over()
            rows = np.flatnonzero(state.store.live)
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                vectors = state.store.take(chunk)
                changes.add(self.documents(state, chunk), vectors, quantizer.quantize(vectors))
                if progress is not None:
                    progress(len(chunk))
            changes.lucene.merge()
        _clean(self.path, keep=changes.committed)

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
            manifest, quantizer = state.manifest, Quantizer(state.manifest.bits)
            state.reader.check_integrity()
            state.store.verify()
            counts = {"Lucene": len(state.reader), "the vectors": int(state.store.live.sum())}
            for what, count in counts.items():
                if count != manifest.documents:
                    raise ImpactIndexError(
                        f"{self.path}: {count:,} documents in {what}, {manifest.documents:,} in the manifest"
                    )
            rows = np.flatnonzero(state.store.live)
            postings = 0
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                vectors = state.store.take(chunk)
                impacts = quantizer.quantize(vectors)
                postings += impacts.nnz
                if quantizer.errors(vectors).max() > manifest.max_document_error:
                    raise ImpactIndexError(f"{self.path}: a rounding error above the manifest's")
                self._verify_documents(state, chunk, impacts)
                if progress is not None:
                    progress(len(chunk))
            if postings != manifest.postings:
                raise ImpactIndexError(f"{self.path}: {postings:,} postings, {manifest.postings:,} in the manifest")
            return manifest.documents

    def _verify_documents(self, state: State, rows: NDArray[np.int64], impacts: csr_array) -> None:
        """Each document is in Lucene under its id, once, with its row, and with impacts that score as they should."""
        ids = state.store.ids(rows)
        queries, expected = [], []
        for number, doc_id in enumerate(ids):
            entries = slice(impacts.indptr[number], impacts.indptr[number + 1])
            weights = impacts.data[entries].tolist()
            terms = [state.quoted_terms[term] for term in impacts.indices[entries].tolist()]
            queries.append(only(impact_query(terms, weights), doc_id) if terms else only("*:*^0", doc_id))
            expected.append(float(sum(weight * weight for weight in weights)))
        for doc_id, row, score, found in zip(
            ids, rows.tolist(), expected, state.reader.search(queries, 2), strict=True
        ):
            same = len(found) == 1 and found.rows[0] == row and abs(found.scores[0] - score) <= 1e-6 * score
            if not same:
                raise ImpactIndexError(f"{self.path}: document {doc_id!r} is not the same in Lucene and in the vectors")

    def close(self) -> None:
        """Release the files; drops changes that are not committed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._state.release()
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check_writable(self) -> _Changes:
        """Refuse an index that was not opened to be changed."""
        if self._changes is None:
            raise ImpactIndexError(f"{self.path} was not opened to be changed (writable=True)")
        return self._changes

    @contextlib.contextmanager
    def _changing(self, commit: bool) -> Iterator[tuple[State, _Changes]]:
        """Changes under way: the state before them and where to make them; undone if the block fails."""
        changes = self.check_writable()
        with self.using() as before:
            try:
                yield before, changes
                if commit:
                    changes.commit()
                state = changes.state(self._in_memory)
            except BaseException as error:
                changes.close()
                self._changes = None
                state, self._changes = _open_to_change(self.path, self._in_memory)
                self._see(state)
                if isinstance(error, OSError):
                    raise ImpactIndexError(f"cannot write {self.path}: {error.strerror or error}") from error
                raise
        self._see(state)

    def _see(self, state: State) -> None:
        with self._lock:
            before, self._state = self._state, state
        before.release()


class _Changes:
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
            self._vocabulary = _read_vocabulary(path, manifest)
            self._vectors = VectorWriter(path, manifest.vectors)

    def _begin(self) -> None:
        """An extent of its own, with nothing in it."""
        extent = Extent.empty(f"vectors-{max(_generations(self._path), default=0) + 1:06}")
        self._vectors = VectorWriter(self._path, extent)
        with atomic_writer(self._path / extent.folder / _VOCABULARY_FILE) as file:
            file.write(self._vocabulary.decode())
        self.manifest = dataclasses.replace(
            self.manifest, max_document_error=0.0, documents=0, empty_documents=0, postings=0, vectors=extent
        )

    @property
    def _terms(self) -> tuple[str, ...]:
        return _vocabulary(self._vocabulary, self.manifest.vocabulary_sha256).terms

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

    def kill(self, store: VectorStore, rows: Sequence[int]) -> None:
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
        self.lucene.commit({_MANIFEST_KEY: self.manifest.to_json()})
        with contextlib.suppress(DataError, OSError), atomic_writer(self._path / MANIFEST_FILE) as file:
            file.write(self.manifest.to_json() + "\n")

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
            shutil.rmtree(self._path / self.manifest.vectors.folder, ignore_errors=True)
        self.lucene.close()


def _write_detached(changes: _Changes, chunk: Chunk) -> None:
    """Write a chunk in a thread that is going to end."""
    try:
        changes.add(chunk.documents, chunk.vectors, chunk.impacts)
    finally:
        detach_thread()


def _open_to_change(path: Path, in_memory: bool | None) -> tuple[State, _Changes]:
    """The last committed state, and where to change it; no one else can meanwhile."""
    lucene = ImpactWriter(path / LUCENE_FOLDER, create=False)
    try:
        state = _open_state(path, in_memory)
        try:
            return state, _Changes(path, state.manifest, lucene)
        except BaseException:
            state.release()
            raise
    except BaseException:
        lucene.close()
        raise


def _open_state(path: Path, in_memory: bool | None) -> State:
    """The last committed state."""
    for attempt in itertools.count(1):
        reader = ImpactReader(path / LUCENE_FOLDER)
        try:
            text = reader.user_data.get(_MANIFEST_KEY)
            if text is None:
                raise ImpactIndexError(f"{path} holds a Lucene index that sparse-sts did not build")
            manifest = Manifest.from_json(text)
            store = VectorStore(path, manifest.vectors, manifest.vocabulary_size)
            return State(manifest, reader, store, _read_vocabulary(path, manifest), in_memory)
        except BaseException as error:
            # A writer may have put other vectors in the place of these since the commit was read.
            again = isinstance(error, ImpactIndexError) and attempt < _ATTEMPTS and not reader.is_current()
            reader.close()
            if not again:
                raise
    raise AssertionError("unreachable")


def _read_vocabulary(path: Path, manifest: Manifest) -> bytes:
    file = path / manifest.vectors.folder / _VOCABULARY_FILE
    try:
        return file.read_bytes()
    except OSError as error:
        raise ImpactIndexError(f"{file}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=4)
def _vocabulary(content: bytes, sha256: str) -> Vocabulary:
    try:
        vocabulary = Vocabulary(json.loads(content))
    except (ValueError, TypeError) as error:
        raise ImpactIndexError(f"the index's {_VOCABULARY_FILE} cannot be read") from error
    if vocabulary.sha256 != sha256:
        raise ImpactIndexError(f"the index's {_VOCABULARY_FILE} is not as it was written (its checksum is another)")
    return vocabulary


@functools.lru_cache(maxsize=4)
def _quoted_terms(content: bytes, sha256: str) -> tuple[str, ...]:
    return tuple(map(quoted, _vocabulary(content, sha256).terms))


def _generations(path: Path) -> list[int]:
    return [int(match[1]) for entry in path.iterdir() if (match := _VECTORS_FOLDER.fullmatch(entry.name))]


def _clean(path: Path, keep: str) -> None:
    """Remove vectors that no commit names any more, or never did. For the one who has Lucene's lock."""
    for entry in path.iterdir():
        if _VECTORS_FOLDER.fullmatch(entry.name) and entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse to build over an index that may not be replaced, or over anything that is not an index."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ImpactIndexError(f"{path} is a file, not a folder for an index")
    for entry in sorted(path.iterdir()):
        known = entry.name in (LUCENE_FOLDER, MANIFEST_FILE) or _VECTORS_FOLDER.fullmatch(entry.name)
        # A build that was killed may have left its partial copy of the manifest.
        if not known and not entry.match(f".{MANIFEST_FILE}.*.partial"):
            raise ImpactIndexError(f"{path} is not an index and not empty (it holds {entry.name})")
    if _holds_index(path) and not overwrite:
        raise ImpactIndexError(f"{path} already holds an index; replace it with overwrite=True, --overwrite")


def _holds_index(path: Path) -> bool:
    """Whether a build has ever been committed there, by the file that every Lucene commit leaves."""
    return any((path / LUCENE_FOLDER).glob("segments_*"))


def _undo(path: Path, made: list[Path], files: bool) -> None:
    """Remove what a failed build leaves: `files` if they are its own, and the folders it `made`, innermost first."""
    if files:
        shutil.rmtree(path / LUCENE_FOLDER, ignore_errors=True)
        (path / MANIFEST_FILE).unlink(missing_ok=True)
        if path.is_dir():
            _clean(path, keep="")
    for folder in made:
        with contextlib.suppress(OSError):  # it was not made after all, or something is in it
            folder.rmdir()
