"""``sparse-sts tradeoff``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparse_sts_index._utils.files import atomic_writer, refuse_file
from sparse_sts_index._utils.json import plain
from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.data.reading import TableOptions
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_model
from .options import (
    dataset_option,
    model_option,
    pairs_reading_options,
    precision_option,
    score_range_option,
    sentences_option,
    split_option,
    split_reading,
    tolerance_option,
)
from .output import one_line
from .progress import progress

if TYPE_CHECKING:
    from sparse_sts_index.evaluation.tradeoff import Setting


@click.command()
@model_option()
@dataset_option
@split_option("dev")
@score_range_option
@pairs_reading_options
@sentences_option
@tolerance_option
@precision_option()
@click.option("--format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Folder for the curves, as SVG.")
def tradeoff(
    model: str | None,
    dataset: str,
    split: str,
    score_range: tuple[float, float] | None,
    reading: TableOptions,
    corpus: str | None,
    tolerance: float,
    precision: Precision,
    format: str,
    plot: Path | None,
) -> None:
    """Quality against size: what bits, and how many terms of a sentence, are worth keeping.

    Recommends the smallest index whose Spearman correlation is within the tolerance of the float one.
    """
    if plot is not None:
        from sparse_sts_index.evaluation.report.page import check_extra

        check_extra()
        refuse_file(plot)
        plot.mkdir(parents=True, exist_ok=True)
    model = chosen_model(model)
    of_pairs, of_corpus = split_reading(reading)
    pairs = load_pairs(dataset, split, score_range=score_range, **of_pairs)
    sentences = [document.text for document in read_corpus(corpus, **of_corpus)] if corpus else None

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.evaluation import tradeoff as measured

    encoder = SparseStsEncoder.load(model, precision=precision)
    settings = len(measured.BITS) * (len(measured.ACTIVE_DIMS) + 1)
    with progress(settings, unit=" settings", desc="measuring") as bar:
        result = measured.trade_off(
            encoder, pairs, tolerance=tolerance, corpus=sentences, progress=lambda count: bar.update(count) and None
        )
    if plot is not None:
        from sparse_sts_index.evaluation.report.charts import TITLES, standalone, trade_off_charts

        for name, svg in trade_off_charts(result).items():
            with atomic_writer(plot / f"{name}.svg") as file:
                file.write(standalone(svg, TITLES[name]))
    if format == "json":
        click.echo(json.dumps({"model": encoder.name, "dataset": dataset, **plain(result)}, indent=2))
        return
    click.echo(
        f"{one_line(dataset)}: {result.pairs:,} pairs; indexes of {result.sentences:,} sentences; "
        f"model {one_line(encoder.name)} in {encoder.precision}"
    )
    click.echo(f"float cosine, all terms: Spearman {result.float_spearman:.4f}, Pearson {result.float_pearson:.4f}")
    click.echo("\nSpearman by bits (rows) and terms kept (columns)")
    counts = list(dict.fromkeys(setting.max_active_dims for setting in result.settings))
    click.echo(f"{'bits':>4}" + "".join(f"{'all' if count is None else count:>8}" for count in counts))
    by_bits: dict[int, list[Setting]] = {}
    for setting in result.settings:
        by_bits.setdefault(setting.bits, []).append(setting)
    for bits, row in by_bits.items():
        click.echo(f"{bits:>4}" + "".join(f"{setting.spearman:8.4f}" for setting in row))
    click.echo("\nSteps (all terms): linear, as in an index, against what Lucene cannot have")
    click.echo(f"{'bits':>4}  {'linear':>7}  {'sqrt':>7}  {'log':>7}")
    for bits in by_bits:
        found = {quality.steps: quality.spearman for quality in result.steps if quality.bits == bits}
        click.echo(f"{bits:>4}  {found['linear']:7.4f}  {found['sqrt']:7.4f}  {found['log']:7.4f}")
    click.echo(f"\n{'':<36}  Spearman   dims   Lucene  floats  search")
    for name, chosen in (("usual", result.usual), (f"smallest within {tolerance:g}", result.recommended)):
        if chosen is None:
            click.echo(f"{name}: none")
            continue
        flags = f"--bits {chosen.bits}" + (
            "" if chosen.max_active_dims is None else f" --max-active-dims {chosen.max_active_dims}"
        )
        click.echo(
            f"{name + ':':<24} {flags}\n{'':<36}  {chosen.spearman:8.4f}  {chosen.active_dims:5.1f}"
            f"  {chosen.lucene_bytes:5.0f} B  {chosen.vectors_bytes:4.0f} B  {chosen.search_ms:.3f} ms"
        )
    click.echo("The smallest was chosen on these very pairs: evaluate --bits --max-active-dims confirms it on others.")
