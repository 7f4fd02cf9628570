"""``sparse-sts demo``."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import time
from pathlib import Path

import click

from .defaults import BOXED_MODEL

_QUERY = "My card was billed two times for one month."
_PAIR = ("The courier handed my package to the person next door.", "My neighbour was given the parcel.")


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
def demo(output: Path) -> None:
    """Train, index, search, score and evaluate on the embedded sample, offline, in a minute or two.

    What an earlier demo left in the output folder is replaced.
    """
    start = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    model, index, vectors, run = (str(output / name) for name in ("model", "index", "vectors.jsonl.gz", "run.trec"))
    before, after = (str(output / f"evaluation-{when}.json") for when in ("before", "after"))

    _run("evaluate", "--model", BOXED_MODEL, "--dataset", "sample", "--output", before)
    training = (
        "--recipe",
        "sts-baseline",
        "--epochs",
        "3",
        "--learning-rate",
        "2e-4",
        "--eval-steps",
        "14",
        "--overwrite",
    )
    _run("train", "--base-model", BOXED_MODEL, "--dataset", "sample", "--output", model, *training)
    _run("index", "sample", "--model", model, "--output", index, "--overwrite")
    _run("search", index, _QUERY, "-k", "5")
    _run("search", index, _QUERY, "-k", "1", "--explain")
    _run("search", index, "--queries", "sample", "-k", "5", "--format", "trec", stdout=run)
    _run("score", *_PAIR, "--model", model, "--explain")
    _run("export", "sample", "--model", model, "--output", vectors, "--overwrite")
    _run("evaluate", "--index", index, "--dataset", "sample", "--output", after)

    click.secho(f"\nSummary ({time.monotonic() - start:.0f} s)", bold=True)
    _show_gain(Path(before), Path(after))
    click.echo(f"\nWritten to {output.resolve()}:")
    for path, what in (
        (model, "the fine-tuned model; loads in sentence-transformers"),
        (index, "the index; its folder lucene opens in Pyserini"),
        (vectors, "the collection as Anserini's JsonVectorCollection"),
        (run, "each sentence's nearest five, as a TREC run"),
        (before, f"evaluation of {BOXED_MODEL!r} as it comes"),
        (after, "evaluation of the fine-tuned model"),
    ):
        click.echo(f"  {Path(path).name:<24} {what}")


def _run(*arguments: str, stdout: str | None = None) -> None:
    """Run a command as its user would, its output to the terminal or to a file."""
    from .main import main

    click.secho(f"\n$ sparse-sts {shlex.join(arguments)}" + (f" > {shlex.quote(stdout)}" if stdout else ""), bold=True)
    if stdout is None:
        main.main(list(arguments), standalone_mode=False)
        return
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured):
        main.main(list(arguments), standalone_mode=False)
    Path(stdout).write_text(captured.getvalue(), encoding="utf-8")


def _show_gain(before: Path, after: Path) -> None:
    reports = [json.loads(path.read_text(encoding="utf-8"))["sets"][0] for path in (before, after)]
    click.echo(f"{'on the ' + str(reports[0]['pairs']) + ' test pairs':<34}  before  trained")
    for name, group in (("Spearman, float cosine", "cosine"), ("Spearman, 8 bits in Lucene", "quantized")):
        click.echo(f"{name:<34}" + "".join(f"  {report[group]['spearman']:6.4f}" for report in reports))
    click.echo(f"{'active dims of a sentence':<34}" + "".join(f"  {report['active_dims']:6.1f}" for report in reports))
