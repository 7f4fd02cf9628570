"""Run a recipe of several stages, each from the model of the one before it.

A complete stage is a model folder. A killed run resumes in the stage that it was in, from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_sts_index._utils.files import atomic_writer, os_errors_as
from sparse_sts_index.data.mixture import read_mixture
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.errors import TrainingError
from sparse_sts_index.training.checkpoints import Checkpoints, pairs_sha256
from sparse_sts_index.training.fine_tuning import train
from sparse_sts_index.training.model_card import TrainingReport
from sparse_sts_index.training.model_folder import is_model, refuse_model_target
from sparse_sts_index.training.progress import TrainingProgress
from sparse_sts_index.training.settings import Recipe
from sparse_sts_index.training.splade_from_dense import grow

_RUN_FILE = "run.json"


def stages_folder(output: str | Path) -> Path:
    """Return the folder that a run keeps its stages in until its model is saved."""
    output = Path(output).resolve()
    return output.with_name(output.name + ".stages")


def train_stages(
    output: str | Path,
    recipe: Recipe,
    train_pairs: Pairs,
    dev_pairs: Pairs,
    test_pairs: Pairs | None,
    data: str | Path,
    *,
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dataset: str | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingReport:
    """Grow or load the base model, and train it stage by stage.

    Parameters
    ----------
    output : str or Path
        Folder for the model. Until it is saved, ``<output>.stages`` holds the stages that are complete.
    recipe : Recipe
    train_pairs, dev_pairs : Pairs
        With scores. The dev pairs choose the checkpoint of each stage.
    test_pairs : Pairs, optional
        Only measured on, once, at the end.
    data : str or Path
        Folder of sentences; see :func:`~.data.mixture.read_mixture`.
    cache : str or Path, optional
        Folder for the teacher and its vectors; see :func:`~.training.fine_tuning.train`. Default: with the stages.
    resume : bool
        Continue an interrupted run.
    overwrite : bool
        Replace a model that is in `output`, and drop an interrupted run.
    dataset : str, optional
        What to call the pairs in the model card.
    progress : callable, optional
        Called after each step, evaluation and part of the teacher's vectors.

    Returns
    -------
    TrainingReport
        Of the last stage.

    Raises
    ------
    DataError, ModelError, HubUnreachableError, TrainingError
        As :func:`~.training.fine_tuning.train`, :func:`~.training.splade_from_dense.grow` and
        :func:`~.data.mixture.read_mixture` raise them.
    """
    output, folder = Path(output).resolve(), stages_folder(output)
    sentences = read_mixture(data, recipe.mixture)
    identity = {"recipe": dataclasses.asdict(recipe), "data": pairs_sha256(train_pairs, dev_pairs, sentences)}
    _prepare(folder, output, json.loads(json.dumps(identity)), resume, overwrite)

    def tell(now: TrainingProgress) -> None:
        if progress is not None:
            progress(dataclasses.replace(now, part=part))

    part, base = "growing", None
    if recipe.growth is not None:
        base = folder / "grown"
        if not is_model(base):
            steps = recipe.growth.steps
            grow(base, sentences, recipe.growth, progress=lambda step, loss: tell(TrainingProgress(step, steps, loss)))
    for number, settings in enumerate(recipe.stages, 1):
        part, last = f"stage {number} of {len(recipe.stages)}", number == len(recipe.stages)
        target = output if last else folder / f"stage-{number}"
        if last or not is_model(target):
            report = train(
                target,
                train_pairs,
                dev_pairs,
                test_pairs if last else None,
                settings if base is None else dataclasses.replace(settings, base_model=str(base)),
                unlabelled=sentences if settings.teacher is not None else (),
                cache=cache or folder / "cache",
                resume=Checkpoints.of_output(target).last() is not None,
                overwrite=overwrite and last,
                dataset=dataset,
                progress=tell,
            )
        base = target
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _prepare(folder: Path, output: Path, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make the folder of the stages, or refuse to."""
    refuse_model_target(output, error=TrainingError, overwrite=overwrite)
    file = folder / _RUN_FILE
    if folder.exists() and not file.is_file():
        raise TrainingError(f"{folder} is where the stages would go, but it is something else")
    if resume:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"nothing to resume: {file} cannot be read") from error
        if before != identity:
            raise TrainingError(f"cannot resume {output}: it was started with another recipe, or with other data")
        return
    if folder.exists() and not overwrite:
        raise TrainingError(
            f"an interrupted run is in {folder}: go on with --resume (resume=True), "
            "or start again with --overwrite (overwrite=True)"
        )
    shutil.rmtree(folder, ignore_errors=True)
    Checkpoints.of_output(output).remove()
    with os_errors_as(TrainingError, f"cannot write {folder}"):
        folder.mkdir(parents=True)
        with atomic_writer(file) as sink:
            json.dump(identity, sink, indent=2)
