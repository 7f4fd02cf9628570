"""A collection built by Spark: a Lucene shard a task, committed by rename.

Documents keep the order of the input. Each shard is a run of whole chunks, of those that one machine would encode
together (:data:`sparse_sts_index.convert.CHUNK`), so that its vectors are the same to the last bit. A task builds its
shard aside, and renames it to its place when it is complete and durable; of several attempts at one shard, one
succeeds, and the others drop what they have. The shards of an unfinished build are taken up by the next one of the same
documents, model and settings, by whose checksum their folder is named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_sts_index.collection import COLLECTION_FILE, Collection, Shard, is_collection, manifest_sha256
from sparse_sts_index.convert import CHUNK, encode_documents
from sparse_sts_index.corpus import Document
from sparse_sts_index.errors import DataError, ImpactIndexError
from sparse_sts_index.files import sync_folder
from sparse_sts_index.impact_index import ImpactIndex
from sparse_sts_index.manifest import Manifest
from sparse_sts_index.precision import Precision
from sparse_sts_index.quantizer import Quantizer
from sparse_sts_index.spark.reading import SparkCorpus
from sparse_sts_index.spark.worker import encoder_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_BUILD = re.compile(r"shards-[0-9a-f]{12}")
_ATTEMPT = ".attempt-"


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
) -> tuple[Manifest, int]:
    """Encode and index the documents in files, a shard a task; a reader sees the result when all of it is there.

    Parameters
    ----------
    spark : SparkSession
    files : str
        See :class:`~sparse_sts_index.spark.reading.SparkCorpus`.
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

    Returns
    -------
    Manifest
        Of the whole.
    int
        The number of shards.

    Raises
    ------
    DataError
        The documents cannot be read, or an id comes twice; found before anything is encoded.
    ImpactIndexError
        `output` holds a collection (and not `overwrite`) or something else, or cannot be written.
    ModelError, JavaError
        As for an index.
    ValueError
        `shards` below 1.
    """
    from sparse_sts_index.encoder import SparseStsEncoder
    from sparse_sts_index.index import describe

    if shards < 1:
        raise ValueError(f"shards must be at least 1, not {shards}")
    start, output = time.monotonic(), Path(output).absolute()
    _check_output(output, overwrite)
    encoder = SparseStsEncoder.load(model, precision=precision, max_active_dims=max_active_dims)
    manifest = describe(encoder, quantizer or Quantizer())
    corpus = SparkCorpus(spark, files, format)
    starts = _starts(len(corpus), shards)
    corpus.check_ids()
    described = json.dumps([asdict(manifest), starts, list(corpus.blocks.items())])
    plan = Plan(output / f"shards-{hashlib.sha256(described.encode()).hexdigest()[:12]}", manifest, starts)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpactIndexError(f"cannot write {output}: {error.strerror or error}") from error
    sorted_shards = corpus.numbered().repartitionAndSortWithinPartitions(len(starts) - 1, plan.owner)
    built = sorted_shards.mapPartitionsWithIndex(partial(_build_shard, plan)).collect()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    collection = Collection(tuple(built), now, round(time.monotonic() - start, 3))
    collection.write(output)
    _clean(output, plan.folder)
    with ImpactIndex.open(output) as index:
        return index.manifest, len(built)


def _starts(documents: int, shards: int) -> tuple[int, ...]:
    """The first document of each shard, and after the last."""
    chunks = -(-documents // CHUNK)
    shards = min(shards, chunks)
    return *(chunks * shard // shards * CHUNK for shard in range(shards)), documents


def _build_shard(plan: Plan, number: int, documents: Iterator[tuple[int, Document]]) -> Iterator[Shard]:
    """Build a shard, unless it is there, or another attempt is faster."""
    final = plan.shard(number)
    if not final.exists():
        attempt = plan.folder / f"{_ATTEMPT}{number:05}-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
        try:
            encoder = encoder_of(plan.manifest)
            own = (document for _, document in documents)
            chunks = encode_documents(own, encoder, Quantizer(plan.manifest.bits))
            ImpactIndex.build(attempt, chunks, plan.manifest, encoder.vocabulary)
            with contextlib.suppress(OSError):  # it is there now
                attempt.rename(final)
                sync_folder(plan.folder)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
    with ImpactIndex.open(final) as index:
        expected = plan.starts[number + 1] - plan.starts[number]
        if len(index) != expected:
            raise DataError(f"{len(index):,} documents in shard {number}, not {expected:,}: has the input changed?")
        folder = f"{plan.folder.name}/{final.name}"
        yield Shard(folder, len(index), manifest_sha256(index.manifest))


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise ImpactIndexError(f"{output} is a file, not a folder for a collection")
    for entry in sorted(output.iterdir()):
        known = entry.name == COLLECTION_FILE or _BUILD.fullmatch(entry.name)
        if not known and not entry.match(f".{COLLECTION_FILE}.*.partial"):
            raise ImpactIndexError(f"{output} is not a collection and not empty (it holds {entry.name})")
    if is_collection(output) and not overwrite:
        raise ImpactIndexError(f"{output} already holds a collection; replace it with overwrite=True, --overwrite")


def _clean(output: Path, keep: Path) -> None:
    """Remove the shards of other builds, and what attempts have left."""
    for entry in [*output.iterdir(), *keep.iterdir()]:
        if (_BUILD.fullmatch(entry.name) and entry != keep) or entry.name.startswith(_ATTEMPT):
            shutil.rmtree(entry, ignore_errors=True)
