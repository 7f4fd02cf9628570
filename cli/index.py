"""``sparse-sts index``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.corpus import read_corpus
from sparse_sts_index.precision import Precision

from .options import (
    bits_option,
    corpus_format_option,
    known_total,
    max_active_dims_option,
    model_option,
    overwrite_option,
    precision_option,
    progress_bar,
)


@click.command()
@click.argument("corpus")
@model_option()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the index.")
@bits_option
@max_active_dims_option
@precision_option()
@corpus_format_option("--format")
@overwrite_option
def index(
    corpus: str,
    model: str,
    output: Path,
    bits: int,
    max_active_dims: int | None,
    precision: Precision,
    format: str | None,
    overwrite: bool,
) -> None:
    """Build a Lucene impact index of the sentences in CORPUS.

    CORPUS is a jsonl, csv, tsv, txt or parquet file, - for standard input, or 'sample'. A file is read twice: once to
    find every error in it before the work begins, once to encode it.
    """
    total = known_total(corpus, format)

    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.quantizer import Quantizer

    with (
        progress_bar(total, "indexing") as progress,
        SparseStsIndex.build(
            output,
            read_corpus(corpus, format),
            model,
            quantizer=Quantizer(bits),
            precision=precision,
            max_active_dims=max_active_dims,
            overwrite=overwrite,
            progress=progress,
        ) as built,
    ):
        manifest = built.manifest
    click.echo(
        f"{output}: {manifest.documents:,} sentences in {manifest.build_seconds:.1f} s "
        f"({manifest.documents / manifest.build_seconds:.0f}/s), "
        f"{manifest.postings / manifest.documents:.1f} terms each, {manifest.empty_documents:,} without a term"
    )
