"""Float vectors beside the Lucene files: append-only, memory-mapped, checked.

Documents have rows, numbered from 0 in the order in which they came. One folder holds, for all rows,

* ``terms.i32`` and ``weights.f32``: term ids and weights of the unit vectors, row after row, and ``ends.i64``: where in
  them each row ends. This is CSR (compressed sparse rows) without its leading 0;
* ``ids.utf8`` and ``id_ends.i64``: the document ids, likewise;
* ``dead.i64``: rows that no longer count, because their document was deleted or replaced;
* ``fields.arrows``, if documents have fields: see :mod:`.storage.field_files`.

All little-endian, and only ever appended to. What is in force is what the :class:`Extent` says that the Lucene commit
carries: how long each file is, and its CRC-32. Bytes beyond that are of a writer that has not committed, or never did;
readers do not see them and the next writer takes their place.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.files import os_errors_as, sync_folder
from sparse_sts_index.data.fields import NO_FIELDS, FieldType, FieldValue
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.vectors.sparse import Vectors

if TYPE_CHECKING:
    from sparse_sts_index.storage.field_files import FieldColumns

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "terms.i32": np.dtype("<i4"),
    "weights.f32": np.dtype("<f4"),
    "ends.i64": np.dtype("<i8"),
    "ids.utf8": np.dtype("u1"),
    "id_ends.i64": np.dtype("<i8"),
    "dead.i64": np.dtype("<i8"),
}
#: The file that only indexes with fields have.
FIELDS_FILE: Final = "fields.arrows"
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a name, and no way out
_NO_LINKS, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Extent:
    """The part of the files that is in force.

    Attributes
    ----------
    folder : str
        Name of the folder that holds them.
    sizes, crc32 : dict of str to int
        Bytes of each file, and their checksum.
    """

    folder: str
    sizes: dict[str, int]
    crc32: dict[str, int]

    @classmethod
    def empty(cls, folder: str, *, fields: bool = False) -> Extent:
        """Return that of files without a row, with a file of fields or not."""
        names = (*_DTYPES, FIELDS_FILE) if fields else tuple(_DTYPES)
        return cls(folder, dict.fromkeys(names, 0), dict.fromkeys(names, 0))

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        files = {name: {"bytes": size, "crc32": self.crc32[name]} for name, size in self.sizes.items()}
        return {"folder": self.folder, "files": files}

    @classmethod
    def of_json(cls, values: Any) -> tuple[Extent, tuple[str, ...]]:
        """Out of what a manifest says, which anybody may have written.

        Returns
        -------
        Extent
        tuple of str
            Names of what this version does not know of it.

        Raises
        ------
        ValueError, KeyError, TypeError
            That is no extent.
        """
        folder, files = values["folder"], values["files"]
        if not isinstance(folder, str) or not _FOLDER.fullmatch(folder):
            raise ValueError("folder")
        names = (*_DTYPES, FIELDS_FILE) if FIELDS_FILE in files else tuple(_DTYPES)
        extent = cls(folder, *({name: files[name][key] for name in names} for key in ("bytes", "crc32")))
        if any(type(number) is not int or number < 0 for number in (*extent.sizes.values(), *extent.crc32.values())):
            raise ValueError("files")
        sizes = {name: extent.sizes[name] // dtype.itemsize for name, dtype in _DTYPES.items()}
        if any(extent.sizes[name] != size * _DTYPES[name].itemsize for name, size in sizes.items()):
            raise ValueError("sizes")
        if sizes["terms.i32"] != sizes["weights.f32"] or sizes["ends.i64"] != sizes["id_ends.i64"]:
            raise ValueError("sizes")
        parts = [(name, part) for name in names for part in files[name] if part not in ("bytes", "crc32")]
        unknown = [name for name in values if name not in ("folder", "files")]
        unknown += [name for name in files if name not in names]
        return extent, (*unknown, *(f"{part} of {name}" for name, part in parts))

    @property
    def rows(self) -> int:
        """Rows, dead ones included."""
        return self.sizes["ends.i64"] // 8

    @property
    def live(self) -> int:
        """Rows that count."""
        return self.rows - self.sizes["dead.i64"] // 8

    @property
    def has_fields(self) -> bool:
        """Return whether there is a file of fields."""
        return FIELDS_FILE in self.sizes


class StoredVectors(Vectors):
    """Vectors in files.

    Attributes
    ----------
    extent : Extent
        The part of the files that is in force. Empty for the rows of several stores.
    starts : list of int
        The first row of each store.
    """

    extent: Extent
    starts: list[int]

    @property
    @abstractmethod
    def stores(self) -> Sequence[VectorStore]:
        """Return the stores that the rows are in, in their order."""

    @abstractmethod
    def fields_of(self, rows: NDArray[np.int64]) -> list[dict[str, FieldValue]]:
        """Return the fields of rows, by name; what a row has no value of is left out."""

    @abstractmethod
    def verify(self, before: StoredVectors | None = None) -> None:
        """Read every file, and compare with its checksum.

        Parameters
        ----------
        before : StoredVectors, optional
            That were verified. What they had in the same files is not read again.

        Raises
        ------
        ImpactIndexError
            A file is not as it was written.
        """


class VectorStore(StoredVectors):
    """The rows of an extent.

    Parameters
    ----------
    path : Path
        Where the extent's folder is.
    extent : Extent
    vocabulary : int
        Number of columns.
    types : mapping of str to str
        The fields, if documents have any.

    Attributes
    ----------
    vocabulary : int
    types : mapping of str to str
    identity : tuple of int
        Device and inode of one of the files: other stores of the same rows have the same.

    Raises
    ------
    ImpactIndexError
        A file is missing or shorter than the extent says, or a link; or what is in it cannot be: rows that end before
        they begin, numbers of rows that there are not. Terms beyond the vocabulary, and weights and ids that are none,
        are refused where they are read.
    """

    def __init__(self, path: Path, extent: Extent, vocabulary: int, types: Mapping[str, FieldType] = NO_FIELDS) -> None:
        self.extent, self.starts, self.types = extent, [0], types
        self._folder = path / extent.folder
        self.vocabulary = vocabulary
        self.identity = (0, 0)
        self._arrays = {name: self._map(name) for name in extent.sizes}
        own = (self._arrays[name] for name in _DTYPES)
        self._terms, self._weights, self._ends, self._ids, self._id_ends, self._dead = own
        for name, ends, last in (
            ("ends.i64", self._ends, len(self._terms)),
            ("id_ends.i64", self._id_ends, len(self._ids)),
        ):
            if (ends[0] < 0 or ends[-1] != last or (ends[1:] < ends[:-1]).any()) if len(ends) else last:
                raise self.damaged(name)
        if len(self._dead) and not (self._dead.min() >= 0 and self._dead.max() < len(self._ends)):
            raise self.damaged("dead.i64")

    def damaged(self, name: str) -> ImpactIndexError:
        """Return an error that says which file is damaged."""
        return ImpactIndexError(f"{self._folder / name}: damaged, or not what sparse-sts wrote")

    def _map(self, name: str) -> NDArray[Any]:
        size, file, dtype = self.extent.sizes[name], self._folder / name, _DTYPES.get(name, np.dtype("u1"))
        with os_errors_as(ImpactIndexError, f"{file}"):
            if self._folder.is_symlink() or file.is_symlink():
                raise ImpactIndexError(f"{file}: a link; an index holds its own files")
            if file.stat().st_size < size:
                raise ImpactIndexError(f"{file}: truncated")
            if not size:
                return np.zeros(0, dtype)
            with file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                if name == "ends.i64":
                    self.identity = (status.st_dev, status.st_ino)
                # a plain view of the mapping: np.memmap's own type makes every slice several times as slow
                return np.asarray(np.memmap(opened, dtype, "r", shape=(size // dtype.itemsize,)))

    @property
    def stores(self) -> Sequence[VectorStore]:  # noqa: D102
        return [self]

    def __len__(self) -> int:
        return len(self._ends)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:  # noqa: D102
        ids, ends = self._ids.data, self._id_ends.data
        try:
            return [str(ids[ends[row - 1] if row else 0 : ends[row]], "utf-8") for row in rows.tolist()]
        except UnicodeDecodeError as error:
            raise self.damaged("ids.utf8") from error

    def scores(self, rows: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: D102
        lengths, entries = self._entries(rows)
        try:  # unsigned, so that what is below zero is beyond the end, too
            products = query.take(self._terms.take(entries).view(np.uint32)) * self._weights.take(entries)
        except IndexError as error:
            raise self.damaged("terms.i32") from error
        owners = np.repeat(np.arange(len(rows)), lengths)
        scores = np.bincount(owners, products, minlength=len(rows)).astype(np.float64, copy=False)
        if not np.isfinite(scores).all():
            raise self.damaged("weights.f32")
        return scores

    def take(self, rows: NDArray[np.int64]) -> csr_array:  # noqa: D102
        lengths, entries = self._entries(rows)
        indptr = _indptr(np.cumsum(lengths))
        return self._csr(self._weights[entries], self._terms[entries], indptr)

    def _csr(self, weights: NDArray[np.float32], terms: NDArray[np.int32], indptr: NDArray[Any]) -> csr_array:
        """Of terms that are in the vocabulary: scipy does not look, and would read and write beyond its arrays."""
        if len(terms) and terms.view(np.uint32).max() >= self.vocabulary:
            raise self.damaged("terms.i32")
        if not np.isfinite(weights).all():
            raise self.damaged("weights.f32")
        return csr_array((weights, terms, indptr), (len(indptr) - 1, self.vocabulary))

    def _check(self, rows: NDArray[np.int64]) -> None:
        """Refuse rows that there are not: Lucene's half of a stranger's index may name any."""
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise ImpactIndexError(f"{self._folder}: asked for another row than there is")

    def _entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many entries each row has, and where they all are."""
        self._check(rows)
        ends = self._ends.take(rows)
        lengths = ends - _starts(self._ends, rows)
        entries = np.arange(lengths.sum())
        entries += np.repeat(ends - np.cumsum(lengths), lengths)
        return lengths, entries

    @cached_property
    def live(self) -> NDArray[np.bool_]:  # noqa: D102
        live = np.ones(len(self), bool)
        live[self._dead] = False
        return live

    def fields_of(self, rows: NDArray[np.int64]) -> list[dict[str, FieldValue]]:  # noqa: D102
        if not self.types:
            return [{} for _ in range(len(rows))]
        self._check(rows)
        return self.fields.values(rows)

    @cached_property
    def fields(self) -> FieldColumns:
        """The fields of all rows; of none, if documents have no fields."""
        from sparse_sts_index.storage.field_files import FieldColumns

        try:
            return FieldColumns(self._arrays.get(FIELDS_FILE, np.zeros(0, np.uint8)), self.types, len(self))
        except ValueError as error:
            raise self.damaged(FIELDS_FILE) from error

    @property
    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Return terms, weights, and the ends of the rows, as the files have them; nothing is looked into."""
        return self._terms, self._weights, self._ends

    def block(self, start: int, stop: int) -> csr_array:
        """Consecutive rows, dead ones too, a view of the files: csr_array of float32, shape (stop - start, vocab)."""
        ends = self._ends[start:stop]
        first = int(self._ends[start - 1]) if start else 0
        last = int(ends[-1]) if len(ends) else first
        return self._csr(self._weights[first:last], self._terms[first:last], _indptr(ends - first))

    def blocks(self, size: int = 1 << 17) -> Iterator[tuple[int, csr_array]]:  # noqa: D102
        for start in range(0, len(self), size):
            yield start, self.block(start, min(start + size, len(self)))

    def verify(self, before: StoredVectors | None = None) -> None:  # noqa: D102
        known = Extent.empty("") if before is None else before.extent
        for name, array in self._arrays.items():
            content, expected = array.view(np.uint8).data, self.extent.crc32[name]
            grown = known.folder == self.extent.folder and known.sizes.get(name, 0) <= len(content)
            if grown and zlib.crc32(content[known.sizes[name] :], known.crc32[name]) == expected:
                continue
            if zlib.crc32(content) != expected:
                raise ImpactIndexError(f"{self._folder / name}: not as it was written (its checksum is another)")


class VectorWriter:
    """Appends rows behind an extent.

    Parameters
    ----------
    path : Path
        Where the extent's folder is, or is made.
    extent : Extent
        What is in force; see :meth:`Extent.empty`.
    types : mapping of str to str
        The fields, if documents have any.
    """

    def __init__(self, path: Path, extent: Extent, types: Mapping[str, FieldType] = NO_FIELDS) -> None:
        self._types = types
        self._folder = path / extent.folder
        if self._folder.is_symlink():  # a stranger's index must not have its owner's files written to
            raise ImpactIndexError(f"{self._folder}: a link; an index holds its own files")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._name = extent.folder
        self._sizes, self._crc32 = dict(extent.sizes), dict(extent.crc32)
        # Not in append mode: what an earlier writer left uncommitted is written over.
        self._files = {}
        try:
            for name in extent.sizes:
                descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | _NO_LINKS | _BINARY, 0o666)
                self._files[name] = open(descriptor, "r+b", buffering=0)  # noqa: PTH123, SIM115
                self._files[name].seek(self._sizes[name])
        except BaseException:
            self.close()
            raise

    def add(self, vectors: csr_array, ids: Sequence[str], fields: Sequence[Mapping[str, FieldValue]] = ()) -> None:
        """Append rows.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised, indices sorted.
        ids : sequence of str, length n
        fields : sequence of mapping of str to str, float, bool, datetime or tuple of str, length n
            Their fields, if they have any.
        """
        entries, letters = self._sizes["terms.i32"] // 4, self._sizes["ids.utf8"]
        encoded = [doc_id.encode() for doc_id in ids]
        self._append("terms.i32", vectors.indices)
        self._append("weights.f32", vectors.data)
        self._append("ends.i64", vectors.indptr[1:].astype(np.int64) + entries)
        self._append("ids.utf8", np.frombuffer(b"".join(encoded), np.uint8))
        self._append("id_ends.i64", np.cumsum([len(doc_id) for doc_id in encoded], dtype=np.int64) + letters)
        if self._types:
            from sparse_sts_index.storage.field_files import stream_of

            self._append_bytes(FIELDS_FILE, stream_of(fields, self._types, first=not self._sizes[FIELDS_FILE]))

    def kill(self, rows: Sequence[int]) -> None:
        """Say that these rows no longer count."""
        self._append("dead.i64", np.array(rows))

    @property
    def rows(self) -> int:
        """Rows so far, dead ones included."""
        return self._sizes["ends.i64"] // 8

    def extent(self, *, durable: bool) -> Extent:
        """The extent with what was appended: visible to whoever opens it, and on disk if `durable`."""
        if durable:
            for file in self._files.values():
                os.fsync(file.fileno())
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        return Extent(self._name, dict(self._sizes), dict(self._crc32))

    def close(self) -> None:
        """Release the files."""
        for file in self._files.values():
            file.close()

    def _append(self, name: str, values: NDArray[Any]) -> None:
        self._append_bytes(name, values.astype(_DTYPES[name]).tobytes())

    def _append_bytes(self, name: str, values: bytes) -> None:
        content = memoryview(values)
        self._crc32[name] = zlib.crc32(content, self._crc32[name])
        self._sizes[name] += len(content)
        while content:  # an unbuffered file may take less than all of it
            content = content[self._files[name].write(content) :]


def remove_vectors(folder: Path) -> None:
    """Remove a folder of vectors as far as that is possible.

    Not by ``shutil.rmtree``: interrupted, it may close a file descriptor twice, and raise ``OSError``
    in the place of ``KeyboardInterrupt``. A link is removed, and what it points to stays.
    """
    with contextlib.suppress(OSError):
        if folder.is_symlink():
            folder.unlink()
            return
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _indptr(ends: NDArray[np.int64]) -> NDArray[Any]:
    """With the leading 0 that scipy has, of its narrower type where that will do."""
    indptr = np.concatenate((np.zeros(1, np.int64), ends))
    return indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr


def _starts(ends: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    starts = ends.take(rows - 1)
    starts[rows == 0] = 0
    return starts
