"""``sparse-sts evaluate``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from sparse_sts_index._utils.files import atomic_writer, refuse_folder
from sparse_sts_index._utils.hub import DEFAULT_DATASET
from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.vectors.spec import Precision

from .defaults import BOXED_MODEL, MODEL_VARIABLE, TRAINED_MODEL, chosen_model
from .options import (
    PAIR_ROLES,
    Real,
    Whole,
    columns_option,
    delimiter_option,
    max_active_dims_option,
    model_option,
    precision_option,
    split_option,
)
from .output import one_line, stdout_is_utf8

if TYPE_CHECKING:
    from sparse_sts_index.evaluation.correlation import Interval
    from sparse_sts_index.evaluation.quality import Evaluation

Value = TypeVar("Value")


@click.command()
@model_option(f"the one of --index, else {MODEL_VARIABLE}, {TRAINED_MODEL} in this folder, or {BOXED_MODEL}")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    default=(DEFAULT_DATASET,),
    show_default=True,
    metavar="PAIRS",
    help="A csv, tsv, jsonl or parquet file, a folder with a file for each split, a hub data set, or 'sample'; "
    "can be given several times.",
)
@split_option("test")
@click.option(
    "--score-range",
    "score_ranges",
    multiple=True,
    type=(Real(), Real()),
    metavar="LOW HIGH",
    help="Scale of the scores in the data, such as 0 5; once for all, or once for each --dataset. [default: 0 1]",
)
@columns_option(PAIR_ROLES, multiple=True)
@delimiter_option(multiple=True)
@click.option("--against", metavar="MODEL", help="Another model: is the difference more than chance?")
@click.option(
    "--index", type=click.Path(path_type=Path), help="Quantize as this index does, and check that the model is its own."
)
@click.option("--bits", type=Whole(2, 16), help="Bits of the impacts. [default: those of --index, else 8]")
@max_active_dims_option
@precision_option("as the documents of --index, else auto")
@click.option("--format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the JSON to this file, too.")
def evaluate(
    model: str | None,
    datasets: tuple[str, ...],
    split: str,
    score_ranges: tuple[tuple[float, float], ...],
    columns: tuple[dict[str, str], ...],
    delimiter: tuple[str, ...],
    against: str | None,
    index: Path | None,
    bits: int | None,
    max_active_dims: int | None,
    precision: Precision | None,
    format: str,
    output: Path | None,
) -> None:
    """Correlation with human judgement of the model's cosine, and of its quantized form as Lucene computes it.

    Intervals are 95 % bootstrap intervals. A model with a calibration has a row for its score. --against adds a paired
    permutation test between two models.
    """
    if index is not None and not (bits is None and max_active_dims is None):
        raise click.UsageError("An --index has its own --bits and --max-active-dims.")
    if index is None:
        model = chosen_model(model)
    layouts = zip(
        datasets,
        _for_each(datasets, score_ranges, "--score-range"),
        _for_each(datasets, columns, "--columns"),
        _for_each(datasets, delimiter, "--delimiter"),
        strict=True,
    )
    if output is not None:
        refuse_folder(output)
    sets = [
        load_pairs(dataset, split, score_range=scale, columns=names, delimiter=separator)
        for dataset, scale, names, separator in layouts
    ]

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.evaluation import quality
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.vectors.quantizer import Quantizer

    if index is not None:
        with SparseStsIndex.open(index, model, precision=precision) as opened:
            encoder, quantizer = opened.encoder, opened.quantizer
    else:
        encoder = SparseStsEncoder.load(str(model), precision=precision or "auto", max_active_dims=max_active_dims)
        quantizer = Quantizer(bits or 8)
    other = SparseStsEncoder.load(against, precision=precision or encoder.precision) if against else None
    results = [quality.evaluate(encoder, pairs, quantizer=quantizer, against=other) for pairs in sets]
    report = {
        "model": encoder.name,
        "model_fingerprint": encoder.fingerprint,
        "precision": encoder.precision,
        "sets": [
            {"dataset": dataset, "split": None if Path(dataset).is_file() else split, **result.to_dict()}
            for dataset, result in zip(datasets, results, strict=True)
        ],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if format == "json":
        click.echo(text if stdout_is_utf8() else json.dumps(report, indent=2))
    else:
        for number, (dataset, result) in enumerate(zip(datasets, results, strict=True)):
            name = dataset if Path(dataset).is_file() else f"{dataset} ({split})"
            title = f"{name}: {result.pairs:,} pairs, model {encoder.name} in {encoder.precision}"
            _show_table(("\n" if number else "") + one_line(title), result)
    if output is not None:
        with atomic_writer(output) as file:
            file.write(text + "\n")


def _for_each(datasets: Sequence[str], values: Sequence[Value], option: str) -> list[Value | None]:
    """Return one value for each data set: the one of its own, the one for all, or none."""
    if len(values) not in (0, 1, len(datasets)):
        raise click.UsageError(f"Give {option} once, or once for each --dataset.")
    if len(values) == len(datasets):
        return [*values]
    return [values[0] if values else None] * len(datasets)


def _range(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low):
        return "not defined"
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def _show_table(title: str, result: Evaluation) -> None:
    quantized = f"Lucene, {result.bits} bits"
    interval = result.spearman_interval
    click.echo(title)
    click.echo(f"{'':<16}  {'Pearson':>8}  {'Spearman':>8}")
    for name, row, more in (
        ("float cosine", result.cosine, f"  95 %: {_range(interval)}"),
        (quantized, result.quantized, ""),
    ):
        click.echo(f"{name:<16}  {row.pearson:8.4f}  {row.spearman:8.4f}{more}")
    pearson = result.quantized.pearson - result.cosine.pearson
    spearman = result.quantized.spearman - result.cosine.spearman
    click.echo(f"{'difference':<16}  {pearson:+8.4f}  {spearman:+8.4f}")
    if result.calibrated is not None:
        low, high = result.calibrated.scale
        click.echo(
            f"{'score':<16}  {result.calibrated.pearson:8.4f}  {'':>8}  "
            f"mean error {result.calibrated.mean_error:.3f} on {low:g} to {high:g}"
        )
    click.echo(f"largest difference of a pair: {result.max_difference:.4f} (bound {result.error_bound:.4f})")
    click.echo(
        f"active dims: {result.active_dims:.1f} ({result.sparsity:.3%} sparse); "
        f"quantized {result.quantized_active_dims:.1f}"
    )
    if result.against is not None:
        other, difference = result.against, result.against.difference
        click.echo(
            f"against {one_line(other.model)}: Pearson {other.cosine.pearson:.4f}, "
            f"Spearman {other.cosine.spearman:.4f}, active dims {other.active_dims:.1f}"
        )
        click.echo(
            f"difference in Spearman: {difference.spearman:+.4f} "
            f"(95 %: {_range(difference.interval, '+')}), p = {difference.p_value:.4f}"
        )
