"""``sparse-sts index`` and ``merge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.vectors.spec import Precision

from .options import (
    bits_option,
    corpus_format_option,
    engine_session,
    known_total,
    max_active_dims_option,
    model_option,
    overwrite_option,
    precision_option,
    progress_bar,
    spark_options,
)

if TYPE_CHECKING:
    from sparse_sts_index.storage.manifest import Manifest


@click.command()
@click.argument("corpus", required=False)
@model_option()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the index.")
@bits_option
@max_active_dims_option
@precision_option()
@corpus_format_option("--format")
@overwrite_option
@spark_options
@click.option("--input", "files", metavar="CORPUS", help="CORPUS by a name; for Spark, a glob or a URL.")
@click.option("--shards", type=click.IntRange(min=1), help="With Spark: how many. [default: as many as it has cores]")
def index(
    corpus: str | None,
    model: str,
    output: Path,
    bits: int,
    max_active_dims: int | None,
    precision: Precision,
    format: str | None,
    overwrite: bool,
    engine: str,
    master: str | None,
    spark_conf: dict[str, str],
    files: str | None,
    shards: int | None,
) -> None:
    """Build a Lucene impact index of the sentences in CORPUS.

    CORPUS is a jsonl, csv, tsv, txt or parquet file, - for standard input, or 'sample'. A file is read twice: once to
    find every error in it before the work begins, once to encode it.

    With --engine spark, CORPUS may be many jsonl, txt or parquet files, by a glob, on any file system that Spark reads;
    the result is a collection of shards, which all commands that read an index take in its place.
    """
    if (corpus is None) == (files is None):
        raise click.UsageError("Give CORPUS, or --input, once.")
    source = corpus or files or ""
    if shards is not None and engine != "spark":
        raise click.UsageError("--shards needs --engine spark.")
    with engine_session(engine, master, spark_conf) as spark:
        if spark is not None:
            from sparse_sts_index.spark.build import build_collection
            from sparse_sts_index.vectors.quantizer import Quantizer

            manifest, count = build_collection(
                spark,
                source,
                output,
                model,
                shards=shards or spark.sparkContext.defaultParallelism,
                format=format,
                quantizer=Quantizer(bits),
                precision=precision,
                max_active_dims=max_active_dims,
                overwrite=overwrite,
            )
            _report(output, manifest, f", in {count} shards")
            return
    total = known_total(source, format)

    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.vectors.quantizer import Quantizer

    with (
        progress_bar(total, "indexing") as progress,
        SparseStsIndex.build(
            output,
            read_corpus(source, format),
            model,
            quantizer=Quantizer(bits),
            precision=precision,
            max_active_dims=max_active_dims,
            overwrite=overwrite,
            progress=progress,
        ) as built,
    ):
        manifest = built.manifest
    _report(output, manifest)


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("indexes", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="INDEX...")
@overwrite_option
def merge(output: Path, indexes: tuple[Path, ...], overwrite: bool) -> None:
    """Make OUTPUT one index of all sentences in each INDEX, or collection of shards; nothing is encoded again."""
    from sparse_sts_index.storage.impact_index import ImpactIndex
    from sparse_sts_index.storage.merging import merge as merge_indexes

    with progress_bar(None, "merging") as progress:
        merge_indexes(output, indexes, overwrite=overwrite, progress=progress)
    with ImpactIndex.open(output) as merged:
        _report(output, merged.manifest)


def _report(output: Path, manifest: Manifest, more: str = "") -> None:
    click.echo(
        f"{output}: {manifest.documents:,} sentences in {manifest.build_seconds:.1f} s "
        f"({manifest.documents / manifest.build_seconds:.0f}/s), "
        f"{manifest.postings / manifest.documents:.1f} terms each, {manifest.empty_documents:,} without a term{more}"
    )
