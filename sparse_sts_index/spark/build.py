"""A collection built by Spark: a Lucene shard a task, committed by rename.

Documents keep the order of the input. Each shard is a run of whole chunks, of those that one machine would encode
together (:data:`.encoding.documents.CHUNK`), so that its vectors are the same to the last bit. A task builds its
shard aside, and renames it to its place when it is complete and durable; of several attempts at one shard, one
succeeds, and the others drop what they have. The shards of an unfinished build are taken up by the next one of the same
documents, model and settings, by whose checksum their folder is named, unless they have been changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_sts_index._utils.files import is_partial, os_errors_as, refuse_target, sync_folder
from sparse_sts_index._utils.numbers import check_whole
from sparse_sts_index.data.documents import Document
from sparse_sts_index.data.fields import Field, check_types
from sparse_sts_index.encoding.documents import CHUNK, encode_documents
from sparse_sts_index.errors import DataError, ImpactIndexError, SparseStsError
from sparse_sts_index.spark.executors import encoder_of
from sparse_sts_index.spark.input import SparkCorpus
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import COLLECTION_FILE, SHARDS_FOLDER, is_collection
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import Collection, Shard, open_collection
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.spec import Precision

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ATTEMPT = ".attempt-"
_KILLED_UPGRADE = re.compile(rf"\.{SHARDS_FOLDER.pattern}\.(partial|replaced)")
_VECTORS = "vectors-000001"  # of an index that was built and never compacted or replaced


@dataclass(frozen=True)
class Plan:
    """What all tasks of a build know.

    Attributes
    ----------
    folder : Path
        Where the shards go; the same file system for all workers and the driver.
    manifest : Manifest
        Of each shard, before it has documents.
    starts : tuple of int
        Number of the first document of each shard, and how many there are in all.
    """

    folder: Path
    manifest: Manifest
    starts: tuple[int, ...]

    def shard(self, number: int) -> Path:
        """Where a shard belongs."""
        return self.folder / f"{number:05}"

    def documents(self, number: int) -> int:
        """How many a shard has."""
        return self.starts[number + 1] - self.starts[number]

    def owner(self, document: int) -> int:
        """The shard of a document, by its number."""
        return bisect_right(self.starts, document) - 1


def build_collection(
    spark: SparkSession,
    files: str,
    output: str | Path,
    model: str | Path,
    *,
    shards: int,
    format: str | None = None,
    quantizer: Quantizer | None = None,
    precision: Precision = "auto",
    max_active_dims: int | None = None,
    overwrite: bool = False,
    columns: Mapping[str, str | int] | None = None,
    fields: Sequence[Field] = (),
) -> tuple[Manifest, int]:
    """Encode and index the documents in files, a shard a task; a reader sees the result when all of it is there.

    Parameters
    ----------
    spark : SparkSession
    files : str
        See :class:`~sparse_sts_index.spark.input.SparkCorpus`.
    output : str or Path
        Folder for the collection, on a file system that the driver and all workers share.
    model : str or Path
        The encoder, likewise within reach of all; loaded once a worker.
    shards : int
        How many. There are fewer if that would be less than 2,048 documents each.
    format : {"jsonl", "txt", "parquet"}, optional
        Of the files.
    quantizer, precision, max_active_dims, overwrite
        See :meth:`sparse_sts_index.index.SparseStsIndex.build`. An automatic precision is the driver's choice.
    columns : mapping of str to str or int, optional
        Names of the columns; see :func:`sparse_sts_index.data.documents.read_corpus`.
    fields : sequence of Field
        What else to keep of a document, each with its type.

    Returns
    -------
    Manifest
        Of the whole.
    int
        The number of shards.

    Raises
    ------
    DataError
        The documents cannot be read, or an id comes twice, found before anything is encoded; or the files change
        meanwhile.
    ImpactIndexError
        `output` holds a collection (and not `overwrite`) or something else, cannot be written, or is not the same for
        the driver and the workers. What was there before is still there.
    ModelError, JavaError
        As for an index.
    ValueError
        `shards` below 1.
    """
    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.index import describe

    check_whole("shards", shards, 1)
    start, output = time.monotonic(), Path(output).absolute()
    _check_output(output, overwrite)
    encoder = SparseStsEncoder.load(model, precision=precision, max_active_dims=max_active_dims)
    types = {field.name: field.type for field in fields}
    manifest = describe(encoder, quantizer or Quantizer()).with_fields(check_types(types))
    corpus = SparkCorpus(spark, files, format, columns, fields)
    starts = _starts(len(corpus), shards)
    corpus.check_ids()
    described = json.dumps([asdict(manifest), starts, corpus.checksum])
    plan = Plan(output / f"shards-{hashlib.sha256(described.encode()).hexdigest()[:12]}", manifest, starts)
    prepare(plan)
    sorted_shards = corpus.numbered().repartitionAndSortWithinPartitions(len(starts) - 1, plan.owner)
    built = sorted_shards.mapPartitionsWithIndex(partial(_build_shard, plan)).collect()
    return publish(plan, built, start), len(built)


def _starts(documents: int, shards: int) -> tuple[int, ...]:
    """The first document of each shard, and after the last."""
    chunks = -(-documents // CHUNK)
    shards = min(shards, chunks)
    return *(chunks * shard // shards * CHUNK for shard in range(shards)), documents


def prepare(plan: Plan) -> None:
    """Make the folder of a build, durably.

    Raises
    ------
    ImpactIndexError
        It cannot be made.
    """
    with os_errors_as(ImpactIndexError, f"cannot write {plan.folder}"):
        plan.folder.mkdir(parents=True, exist_ok=True)
        for folder in (plan.folder.parent, plan.folder.parent.parent):
            sync_folder(folder)


def _build_shard(plan: Plan, number: int, documents: Iterator[tuple[int, Document]]) -> Iterator[Shard]:
    """Build a shard, unless it is there, or another attempt is faster."""
    shard = _finished(plan, number)
    if shard is None:
        with os_errors_as(ImpactIndexError, f"cannot write {plan.folder}"):
            shard = _attempt(plan, number, (document for _, document in documents))
            sync_folder(plan.folder)
    yield shard


def _finished(plan: Plan, number: int) -> Shard | None:
    """A shard that is in its place, if it is whole, and what this build would write there."""
    try:
        shard, manifest = _read(plan, number, plan.shard(number), check=True)
    except ImpactIndexError:
        return None
    alike = not manifest.differences(plan.manifest) and manifest.fields == plan.manifest.fields
    counts = {shard.documents, manifest.vectors.rows, manifest.vectors.live, plan.documents(number)}
    return shard if alike and len(counts) == 1 and manifest.vectors.folder == _VECTORS else None


def _read(plan: Plan, number: int, folder: Path, check: bool) -> tuple[Shard, Manifest]:
    with ImpactIndex.open(folder, check=check) as index, index.using() as snapshot:
        place = f"{plan.folder.name}/{plan.shard(number).name}"
        return Shard(place, snapshot.manifest.documents, snapshot.sha256), snapshot.manifest


def _attempt(plan: Plan, number: int, documents: Iterable[Document]) -> Shard:
    """Build a shard aside, and put it in its place, where there may be one that is not what it should be."""
    final = plan.shard(number)
    who = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    attempt, wrong = plan.folder / f"{_ATTEMPT}{number:05}-{who}", plan.folder / f"{_ATTEMPT}{number:05}-before-{who}"
    try:
        if final.exists():
            final.rename(wrong)
        encoder = encoder_of(plan.manifest)
        chunks = encode_documents(documents, encoder, Quantizer(plan.manifest.bits))
        ImpactIndex.build(attempt, chunks, plan.manifest, encoder.vocabulary)
        shard, _ = _read(plan, number, attempt, check=False)
        if shard.documents != (expected := plan.documents(number)):
            found = f"{shard.documents:,} documents in shard {number}, not {expected:,}"
            raise DataError(f"{found}: the input has changed since it was first read")
        attempt.rename(final)
    except (OSError, SparseStsError):
        another = _finished(plan, number)  # an attempt that was faster
        if another is None:
            raise
        return another
    finally:
        for folder in (attempt, wrong):
            shutil.rmtree(folder, ignore_errors=True)
    return shard


def publish(plan: Plan, shards: Iterable[Shard], start: float) -> Manifest:
    """Put a collection in the place of the one before it, when it is seen to be there; then the old shards go.

    Parameters
    ----------
    plan : Plan
    shards : iterable of Shard
        As the tasks have left them.
    start : float
        When the build began, by ``time.monotonic``.

    Returns
    -------
    Manifest
        Of the whole.

    Raises
    ------
    ImpactIndexError
        A shard is not there, or is another; or the folder cannot be written.
    DataError
        ``collection.json`` cannot be written.
    """
    output = plan.folder.parent
    now = datetime.now(UTC).isoformat(timespec="seconds")
    collection = Collection(tuple(shards), now, round(time.monotonic() - start, 3))
    try:
        snapshot = open_collection(output, collection, check=False)
    except ImpactIndexError as error:
        raise ImpactIndexError(f"{error} (is {output} the same folder for the driver and all workers?)") from error
    snapshot.release()
    old = _folders_of(output) - {plan.folder.name}
    with os_errors_as(ImpactIndexError, f"cannot write {output}"):
        collection.write(output)
        sync_folder(output)
    for folder in (*(output / name for name in old), *plan.folder.glob(f"{_ATTEMPT}*")):
        shutil.rmtree(folder, ignore_errors=True)
    return snapshot.manifest


def _folders_of(output: Path) -> set[str]:
    """Where the shards of the collection in a folder are, as far as a build has made them."""
    try:
        folders = {Path(shard.folder).parts[0] for shard in Collection.read(output).shards}
    except ImpactIndexError:
        return set()
    return set(filter(SHARDS_FOLDER.fullmatch, folders))


def _check_output(output: Path, overwrite: bool) -> None:
    def is_part(entry: Path) -> bool:
        known = entry.name == COLLECTION_FILE or SHARDS_FOLDER.fullmatch(entry.name) is not None
        return known or is_partial(entry, COLLECTION_FILE) or _KILLED_UPGRADE.fullmatch(entry.name) is not None

    complete = is_collection(output)
    refuse_target(output, "a collection", error=ImpactIndexError, parts=is_part, complete=complete, overwrite=overwrite)
