"""``sparse-sts train``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.pairs import Pairs, load_pairs
from sparse_sts_index.data.reading import TableOptions
from sparse_sts_index.errors import DataError, TrainingError
from sparse_sts_index.training.model_folder import refuse_model_target
from sparse_sts_index.training.settings import (
    COMPANIONS,
    DEFAULT_RECIPE,
    RECIPES,
    STAGED_RECIPES,
    Recipe,
    TrainingSettings,
)
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
from .progress import Bar, progress

if TYPE_CHECKING:
    from sparse_sts_index.training.progress import TrainingProgress

_DEFAULT = TrainingSettings()
_BY_RECIPE = "[default: by the recipe]"


@click.command()
@click.option(
    "--base-model",
    default=_DEFAULT.base_model,
    show_default=True,
    metavar="MODEL",
    help="The base: a model folder, a hub id, 'mini' or 'tiny'.",
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
    type=click.Choice([*RECIPES, *STAGED_RECIPES]),
    default=DEFAULT_RECIPE,
    show_default=True,
    help="Named settings; each option below that says so takes its default from it. Recipes of several stages "
    f"({', '.join(STAGED_RECIPES)}) need --data.",
)
@click.option(
    "--data",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Sentences for a recipe of several stages: files of sentences in unlabelled/, of pairs in pairs/.",
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
    "--regularize-unit-vectors/--regularize-weights",
    default=None,
    help=f"Whether the regulariser sees unit vectors of the terms that are kept. {_BY_RECIPE}",
)
@click.option(
    "--excess-weight",
    type=Real(min=0),
    help=f"Weight of the sum of the terms beyond --max-active-dims; larger encodes faster. {_BY_RECIPE}",
)
@click.option(
    "--similarity-floor",
    type=Real(0, 0.99),
    help=f"Grade up to which sentences count as unlike; with a teacher. {_BY_RECIPE}",
)
@click.option(
    "--freeze-vocabulary/--train-vocabulary",
    default=None,
    help=f"Whether the embeddings of the vocabulary stay as they are. {_BY_RECIPE}",
)
@click.option(
    "--dropout",
    type=Real(0, 1, max_open=True),
    help="Probability of dropout in training. [default: by the recipe, or the base model's own]",
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
@click.option(
    "--companions",
    type=click.Choice(COMPANIONS),
    help=f"Sentences beside each pair that the teacher grades. {_BY_RECIPE}",
)
@click.option("--unlabelled", metavar="CORPUS", help="More sentences for the teacher to grade.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to keep the teacher and its vectors in, for other runs. [default: removed with the checkpoints]",
)
@click.option(
    "--max-active-dims",
    type=Whole(min=1),
    help="Number of terms to keep of a sentence, in training and in the model. [default: all]",
)
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
    data: Path | None,
    teacher: str | None,
    unlabelled: str | None,
    cache: Path | None,
    report_to: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    **settings: object,
) -> None:
    """Fine-tune a SPLADE model on graded sentence pairs.

    The checkpoint with the best Spearman correlation on the dev pairs is saved; it loads in sentence-transformers too.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if teacher is not None:
        given["teacher"] = None if teacher == "none" else teacher
    chosen = _chosen(recipe, data, given)
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

    more = [document.text for document in read_corpus(unlabelled, **of_corpus)] if unlabelled else []
    name = dataset + ("" if score_range is None else " (scores {:g} to {:g})".format(*score_range))

    from sparse_sts_index.training import fine_tuning, stages

    if isinstance(chosen, TrainingSettings) and chosen.teacher_epochs and chosen.teacher:
        click.echo(f"teacher: {one_line(chosen.teacher)} is fine-tuned first; steps are counted after that", err=True)
    with _progress() as show, _said_how_to_resume(output):
        if isinstance(chosen, Recipe):
            report = stages.train_stages(
                output,
                chosen,
                train_pairs,
                dev_pairs,
                test_pairs,
                cast(Path, data),
                cache=cache,
                resume=resume,
                overwrite=overwrite,
                dataset=name,
                progress=show,
            )
        else:
            report = fine_tuning.train(
                output,
                train_pairs,
                dev_pairs,
                test_pairs,
                chosen,
                unlabelled=more,
                cache=cache,
                resume=resume,
                overwrite=overwrite,
                dataset=name,
                report_to=report_to,
                progress=show,
            )
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


#: Options of a recipe of several stages that every stage takes.
_OF_ALL_STAGES = ("device", "precision", "seed", "teacher")


def _chosen(recipe: str, data: Path | None, given: dict[str, Any]) -> TrainingSettings | Recipe:
    """Return the recipe with what was given beside it.

    Raises
    ------
    click.UsageError
        A recipe of several stages without data, or with settings of a single one; or data for any other recipe.
    """
    if recipe not in STAGED_RECIPES:
        if data is not None:
            raise click.UsageError(f"--data needs a recipe of several stages: {', '.join(STAGED_RECIPES)}.")
        return dataclasses.replace(RECIPES[recipe], **given)
    if data is None:
        raise click.UsageError(f"--recipe {recipe} needs a folder of sentences: --data FOLDER.")
    context = click.get_current_context()
    of_one_stage = {*given, "base_model", "unlabelled", "report_to"} - {*_OF_ALL_STAGES}
    for name in sorted(of_one_stage):
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            raise click.UsageError(
                f"--{option} cannot be combined with --recipe {recipe}, whose stages have their own."
            )
    shared = {name: given[name] for name in _OF_ALL_STAGES if name in given}
    without_teacher = {name: value for name, value in shared.items() if name != "teacher"}
    staged = STAGED_RECIPES[recipe]
    stages = (dataclasses.replace(s, **(shared if s.teacher else without_teacher)) for s in staged.stages)
    return dataclasses.replace(staged, stages=tuple(stages))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[TrainingProgress], None]]:
    """Give what shows how far a training is: a bar for each of its parts."""
    bars: dict[tuple[str, str], Bar] = {}
    with contextlib.ExitStack() as shown:

        def show(now: TrainingProgress) -> None:
            if (now.part, now.stage) not in bars:
                unit = " sentences" if now.stage == "teacher" else " steps"
                what = f"{now.part}, {now.stage}" if now.part else now.stage
                bars[now.part, now.stage] = shown.enter_context(progress(now.total_steps, unit=unit, desc=what))
            bar = bars[now.part, now.stage]
            figures = {"loss": now.loss, "dev_spearman": now.dev_spearman}
            bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items() if value is not None})
            bar.update(now.step - bar.n)

        yield show


@contextlib.contextmanager
def _said_how_to_resume(output: Path) -> Iterator[None]:
    """Say that an interrupted run can be resumed, if it can."""
    from sparse_sts_index.training.checkpoints import Checkpoints
    from sparse_sts_index.training.stages import stages_folder

    try:
        yield
    except KeyboardInterrupt:
        if Checkpoints.of_output(output).folder.exists() or stages_folder(output).exists():
            click.echo("\ninterrupted; the same command with --resume goes on from the last checkpoint", err=True)
        raise
