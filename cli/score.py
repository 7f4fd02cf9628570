"""``sparse-sts score``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from sparse_sts_index.data.pairs import Pairs, load_pairs
from sparse_sts_index.data.reading import STDIN, TableOptions
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_model
from .options import explain_option, model_option, pairs_reading_options, precision_option
from .output import ScriptCheck, json_line, one_line, show_terms


@click.command()
@click.argument("sentences", nargs=-1, required=True, metavar="A B | PAIRS")
@model_option()
@click.option("--format", type=click.Choice(["table", "jsonl"]), default="table", show_default=True)
@pairs_reading_options
@explain_option
@precision_option()
def score(
    sentences: tuple[str, ...],
    model: str | None,
    format: str,
    explain: bool,
    reading: TableOptions,
    precision: Precision,
) -> None:
    """Cosine of two sentences, A and B, or of each pair in a file PAIRS.

    PAIRS is a csv, tsv, jsonl or parquet file (or - for jsonl on standard input) with columns sentence1 and
    sentence2. The cosine is the float one; a model with a calibration (sparse-sts calibrate) gives a score beside it.
    """
    if len(sentences) > 2:
        raise click.UsageError("Give two sentences, or one file of pairs.")
    if len(sentences) == 1:
        if sentences[0] != STDIN and not Path(sentences[0]).is_file():
            problem = "is a folder" if Path(sentences[0]).is_dir() else "no such file"
            raise DataError(f"{sentences[0]}: {problem}; score takes two sentences, or one file of pairs")
        pairs = load_pairs(Path(sentences[0]), scored=False, **reading)
    elif any(reading.values()):
        raise click.UsageError("--columns and --delimiter need a file of pairs.")
    else:
        pairs = Pairs([sentences[0]], [sentences[1]], None)
    model = chosen_model(model)

    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.vectors.explanations import explain_pair
    from sparse_sts_index.vectors.quantizer import pairwise_dot

    encoder = SparseStsEncoder.load(model, precision=precision)
    scripts = ScriptCheck(encoder.vocabulary)
    for text in (*pairs.sentence1, *pairs.sentence2):
        scripts.count(text)
    first, second = encoder.encode_pairs(pairs.sentence1, pairs.sentence2)
    cosines = pairwise_dot(first, second)
    calibrated = None if encoder.calibration is None else encoder.calibration(cosines).tolist()
    for row, cosine in enumerate(cosines.tolist()):
        graded = None if calibrated is None else calibrated[row]
        a, b = pairs.sentence1[row], pairs.sentence2[row]
        explanation = explain_pair(encoder.vocabulary, first[[row]], second[[row]]) if explain else None
        if format == "jsonl":
            line: dict[str, object] = {"sentence1": a, "sentence2": b, "cosine": cosine}
            if graded is not None:
                line["score"] = graded
            if explanation is not None:
                line["explanation"] = [dataclasses.asdict(term) for term in explanation]
            click.echo(json_line(line))
        else:
            shown = f"{cosine:.4f}" + ("" if graded is None else f"  {graded:.2f}")
            click.echo(f"{shown}  {one_line(a)}  |  {one_line(b)}")
            if explanation is not None:
                show_terms(explanation, cosine, " " * 8)
    scripts.warn("sentences")
