"""``sparse-sts train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.pairs import Pairs, load_pairs
from sparse_sts_index.data.reading import TableOptions
from sparse_sts_index.errors import DataError, TrainingError
from sparse_sts_index.training.model_folder import refuse_model_target
from sparse_sts_index.training.settings import DEFAULT_RECIPE, RECIPES, TrainingSettings
from sparse_sts_index.vectors.spec import PRECISIONS

from .defaults import TRAINED_MODEL, chosen_model_output
from .options import (
    Real,
    Whole,
    dataset_option,
    overwrite_option,
    pairs_reading_options,
    score_range_option,
    split_reading,
)
from .output import one_line
from .progress import progress

_DEFAULT = TrainingSettings()
_BY_RECIPE = "[default: by the recipe]"


@click.command()
@click.option(
    "--base-model",
    default=_DEFAULT.base_model,
    show_default=True,
    metavar="MODEL",
    help="What to fine-tune: a model folder, a hub id, or 'tiny'.",
)
@dataset_option
@click.option("--dev-dataset", metavar="PAIRS", help="Dev pairs, if --dataset is a single file or has no dev split.")
@click.option("--test-dataset", metavar="PAIRS", help="Test pairs, if --dataset has no test split.")
@click.option("--no-test", is_flag=True, help="Measure on dev only.")
@score_range_option
@pairs_reading_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"Folder for the model. [default: {TRAINED_MODEL}, or PAIRS-model for other pairs than the default]",
)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default=DEFAULT_RECIPE,
    show_default=True,
    help="Named settings; each option below that says so takes its default from it.",
)
@click.option("--epochs", type=Real(min=0, min_open=True), help=f"Passes over the pairs. {_BY_RECIPE}")
@click.option("--batch-size", type=Whole(min=1), help=f"Pairs a step. {_BY_RECIPE}")
@click.option("--learning-rate", type=Real(min=0, min_open=True), help=f"Its peak. {_BY_RECIPE}")
@click.option(
    "--warmup",
    type=Real(0, 1, max_open=True),
    help=f"Share of the steps over which the learning rate rises. {_BY_RECIPE}",
)
@click.option(
    "--regularizer-weight",
    type=Real(min=0),
    help=f"Weight of the FLOPS regulariser; larger is sparser. {_BY_RECIPE}",
)
@click.option(
    "--freeze-vocabulary/--train-vocabulary",
    default=None,
    help=f"Whether the embeddings of the vocabulary stay as they are. {_BY_RECIPE}",
)
@click.option(
    "--averaging",
    type=Real(0, 1, max_open=True),
    help=f"Decay of the moving average of the weights, which is then the model; 0: none. {_BY_RECIPE}",
)
@click.option(
    "--teacher",
    metavar="MODEL",
    help=f"A dense model to learn from beside the gold scores: a folder, a hub id, 'minilm', or 'none'. {_BY_RECIPE}",
)
@click.option(
    "--teacher-epochs",
    type=Real(min=0),
    help=f"Passes over the pairs by which the teacher is fine-tuned first. {_BY_RECIPE}",
)
@click.option(
    "--teacher-weight",
    type=Real(min=0, min_open=True),
    help=f"Weight of the teacher's grades against the gold scores. {_BY_RECIPE}",
)
@click.option("--unlabelled", metavar="CORPUS", help="More sentences for the teacher to grade.")
@click.option("--max-length", type=Whole(min=3), help="Longest input in tokens. [default: the model's]")
@click.option("--seed", type=Whole(0, 2**32 - 1), default=_DEFAULT.seed, show_default=True)
@click.option("--device", help="A torch device. [default: a GPU if there is one]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=_DEFAULT.precision,
    show_default=True,
    help="auto: bfloat16 on a GPU that has it, else float32.",
)
@click.option("--eval-steps", type=Whole(min=1), help="Steps between evaluations. [default: 1/4 epoch]")
@click.option("--patience", type=Whole(min=1), help="Number of evaluations without a better one before it stops.")
@click.option("--report-to", multiple=True, help="wandb, tensorboard, ... as in the transformers Trainer.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an interrupted run.")
@overwrite_option
def train(
    dataset: str,
    dev_dataset: str | None,
    test_dataset: str | None,
    no_test: bool,
    score_range: tuple[float, float] | None,
    reading: TableOptions,
    output: Path | None,
    recipe: str,
    teacher: str | None,
    unlabelled: str | None,
    report_to: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    **settings: object,
) -> None:
    """Fine-tune a SPLADE model on graded sentence pairs.

    The checkpoint with the best Spearman correlation on the dev pairs is saved; it loads in sentence-transformers too.
    """
    if Path(dataset).is_file() and dev_dataset is None:
        raise DataError(f"{dataset} is a single file: give the dev pairs with --dev-dataset")

    output = chosen_model_output(output, dataset)
    if not resume:
        refuse_model_target(output, error=TrainingError, overwrite=overwrite)
    of_pairs, of_corpus = split_reading(reading)

    def pairs(source: str, split: str) -> Pairs:
        return load_pairs(source, split, score_range=score_range, **of_pairs)

    train_pairs = pairs(dataset, "train")
    dev_pairs = pairs(dev_dataset or dataset, "dev")
    with_test = not no_test and (test_dataset is not None or not Path(dataset).is_file())
    test_pairs = pairs(test_dataset or dataset, "test") if with_test else None

    given = {name: value for name, value in settings.items() if value is not None}
    if teacher is not None:
        given["teacher"] = None if teacher == "none" else teacher
    chosen = dataclasses.replace(RECIPES[recipe], **given)  # type: ignore[arg-type]
    more = [document.text for document in read_corpus(unlabelled, **of_corpus)] if unlabelled else []

    from sparse_sts_index.training import fine_tuning
    from sparse_sts_index.training.checkpoints import Checkpoints
    from sparse_sts_index.training.progress import TrainingProgress

    if chosen.teacher_epochs and chosen.teacher:
        click.echo(f"teacher: {one_line(chosen.teacher)} is fine-tuned first; steps are counted after that", err=True)
    with progress(unit=" steps", desc="training") as bar:

        def show(now: TrainingProgress) -> None:
            bar.total = now.total_steps
            figures = {"loss": now.loss, "dev_spearman": now.dev_spearman}
            bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items() if value is not None})
            bar.update(now.step - bar.n)

        try:
            report = fine_tuning.train(
                output,
                train_pairs,
                dev_pairs,
                test_pairs,
                chosen,
                unlabelled=more,
                resume=resume,
                overwrite=overwrite,
                dataset=dataset + ("" if score_range is None else " (scores {:g} to {:g})".format(*score_range)),
                report_to=report_to,
                progress=show,
            )
        except KeyboardInterrupt:
            if Checkpoints.of_output(output).folder.exists():
                click.echo("\ninterrupted; the same command with --resume goes on from the last checkpoint", err=True)
            raise
    click.echo(
        f"{output}: {report.steps} steps on {report.train_pairs:,} pairs in {report.seconds:.0f} s; "
        f"the model is that of step {report.best_step}, the best on dev"
    )
    for name, result in (("dev", report.dev), ("test", report.test)):
        if result is not None:
            click.echo(
                f"{name:<5} Pearson {result.cosine.pearson:.4f}  Spearman {result.cosine.spearman:.4f}"
                f"  active dims {result.active_dims:.1f}"
            )
