"""``sparse-sts grow``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.errors import ModelError
from sparse_sts_index.training.model_folder import refuse_model_target
from sparse_sts_index.training.settings import GrowthSettings

from .options import Real, Whole, overwrite_option, reading_options
from .progress import progress


@click.command()
@click.argument("corpus")
@click.option(
    "--encoder",
    default="minilm",
    show_default=True,
    metavar="MODEL",
    help="A dense BERT: a folder, a hub id or 'minilm'.",
)
@click.option(
    "--teacher",
    default="tiny",
    show_default=True,
    metavar="MODEL",
    help="A SPLADE model of the same vocabulary, whose term weights are learnt: a folder, a hub id or 'tiny'.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@click.option("--steps", type=Whole(min=1), default=800, show_default=True)
@click.option("--batch-size", type=Whole(min=1), default=64, show_default=True, help="Sentences a step.")
@click.option("--learning-rate", type=Real(min=0, min_open=True), default=3e-4, show_default=True)
@click.option("--encoder-learning-rate", type=Real(min=0), default=5e-5, show_default=True)
@click.option("--seed", type=Whole(0, 2**32 - 1), default=42, show_default=True)
@reading_options("--format")
@overwrite_option
def grow(corpus: str, output: Path, reading: FileOptions, overwrite: bool, **settings: object) -> None:
    """Give a dense encoder a SPLADE head, taught on the sentences of CORPUS: a base model to train.

    Dense models come without the head that gives weights to terms. CORPUS wants tens of thousands of sentences of any
    kind; nobody needs to have graded them.
    """
    refuse_model_target(output, error=ModelError, overwrite=overwrite)
    sentences = list(dict.fromkeys(document.text for document in read_corpus(corpus, **reading)))

    from sparse_sts_index.training import splade_from_dense

    chosen = GrowthSettings(**settings)  # type: ignore[arg-type]
    with progress(chosen.steps, unit=" steps", desc="growing") as bar:

        def show(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        grown = splade_from_dense.grow(output, sentences, chosen, overwrite=overwrite, progress=show)
    dims = grown.encode(sentences[:1000]).nnz / min(len(sentences), 1000)
    click.echo(f"{output}: {chosen.steps} steps on {len(sentences):,} sentences; {dims:.1f} active dims of a sentence")
