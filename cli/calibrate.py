"""``sparse-sts calibrate``."""

from __future__ import annotations

import math
from pathlib import Path

import click

from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.data.reading import TableOptions
from sparse_sts_index.encoding.bundled import NAMES
from sparse_sts_index.encoding.calibration import CALIBRATION_FILE, calibrate as fit
from sparse_sts_index.errors import ModelError

from .defaults import chosen_model
from .options import (
    Real,
    dataset_option,
    model_option,
    overwrite_option,
    pairs_reading_options,
    precision_option,
    score_range_option,
    split_option,
)


@click.command()
@model_option()
@dataset_option
@split_option("dev")
@score_range_option
@pairs_reading_options
@click.option(
    "--scale",
    type=(Real(), Real()),
    default=(0.0, 5.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Scale of the scores to show.",
)
@precision_option()
@overwrite_option
def calibrate(
    model: str | None,
    dataset: str,
    split: str,
    score_range: tuple[float, float] | None,
    reading: TableOptions,
    scale: tuple[float, float],
    precision: str,
    overwrite: bool,
) -> None:
    """Fit a map from a model's cosine to the scale that people grade on, and store it with the model.

    From then on score and search show a score beside each cosine. The map never turns an order round; where it is
    level, different cosines get one score. Fit it to pairs that
    the model was not trained on.
    """
    model = chosen_model(model)
    folder = Path(model)
    if model in NAMES or not folder.is_dir():
        raise ModelError(
            f"{model} is no model folder of yours, which is where a calibration is stored: train one, or copy it"
        )
    if not (math.isfinite(scale[0]) and math.isfinite(scale[1]) and scale[0] < scale[1]):
        raise click.UsageError("--scale: the first number must be below the second.")
    if (folder / CALIBRATION_FILE).exists() and not overwrite:
        raise ModelError(f"{model} has a calibration already; replace it with --overwrite")
    pairs = load_pairs(dataset, split, score_range=score_range, **reading)

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.encoding.models import load_splade

    encoder = SparseStsEncoder(load_splade(model), model, precision=precision)  # type: ignore[arg-type]
    calibration, report = fit(encoder, pairs, scale=scale)
    calibration.save(folder)
    click.echo(f"{folder / CALIBRATION_FILE}: {len(pairs):,} pairs, scores {scale[0]:g} to {scale[1]:g}")
    lowest, highest = calibration.scores[0], calibration.scores[-1]
    click.echo(f"scores it gives: {lowest:.2f} (cosine up to {calibration.cosines[0]:.3f}) to {highest:.2f}")
    click.echo(f"{'on pairs not fitted to':<28}  mean error  Pearson")
    for name, error, pearson in (
        ("cosine, stretched to the scale", report.linear_error, report.linear_pearson),
        ("calibrated", report.calibrated_error, report.calibrated_pearson),
    ):
        click.echo(f"{name:<30}  {error:8.4f}  {pearson:7.4f}")
