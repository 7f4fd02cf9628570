"""``sparse-sts bench``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index._utils.files import refuse_file, refuse_folder
from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.data.reading import TableOptions
from sparse_sts_index.errors import HubUnreachableError, ModelError
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_model
from .options import (
    bits_option,
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


@click.command()
@model_option()
@dataset_option
@split_option("test")
@score_range_option
@pairs_reading_options
@sentences_option
@bits_option
@click.option(
    "--dense",
    metavar="MODEL",
    default="minilm",
    show_default=True,
    help="A dense sentence-transformers model to compare with: a folder, a hub id, 'minilm', or 'none'.",
)
@tolerance_option
@precision_option()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the report.")
def bench(
    model: str | None,
    dataset: str,
    split: str,
    score_range: tuple[float, float] | None,
    reading: TableOptions,
    corpus: str | None,
    bits: int,
    dense: str,
    tolerance: float,
    precision: Precision,
    output: Path,
) -> None:
    """Measure a model, and what one could take instead, and write report.html and report.json.

    The page needs no network. Needs pip install 'sparse-sts-index[bench]', and [minilm] for the dense model.
    """
    refuse_file(output)
    model = chosen_model(model)
    of_pairs, of_corpus = split_reading(reading)
    pairs = load_pairs(dataset, split, score_range=score_range, **of_pairs)
    sentences = [document.text for document in read_corpus(corpus, **of_corpus)] if corpus else None

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.evaluation import baselines, benchmarking
    from sparse_sts_index.evaluation.report.page import check_extra, write_report
    from sparse_sts_index.vectors.quantizer import Quantizer

    check_extra()
    rivals: list[baselines.Baseline] = [baselines.Bm25(), baselines.TfIdf(), baselines.TokenOverlap()]
    encoder = SparseStsEncoder.load(model, precision=precision)
    if dense != "none":
        try:
            rivals.insert(0, baselines.Dense(dense))
        except (ModelError, HubUnreachableError) as error:
            raise type(error)(f"{error} (or leave the dense model out: --dense none)") from error
    output.mkdir(parents=True, exist_ok=True)
    refuse_folder(output / "report.html")
    name = dataset if Path(dataset).is_file() else f"{dataset} ({split})"
    with progress(bar_format="{desc}") as line:
        result = benchmarking.benchmark(
            encoder,
            pairs,
            dataset=name,
            baselines=rivals,
            corpus=sentences,
            quantizer=Quantizer(bits),
            tolerance=tolerance,
            progress=lambda what: line.set_description_str(f"measuring: {what}"),
        )
    page, _ = write_report(result, output)
    width = max(len(rival.name) for rival in result.rivals)
    click.echo(f"{'':<{width}}  {'Spearman':>8}  {'95 %':>14}  {'Pearson':>8}  {'search':>9}")
    for rival in result.rivals:
        interval = f"{rival.spearman_interval.low:.3f} to {rival.spearman_interval.high:.3f}"
        click.echo(
            f"{one_line(rival.name):<{width}}  {rival.cosine.spearman:8.4f}  {interval:>14}  "
            f"{rival.cosine.pearson:8.4f}  {rival.search_ms:6.2f} ms"
        )
    click.echo(f"{page}: {result.evaluation.pairs:,} pairs, {result.sentences:,} sentences, {result.seconds:.0f} s")
