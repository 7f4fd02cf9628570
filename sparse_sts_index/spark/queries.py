"""Searches and joins over the shards of a collection by Spark, merged to what one index would give."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.numbers import check_real
from sparse_sts_index.data.documents import QUERY_CHUNK, Document, chunks
from sparse_sts_index.data.filters import Filter, Where, filter_for
from sparse_sts_index.index import SparseStsIndex
from sparse_sts_index.search.certified import Mode, check_search
from sparse_sts_index.search.results import Hits, Pair, merge_hits, scored
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.search.similarity_join import check_threshold, similar_rows, similar_rows_between
from sparse_sts_index.spark.executors import encoder_of
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.shards import shard_folders
from sparse_sts_index.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def search(
    spark: SparkSession,
    path: str | Path,
    queries: Sequence[Document],
    k: int = 10,
    *,
    model: str | Path | None = None,
    mode: Mode = "exact",
    explain: bool = False,
    where: Where = None,
    min_cosine: float = 0.0,
) -> Iterator[Hits]:
    """The nearest sentences of many texts, as :meth:`sparse_sts_index.index.SparseStsIndex.search` finds them.

    The texts are encoded, a batch a task; every shard is opened and checked by one task, which searches for all of
    them; the hits of each text are merged, by cosine and id.

    Parameters
    ----------
    spark : SparkSession
    path : str or Path
        Of a collection (or an index), within reach of the driver and all workers.
    queries : sequence of Document, length n
        Held by the driver.
    k, mode, explain, where, min_cosine
        As there.
    model : str or Path, optional
        Where workers find the encoder. Default: where the manifest says it was.

    Yields
    ------
    Hits
        One for each query, in order.

    Raises
    ------
    ImpactIndexError, ModelError, ModelMismatchError
        See there.
    ValueError
        See there.
    """
    check_search(k, mode)
    check_real("min_cosine", min_cosine, 0, 1)
    folders, manifest = _open(path)
    among = filter_for(where, manifest.fields)
    model = None if model is None else str(model)
    batches = [[query.text for query in batch] for batch in chunks(queries, QUERY_CHUNK)]
    context = spark.sparkContext
    tasks = max(1, min(len(batches), 4 * context.defaultParallelism))
    hits = (
        context.parallelize(list(enumerate(batches)), tasks)
        .flatMap(partial(_encode, manifest, model, len(folders)))
        .partitionBy(len(folders), int)
        .mapPartitionsWithIndex(partial(_search_shard, folders, _Wanted(k, mode, explain, among, min_cosine)))
        .repartitionAndSortWithinPartitions(tasks, partial(_task_of_batch, tasks, len(batches)))
        .mapPartitions(partial(_merge, manifest, model, k))
    )
    return itertools.chain.from_iterable(hits.toLocalIterator())


def duplicates(
    spark: SparkSession,
    path: str | Path,
    threshold: float = 0.9,
    *,
    where: Where = None,
) -> Iterator[Pair]:
    """All pairs of sentences whose cosine is at least `threshold`, each once, in the order of addition.

    As :meth:`sparse_sts_index.index.SparseStsIndex.duplicates`; every two shards are compared by a task of their own.

    Parameters
    ----------
    spark : SparkSession
    path : str or Path
        Of a collection (or an index), within reach of the driver and all workers.
    threshold : float
    where : str, mapping or Filter, optional
        Look only at the documents whose fields pass this filter.

    Raises
    ------
    ImpactIndexError
        There is none.
    DataError
        A filter that cannot be read, or does not fit the fields.
    ValueError
        `threshold` out of range.
    """
    check_threshold(threshold)
    folders, manifest = _open(path)
    among = filter_for(where, manifest.fields)
    two = list(itertools.combinations_with_replacement(range(len(folders)), 2))
    pairs = (
        spark.sparkContext.parallelize(two, len(two))
        .flatMap(partial(_join, folders, threshold, among))
        .repartitionAndSortWithinPartitions(len(folders), _first_shard)
        .values()
    )
    return iter(pairs.toLocalIterator())


@dataclass(frozen=True)
class _Wanted:
    k: int
    mode: Mode
    explain: bool
    where: Filter | None
    min_cosine: float


def _open(path: str | Path) -> tuple[list[Path], Manifest]:
    """The shards of a collection, and what it says of itself. Checksums are left to the tasks, one for each shard."""
    path = Path(path).absolute()
    with ImpactIndex.open(path, check=False) as index:
        return shard_folders(path), index.manifest


def _encode(
    manifest: Manifest, model: str | None, shards: int, batch: tuple[int, list[str]]
) -> Iterator[tuple[int, tuple[int, csr_array]]]:
    """A batch of texts as vectors, for each shard."""
    number, texts = batch
    vectors = encoder_of(manifest, model).encode(texts)
    return ((shard, (number, vectors)) for shard in range(shards))


def _search_shard(
    folders: list[Path], wanted: _Wanted, shard: int, batches: Iterable[tuple[int, tuple[int, csr_array]]]
) -> Iterator[tuple[tuple[int, int], list[Hits]]]:
    with SparseStsIndex.open(folders[shard]) as index:
        for _, (number, vectors) in batches:
            hits = index.search_vectors(vectors, **vars(wanted))
            yield (number, shard), hits


def _task_of_batch(tasks: int, batches: int, key: tuple[int, int]) -> int:
    return key[0] * tasks // batches


def _merge(
    manifest: Manifest, model: str | None, k: int, found: Iterable[tuple[tuple[int, int], list[Hits]]]
) -> Iterator[list[Hits]]:
    """The hits of each batch of texts, of those in all shards."""
    for _, parts in itertools.groupby(found, key=lambda item: item[0][0]):
        hits = [merge_hits(some, k) for some in zip(*(part for _, part in parts), strict=True)]
        calibration = encoder_of(manifest, model).calibration
        yield hits if calibration is None else [scored(some, calibration) for some in hits]


def _join(
    folders: list[Path], threshold: float, where: Filter | None, two: tuple[int, int]
) -> Iterator[tuple[tuple[int, int, int, int], Pair]]:
    """The similar pairs of two shards, or of one, which is checked then, by the places of both documents."""
    a, b = two
    with ExitStack() as opened:
        one = opened.enter_context(ImpactIndex.open(folders[a], check=a == b))
        other = one if a == b else opened.enter_context(ImpactIndex.open(folders[b], check=False))
        first, second = opened.enter_context(one.using()), opened.enter_context(other.using())
        stores = (first.store, second.store)
        masks = [Searcher(snapshot).passing(where) for snapshot in (first, second)]
        # one thread: Spark starts a task for each core
        if a == b:
            found = similar_rows(stores[0], threshold, among=masks[0], workers=1)
        else:
            found = similar_rows_between(*stores, threshold, among=masks, workers=1)
        for rows, others, cosines in found:
            documents, other_documents = _by_row(first, rows), _by_row(second, others)
            for row, other_row, cosine in zip(rows.tolist(), others.tolist(), cosines.tolist(), strict=True):
                yield (a, row, b, other_row), Pair(documents[row], other_documents[other_row], cosine)


def _by_row(snapshot: Snapshot, rows: NDArray[np.int64]) -> dict[int, Document]:
    unique = np.unique(rows)
    return dict(zip(unique.tolist(), snapshot.documents(unique), strict=True))


def _first_shard(place: tuple[int, int, int, int]) -> int:
    return place[0]
