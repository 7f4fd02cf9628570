"""``sparse-sts export``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from sparse_sts_index.corpus import read_corpus
from sparse_sts_index.errors import DataError
from sparse_sts_index.files import atomic_writer, refuse_folder
from sparse_sts_index.precision import Precision
from sparse_sts_index.records import STDIN

from .options import (
    bits_option,
    corpus_format_option,
    known_total,
    model_option,
    overwrite_option,
    precision_option,
    progress_bar,
)


@click.command()
@click.argument("corpus")
@model_option()
@click.option("--output", default=STDIN, show_default=True, help="A .jsonl or .jsonl.gz file, or - for stdout.")
@bits_option
@precision_option()
@corpus_format_option("--format")
@overwrite_option
def export(
    corpus: str, model: str, output: str, bits: int, precision: Precision, format: str | None, overwrite: bool
) -> None:
    """Write CORPUS as quantized vectors in Anserini's JsonVectorCollection format.

    CORPUS is a jsonl, csv, tsv, txt or parquet file, - for standard input, or 'sample'.
    """
    total = known_total(corpus, format)
    if output != STDIN:
        refuse_folder(output)
        if Path(output).is_file() and not overwrite:
            raise DataError(f"{output} already exists; replace it with --overwrite")

    from sparse_sts_index.encoder import SparseStsEncoder
    from sparse_sts_index.export import export_vectors
    from sparse_sts_index.quantizer import Quantizer

    encoder = SparseStsEncoder.load(model, precision=precision)
    if output == STDIN:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    target = contextlib.nullcontext(sys.stdout) if output == STDIN else atomic_writer(output)
    with progress_bar(total, "exporting") as progress, target as file:
        count = export_vectors(
            read_corpus(corpus, format),
            encoder,
            file,
            quantizer=Quantizer(bits),
            progress=progress,
        )
    if output != STDIN:
        click.echo(f"{output}: {count:,} vectors, {bits} bits")
