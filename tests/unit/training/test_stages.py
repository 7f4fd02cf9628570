from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_sts_index import Pairs, SparseStsEncoder, TrainingError, TrainingSettings, load_pairs
from sparse_sts_index.data.mixture import Mixture
from sparse_sts_index.data.sample import SAMPLE
from sparse_sts_index.training.progress import TrainingProgress
from sparse_sts_index.training.settings import GrowthSettings, Recipe
from sparse_sts_index.training.stages import stages_folder, train_stages

pytestmark = pytest.mark.slow

STAGE = TrainingSettings(learning_rate=1e-4, batch_size=8, eval_steps=2, epochs=0.5, precision="float32")
RECIPE = Recipe(
    Mixture(count=30),
    None,
    (
        dataclasses.replace(
            STAGE, base_model="tiny", teacher="minilm", teacher_epochs=0.5, companions=8, max_active_dims=20
        ),
        dataclasses.replace(STAGE, max_active_dims=10),
    ),
)


@pytest.fixture(scope="module")
def pairs() -> tuple[Pairs, Pairs, Pairs]:
    def some(split: str) -> Pairs:
        whole = load_pairs(SAMPLE, split)
        return Pairs(whole.sentence1[:64], whole.sentence2[:64], whole.gold[:64])

    return some("train"), some("dev"), some("test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "unlabelled").mkdir()
    lines = [f"A sentence about {number} cats and {number + 1} dogs.\n" for number in range(40)]
    (folder / "unlabelled" / "animals.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def interrupt_at(part: str, step: int) -> Callable[[TrainingProgress], None]:
    def interrupt(now: TrainingProgress) -> None:
        if now.part == part and now.stage == "training" and now.step == step:
            raise KeyboardInterrupt

    return interrupt


def test_an_interrupted_recipe_goes_on_to_the_same_model(
    pairs: tuple[Pairs, Pairs, Pairs], data: Path, tmp_path: Path
) -> None:
    whole = train_stages(tmp_path / "whole", RECIPE, *pairs, data)
    output = tmp_path / "model"
    for resume, part in ((False, "stage 1 of 2"), (True, "stage 2 of 2")):
        with pytest.raises(KeyboardInterrupt):
            train_stages(output, RECIPE, *pairs, data, resume=resume, progress=interrupt_at(part, 3))
        assert not output.exists()
    with pytest.raises(TrainingError, match="an interrupted run is in .*model.stages"):
        train_stages(output, RECIPE, *pairs, data)
    with pytest.raises(TrainingError, match="started with another recipe"):
        train_stages(output, dataclasses.replace(RECIPE, stages=RECIPE.stages[:1]), *pairs, data, resume=True)
    report = train_stages(output, RECIPE, *pairs, data, resume=True)
    assert report.fingerprint == whole.fingerprint
    assert report.test is not None
    assert SparseStsEncoder.load(output).max_active_dims == 10
    assert not stages_folder(output).exists()


def test_a_grown_base_is_grown_once(pairs: tuple[Pairs, Pairs, Pairs], data: Path, tmp_path: Path) -> None:
    recipe = Recipe(Mixture(), GrowthSettings(steps=2, batch_size=8), RECIPE.stages[1:])
    grown = stages_folder(tmp_path / "model") / "grown" / "modules.json"
    times = []
    for resume, part, step in ((False, "growing", 1), (True, "stage 1 of 1", 1), (True, "stage 1 of 1", 1)):
        with pytest.raises(KeyboardInterrupt):
            train_stages(tmp_path / "model", recipe, *pairs, data, resume=resume, progress=interrupt_at(part, step))
        times.append(grown.stat().st_mtime_ns if grown.exists() else None)
    assert times[0] is None
    assert times[1] == times[2] is not None


def test_stages_share_the_teacher_of_a_cache(pairs: tuple[Pairs, Pairs, Pairs], data: Path, tmp_path: Path) -> None:
    for number in range(2):
        recipe = dataclasses.replace(RECIPE, stages=(dataclasses.replace(RECIPE.stages[0], seed=number),))
        train_stages(tmp_path / f"model-{number}", recipe, *pairs, data, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2  # one teacher, one set of vectors


def test_a_folder_of_something_else_is_left_alone(
    pairs: tuple[Pairs, Pairs, Pairs], data: Path, tmp_path: Path
) -> None:
    stages_folder(tmp_path / "model").mkdir()
    with pytest.raises(TrainingError, match="something else"):
        train_stages(tmp_path / "model", RECIPE, *pairs, data)
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_stages(tmp_path / "other", RECIPE, *pairs, data, resume=True)
