"""``sparse-sts export``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparse_sts_index._utils.files import atomic_writer, refuse_folder
from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.reading import STDIN, FileOptions
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_model
from .options import Whole, model_option, overwrite_option, precision_option, reading_options
from .output import known_total
from .progress import progress_bar

if TYPE_CHECKING:
    from sparse_sts_index.engines.sources import Source

_FORMATS = ("anserini", "elasticsearch", "opensearch", "solr", "milvus", "qdrant", "ciff")


@click.command()
@click.argument("source")
@click.option("--format", type=click.Choice(_FORMATS), default="anserini", show_default=True)
@model_option()
@click.option(
    "--output",
    default=STDIN,
    show_default=True,
    help="A folder; for anserini a .jsonl or .jsonl.gz file, or - for stdout.",
)
@click.option("--bits", type=Whole(2, 16), help="Bits of the largest impact. [default: an index's, else 8]")
@precision_option(default="auto; an index has its vectors")
@reading_options("--input-format")
@overwrite_option
def export(
    source: str,
    format: str,
    model: str | None,
    output: str,
    bits: int | None,
    precision: Precision | None,
    reading: FileOptions,
    overwrite: bool,
) -> None:
    """Write SOURCE as files that another search engine's importer takes.

    SOURCE is the folder of an index, or a corpus to encode: a jsonl, csv, tsv, txt or parquet file, - for standard
    input, or 'sample'. Anserini's format is its JsonVectorCollection, of quantized vectors; the others are folders with
    the setup of the collection, the documents, and a manifest. How to load them is in docs/engines.md.
    """
    if format != "anserini":
        if output == STDIN:
            raise click.UsageError(f"--format {format} is a folder of files: give it with --output.")
        from sparse_sts_index.engines.export.files import check_output

        check_output(output, overwrite)
    elif output != STDIN:
        refuse_folder(output)
        if Path(output).is_file() and not overwrite:
            raise DataError(f"{output} already exists; replace it with --overwrite")

    with contextlib.ExitStack() as stack:
        opened, progress = _open(stack, source, model, bits, precision, reading)
        if format == "anserini":
            count = _write_jsonl(opened, output, progress)
        else:
            from sparse_sts_index.engines.export.files import export_files

            count = export_files(opened, format, output, overwrite=overwrite, progress=progress)
    if output != STDIN:
        stream = Path(output).exists() and not (Path(output).is_file() or Path(output).is_dir())  # /dev/stdout
        click.echo(f"{output}: {count:,} vectors{_held_as(format, opened)}", err=stream)


def _open(
    stack: contextlib.ExitStack,
    source: str,
    model: str | None,
    bits: int | None,
    precision: Precision | None,
    reading: FileOptions,
) -> tuple[Source, Callable[[int], None] | None]:
    """What is to be exported, and the bar to move with what is written (a corpus moves its own as it is encoded)."""
    from sparse_sts_index.engines.sources import Source
    from sparse_sts_index.storage.layout import is_index

    if is_index(Path(source)):
        if not (model is None and bits is None and precision is None and not any(reading.values())):
            raise click.UsageError(
                "--model, --bits, --precision, --input-format, --columns and --delimiter cannot be used with an index."
            )
        from sparse_sts_index.storage.impact_index import ImpactIndex

        opened = Source.of_index(ImpactIndex.open(source))
        return opened, stack.enter_context(progress_bar(opened.documents, "exporting"))
    total = known_total(source, reading)
    model = chosen_model(model)

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.vectors.quantizer import Quantizer

    encoder = SparseStsEncoder.load(model, precision=precision or "auto")
    progress = stack.enter_context(progress_bar(total, "exporting"))
    quantizer = Quantizer() if bits is None else Quantizer(bits)
    return Source.of_corpus(read_corpus(source, **reading), encoder, quantizer, progress=progress), None


def _held_as(format: str, source: Source) -> str:
    """How near the vectors in the files are, in words."""
    if format in ("anserini", "ciff"):
        return f", {source.metadata.bits} bits"
    from sparse_sts_index.engines.registry import engine_class

    return f"; {engine_class(format).precision()}"


def _write_jsonl(source: Source, output: str, progress: Callable[[int], None] | None) -> int:
    from sparse_sts_index.engines.export.anserini import write_chunks

    if output == STDIN:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    target = contextlib.nullcontext(sys.stdout) if output == STDIN else atomic_writer(output)
    with target as file:
        return write_chunks(source.read(0), source.vocabulary.terms, file, progress=progress)
