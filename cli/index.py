"""``sparse-sts index``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.fields import Field
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.storage import start_jvm
from sparse_sts_index.storage.builder import check_target
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_model, chosen_output, is_many
from .options import (
    Whole,
    all_fields_option,
    bits_option,
    engine_session,
    fields_option,
    max_active_dims_option,
    model_option,
    overwrite_option,
    precision_option,
    reading_options,
    spark_options,
)
from .output import ScriptCheck, examined, one_line, show_built
from .progress import progress_bar


@click.command()
@click.argument("corpus", required=False)
@model_option()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the index. [default: CORPUS-index, beside the corpus]",
)
@bits_option
@max_active_dims_option
@precision_option()
@fields_option
@all_fields_option
@reading_options("--format")
@overwrite_option
@spark_options
@click.option("--input", "files", metavar="CORPUS", help="CORPUS by a name; for Spark, a glob or a URL.")
@click.option("--shards", type=Whole(min=1), help="With Spark: how many. [default: as many as it has cores]")
def index(
    corpus: str | None,
    model: str | None,
    output: Path | None,
    bits: int,
    max_active_dims: int | None,
    precision: Precision,
    reading: FileOptions,
    fields: tuple[Field, ...],
    all_fields: bool,
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
    if fields and all_fields:
        raise click.UsageError("Give --fields or --all-fields.")
    if (corpus is None) == (files is None):
        raise click.UsageError("Give CORPUS, or --input, once.")
    source = corpus or files or ""
    if shards is not None and engine != "spark":
        raise click.UsageError("--shards needs --engine spark.")
    if engine == "local":
        if is_many(source):
            raise click.UsageError(f"{source} names many files or a URL, for which --engine spark is needed.")
        total, fields = examined(source, reading, "all" if all_fields else fields)
        if fields:
            click.echo(one_line("fields: " + ", ".join(f"{field.name} {field.type}" for field in fields)), err=True)
    elif all_fields or any(field.type is None for field in fields):
        raise click.UsageError("--engine spark reads once: name the fields with their types, --fields created:date.")
    elif reading.get("delimiter") is not None:
        raise click.UsageError("--delimiter is not for --engine spark, which reads jsonl, txt and parquet.")
    output, model = chosen_output(output, source), chosen_model(model)
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
                format=reading.get("format"),
                columns=reading.get("columns"),
                fields=fields,
                quantizer=Quantizer(bits),
                precision=precision,
                max_active_dims=max_active_dims,
                overwrite=overwrite,
            )
            show_built(output, manifest, f", in {count} shards")
            return
    check_target(output, overwrite)  # all that can be refused is, before the model is loaded
    start_jvm()

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.vectors.quantizer import Quantizer

    encoder = SparseStsEncoder.load(model, precision=precision, max_active_dims=max_active_dims)
    scripts = ScriptCheck(encoder.vocabulary)
    documents = scripts.pass_through(read_corpus(source, fields=fields, **reading))
    with (
        progress_bar(total, "indexing") as progress,
        SparseStsIndex.build(
            output,
            documents,
            encoder,
            quantizer=Quantizer(bits),
            overwrite=overwrite,
            fields={field.name: field.type for field in fields if field.type},
            progress=progress,
        ) as built,
    ):
        manifest = built.manifest
    show_built(output, manifest)
    scripts.warn("sentences")
