"""Several indexes as one: the shards of a collection, searched together as if they had been built as one.

A collection is a folder with ``collection.json``, which names its shards in order: folders in it that are indexes of
their own, built with the same model and settings, no document id in two of them. The rows of a shard follow those of
the one before it, and Lucene's ``MultiReader`` numbers the documents likewise, so everything above this module works on
a collection as it does on an index, and gives the same ids, cosines and ties. It is only read; to change it, change
what it is built from, or fold it into one index (:mod:`sparse_sts_index.storage.merging`).

``collection.json`` carries a checksum of each shard's manifest, which in turn carries those of its vectors: a shard
that was changed since is refused, not searched.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from sparse_sts_index._utils.files import (
    MOST_JSON,
    atomic_writer,
    from_sealed_json,
    os_errors_as,
    read_plain,
    to_sealed_json,
)
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.layout import COLLECTION_FILE, VOCABULARY_FILE, is_collection
from sparse_sts_index.storage.lucene.reader import ImpactShards
from sparse_sts_index.storage.snapshot import Snapshot, open_index_snapshot
from sparse_sts_index.storage.vector_files import Extent, StoredVectors, VectorStore

FORMAT_VERSION = 1
_FILES_HELD = 5  # by an open shard


@dataclass(frozen=True)
class Shard:
    """One shard, as its collection knows it.

    Attributes
    ----------
    folder : str
        Where it is, from the collection's folder.
    documents : int
    manifest_sha256 : str
        See :attr:`.snapshot.Snapshot.sha256`.
    """

    folder: str
    documents: int
    manifest_sha256: str


@dataclass(frozen=True)
class Collection:
    """What ``collection.json`` says.

    Attributes
    ----------
    shards : tuple of Shard
        In the order of their documents.
    created : str
        When the build finished; ISO 8601, UTC.
    build_seconds : float
        How long it took.
    format_version : int
    unknown : tuple of str
        What it says that this version does not know of.
    """

    shards: tuple[Shard, ...]
    created: str
    build_seconds: float
    format_version: int = FORMAT_VERSION
    unknown: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Collection:
        """Of the collection in a folder.

        Raises
        ------
        ImpactIndexError
            It is not there, not readable, or of another version.
        """
        file = path / COLLECTION_FILE
        with os_errors_as(ImpactIndexError, str(file)):
            content = read_plain(file, MOST_JSON)
        try:
            values = from_sealed_json(content.decode("utf-8"))
            version = values["format_version"]
            if version == FORMAT_VERSION:
                shards, unknown = zip(*(_split(Shard, shard) for shard in values["shards"]), strict=True)
                known, more = _split(cls, values)
                unknown = (*more, *(f"{name} of a shard" for names in unknown for name in names))
                collection = cls(**{**known, "shards": tuple(Shard(**shard) for shard in shards), "unknown": unknown})
                collection._check()
                return collection
            found = f"{version:.20}" if isinstance(version, str) else int(version)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ImpactIndexError(f"{file} cannot be read, or is not as it was written") from error
        raise ImpactIndexError(f"{file}: format version {found!r}; this version reads {FORMAT_VERSION}")

    def _check(self) -> None:
        """Refuse, with ``ValueError`` or ``TypeError``, what no build has written: anybody may have."""
        folders = [shard.folder for shard in self.shards]
        if not all(type(text) is str for text in (self.created, *folders, *(s.manifest_sha256 for s in self.shards))):
            raise TypeError("texts")
        if any(type(shard.documents) is not int or shard.documents < 0 for shard in self.shards):
            raise TypeError("documents")
        if type(self.build_seconds) not in (int, float) or not math.isfinite(self.build_seconds):
            raise TypeError("seconds")
        if not folders or len(set(folders)) < len(folders) or not all(map(_is_inside, folders)):
            raise ValueError("shards")

    def write(self, path: Path) -> None:
        """Put it in a folder, in place of what is there, in one atomic step.

        Raises
        ------
        DataError
            It cannot be written.
        """
        with atomic_writer(path / COLLECTION_FILE) as file:
            file.write(to_sealed_json(_split(Collection, dataclasses.asdict(self))[0]))


class CollectionSnapshot(Snapshot):
    """One snapshot of a collection."""

    def __init__(self, path: Path, collection: Collection, *snapshot: Any) -> None:
        super().__init__(*snapshot)
        self._path, self.collection = path, collection

    def is_current(self) -> bool:
        """Whether no other collection has taken its place since."""
        return Collection.read(self._path) == self.collection


def shard_folders(path: Path) -> list[Path]:
    """The indexes that a collection is made of, or an index by itself."""
    return [path / shard.folder for shard in Collection.read(path).shards] if is_collection(path) else [path]


def open_snapshot(path: Path, check: bool, before: Snapshot | None = None) -> Snapshot:
    """Open the last committed snapshot of an index or a collection; see :meth:`.snapshot.Snapshot.check`.

    Raises
    ------
    ImpactIndexError
        Neither is there, it is damaged, or its shards do not belong together.
    """
    if not is_collection(path):
        return open_index_snapshot(path, check, before)
    while True:
        collection = Collection.read(path)
        try:
            return open_collection(path, collection, check, before)
        except ImpactIndexError as error:
            if Collection.read(path) != collection:
                continue  # it has been replaced meanwhile, and its shards are gone
            if os.strerror(errno.EMFILE) in str(error):
                held = _FILES_HELD * len(collection.shards)
                raise ImpactIndexError(f"{error}: {held:,} are held by {len(collection.shards):,} shards") from error
            raise


def open_collection(path: Path, collection: Collection, check: bool, before: Snapshot | None = None) -> Snapshot:
    """Open a collection that may not be in place yet; see :func:`open_snapshot`."""
    checked = before.collection.shards if isinstance(before, CollectionSnapshot) else ()
    with ExitStack() as opened:
        snapshots = []
        folders = [path / shard.folder for shard in collection.shards]
        for folder, shard in zip(folders, collection.shards, strict=True):
            snapshot = open_index_snapshot(folder, check and shard not in checked)
            opened.callback(snapshot.release)
            if snapshot.sha256 != shard.manifest_sha256:
                raise ImpactIndexError(f"{folder} is not as it was when the collection was made")
            snapshots.append(snapshot)
        check_alike(snapshots, folders)
        store = VectorShards([store for snapshot in snapshots for store in snapshot.store.stores])
        reader = ImpactShards(path, [snapshot.reader for snapshot in snapshots], store.starts)
        more = (name for snapshot in snapshots for name in snapshot.manifest.unknown)
        manifest = dataclasses.replace(
            snapshots[0].manifest,
            format_version=min(snapshot.manifest.format_version for snapshot in snapshots),
            unknown=tuple(dict.fromkeys((*collection.unknown, *more))),
            max_document_error=max(snapshot.manifest.max_document_error for snapshot in snapshots),
            documents=sum(snapshot.manifest.documents for snapshot in snapshots),
            empty_documents=sum(snapshot.manifest.empty_documents for snapshot in snapshots),
            postings=sum(snapshot.manifest.postings for snapshot in snapshots),
            vectors=store.extent,
            created=collection.created,
            updated=collection.created,
            build_seconds=collection.build_seconds,
        )
        whole = CollectionSnapshot(path, collection, manifest, reader, store, snapshots[0].vocabulary_file)
        opened.pop_all()  # the reader of all closes theirs
        return whole


def check_alike(snapshots: Sequence[Snapshot], paths: Sequence[Path]) -> None:
    """Refuse indexes that do not belong together.

    Raises
    ------
    ImpactIndexError
        Two differ in model, vocabulary, precision, bits or terms kept.
    """
    for snapshot, path in zip(snapshots[1:], paths[1:], strict=True):
        for name, (one, other) in snapshots[0].manifest.differences(snapshot.manifest).items():
            raise ImpactIndexError(f"{paths[0]} and {path} differ in {name.replace('_', ' ')}: {one}, {other}")
        if snapshot.manifest.fields != snapshots[0].manifest.fields:
            named = (", ".join(s.manifest.fields) or "none" for s in (snapshots[0], snapshot))
            raise ImpactIndexError(
                "{} and {} differ in fields, or in their types: {}; {}".format(paths[0], path, *named)
            )
        if snapshot.vocabulary_file != snapshots[0].vocabulary_file:
            raise ImpactIndexError(f"{paths[0]} and {path} differ in {VOCABULARY_FILE}: one of them is damaged")


class VectorShards(StoredVectors):
    """The rows of several stores, one store after the other.

    Parameters
    ----------
    stores : sequence of VectorStore
        At least one.
    """

    def __init__(self, stores: Sequence[VectorStore]) -> None:
        self._stores = stores
        ends = np.cumsum([len(store) for store in stores])
        self._starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        self.extent, self.starts = Extent.empty(""), self._starts.tolist()
        self._length = int(ends[-1])

    @property
    def stores(self) -> Sequence[VectorStore]:  # noqa: D102
        return self._stores

    def __len__(self) -> int:
        return self._length

    @cached_property
    def live(self) -> NDArray[np.bool_]:  # noqa: D102
        return np.concatenate([store.live for store in self._stores])

    def _parts(self, rows: NDArray[np.int64]) -> Iterator[tuple[VectorStore, NDArray[np.int64], NDArray[np.int64]]]:
        """Each store that has some of the rows, their places among `rows`, and their numbers in the store."""
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            yield self._stores[owner], places, rows[places] - self._starts[owner]

    def ids(self, rows: NDArray[np.int64]) -> list[str]:  # noqa: D102
        ids = [""] * len(rows)
        for store, places, own in self._parts(rows):
            for place, doc_id in zip(places.tolist(), store.ids(own), strict=True):
                ids[place] = doc_id
        return ids

    def fields_of(self, rows: NDArray[np.int64]) -> list[dict[str, FieldValue]]:  # noqa: D102
        fields: list[dict[str, FieldValue]] = [{}] * len(rows)
        for store, places, own in self._parts(rows):
            for place, values in zip(places.tolist(), store.fields_of(own), strict=True):
                fields[place] = values
        return fields

    def scores(self, rows: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: D102
        scores = np.zeros(len(rows))
        for store, places, own in self._parts(rows):
            scores[places] = store.scores(own, query)
        return scores

    def take(self, rows: NDArray[np.int64]) -> csr_array:  # noqa: D102
        parts = list(self._parts(rows))
        if not parts:
            return self._stores[0].take(rows)
        order = np.concatenate([places for _, places, _ in parts])
        stacked: csr_array = vstack([store.take(own) for store, _, own in parts], format="csr")
        return stacked[np.argsort(order)]

    def blocks(self, size: int = 1 << 17) -> Iterator[tuple[int, csr_array]]:  # noqa: D102
        for first, store in zip(self.starts, self._stores, strict=True):
            for start, block in store.blocks(size):
                yield first + start, block

    def verify(self, before: StoredVectors | None = None) -> None:  # noqa: D102
        for store in self._stores:
            store.verify()


def _split(kind: type[Shard | Collection], values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that a kind has, by name, and the names of what a newer version may have added."""
    names = {field.name for field in dataclasses.fields(kind)} - {"unknown"}
    known = {name: value for name, value in values.items() if name in names}
    return known, [name for name in values if name not in names]


def _is_inside(folder: str) -> bool:
    parts = Path(folder).parts
    return bool(parts) and not Path(folder).is_absolute() and ".." not in parts and "\0" not in folder
