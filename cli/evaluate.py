"""``sparse-sts evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparse_sts_index.files import atomic_writer, refuse_folder
from sparse_sts_index.pairs import load_pairs
from sparse_sts_index.precision import Precision

from .options import dataset_option, model_option, precision_option, score_range_option

if TYPE_CHECKING:
    from sparse_sts_index.evaluation import Evaluation


@click.command()
@model_option(required=False, more=" Default: the one of --index.")
@dataset_option
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "validation", "test"]),
    default="test",
    show_default=True,
    help="A single file is one split and is read whole.",
)
@score_range_option
@click.option(
    "--index", type=click.Path(path_type=Path), help="Quantize as this index does, and check that the model is its own."
)
@click.option("--bits", type=click.IntRange(2, 16), help="Bits of the impacts. [default: those of --index, else 8]")
@precision_option("as the documents of --index, else auto")
@click.option("--format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the JSON to this file, too.")
def evaluate(
    model: str | None,
    dataset: str,
    split: str,
    score_range: tuple[float, float] | None,
    index: Path | None,
    bits: int | None,
    precision: Precision | None,
    format: str,
    output: Path | None,
) -> None:
    """Correlation with human judgement of the model's cosine, and of its quantized form as Lucene computes it."""
    if model is None and index is None:
        raise click.UsageError("Give --model, or an --index.")
    if bits is not None and index is not None:
        raise click.UsageError("An --index has its own --bits.")
    if output is not None:
        refuse_folder(output)
    pairs = load_pairs(dataset, split, score_range=score_range)

    from sparse_sts_index import evaluation
    from sparse_sts_index.encoder import SparseStsEncoder
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.quantizer import Quantizer

    if index is not None:
        with SparseStsIndex.open(index, model, precision=precision) as opened:
            encoder, quantizer = opened.encoder, opened.quantizer
    else:
        encoder, quantizer = SparseStsEncoder.load(str(model), precision=precision or "auto"), Quantizer(bits or 8)
    result = evaluation.evaluate(encoder, pairs, quantizer=quantizer)
    report = {
        "dataset": dataset,
        "split": None if Path(dataset).is_file() else split,
        "model": encoder.name,
        "model_fingerprint": encoder.fingerprint,
        "precision": encoder.precision,
        **result.to_dict(),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if format == "json":
        click.echo(text)
    else:
        name = dataset if report["split"] is None else f"{dataset} ({split})"
        _show_table(f"{name}: {result.pairs:,} pairs, model {encoder.name} in {encoder.precision}", result)
    if output is not None:
        with atomic_writer(output) as file:
            file.write(text + "\n")


def _show_table(title: str, result: Evaluation) -> None:
    quantized = f"Lucene, {result.bits} bits"
    click.echo(title)
    click.echo(f"{'':<16}  {'Pearson':>8}  {'Spearman':>8}")
    for name, row in (("float cosine", result.cosine), (quantized, result.quantized)):
        click.echo(f"{name:<16}  {row.pearson:8.4f}  {row.spearman:8.4f}")
    pearson = result.quantized.pearson - result.cosine.pearson
    spearman = result.quantized.spearman - result.cosine.spearman
    click.echo(f"{'difference':<16}  {pearson:+8.4f}  {spearman:+8.4f}")
    click.echo(f"largest difference of a pair: {result.max_difference:.4f} (bound {result.error_bound:.4f})")
    click.echo(
        f"active dims: {result.active_dims:.1f} ({result.sparsity:.3%} sparse); "
        f"quantized {result.quantized_active_dims:.1f}"
    )
