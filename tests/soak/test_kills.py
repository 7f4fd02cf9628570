"""SIGKILL at random moments, and at random system calls that change files: what was there before, or all of what was
to come, is there; answers are those of brute force; and the same command can be given again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faulty
import numpy as np
import pytest
import warm
from conftest import Faults, Row
from looking import View, look
from safetensors.numpy import load_file

from sparse_sts_index import read_corpus
from sparse_sts_index.data.sample import SAMPLE_FOLDER

CHUNK = 64  # sentences encoded together; the usual 2,048 would make a single step of each command
INDEXED, ADDED = 300, 150


@dataclass
class Setting:
    """A folder with what commands work on."""

    folder: Path
    base: Path

    def file(self, name: str, documents: Sequence[tuple[str, str]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in documents), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return prepare(tmp_path_factory.mktemp("kills"))


def prepare(folder: Path, padding: str = "") -> Setting:
    """The base, and the files that commands read; every hundredth sentence ends with `padding`."""
    sample = [(document.id, document.text) for document in read_corpus("sample")]
    sample[::100] = [(doc_id, text + padding) for doc_id, text in sample[::100]]
    setting = Setting(folder, folder / "base")
    first = sample[:INDEXED]
    setting.file("first.jsonl", first)
    setting.file("others.jsonl", sample[INDEXED : 2 * INDEXED])
    setting.file("more.jsonl", sample[INDEXED : INDEXED + ADDED])
    rewritten = [(doc_id, f"{text} Indeed.") for doc_id, text in first[: ADDED // 2]]
    setting.file("changed.jsonl", [*rewritten, *sample[-ADDED // 2 :]])
    (folder / "gone.txt").write_text("".join(f"{doc_id}\n" for doc_id, _ in first[::3]), encoding="utf-8")
    assert warm.run([*BUILD, "first.jsonl", "--output", setting.base], chunk=CHUNK, folder=folder).status == 0
    assert warm.run(["delete", setting.base, first[5][0], first[200][0]], folder=folder).status == 0
    return setting


BUILD = ["index", "--model", "tiny", "--precision", "float32"]
COMMANDS: dict[str, tuple[list[str], bool, int]] = {  # arguments, on the base, and how many kills
    "index": ([*BUILD, "first.jsonl", "--output", "IDX"], False, 40),
    "index --overwrite": ([*BUILD, "others.jsonl", "--overwrite", "--output", "IDX"], True, 30),
    "add": (["add", "IDX", "more.jsonl"], True, 20),
    "update": (["update", "IDX", "changed.jsonl"], True, 40),
    "delete": (["delete", "IDX", "--ids", "gone.txt"], True, 10),
    "compact": (["compact", "IDX"], True, 30),
    "upgrade": (["upgrade", "IDX"], True, 30),
}
OLD_INDEX = Path(__file__).parents[1] / "fixtures" / "format-3" / "index"


@pytest.mark.parametrize("name", COMMANDS)
def test_kills_of_what_changes_an_index(name: str, setting: Setting, faults: Faults, share: float, seed: int) -> None:
    arguments, on_base, count = COMMANDS[name]
    rng, row, idx = random.Random(f"{seed} {name}"), faults.row(f"kill -9: {name}"), setting.folder / "idx"
    options = {"chunk": CHUNK, "folder": setting.folder}
    arguments = [str(idx) if argument == "IDX" else argument for argument in arguments]

    def restore() -> None:
        shutil.rmtree(idx, ignore_errors=True)
        if on_base:
            shutil.copytree(OLD_INDEX if name == "upgrade" else setting.base, idx)

    restore()
    before = warm.call(look, idx)
    seconds = warm.run(arguments, **options).seconds
    after = warm.call(look, idx)
    assert after is not None
    restore()
    calls = faulty.count_calls(arguments, **options)
    count = max(2, round(count * share))
    found_after = number = 0
    while row.tried < count:
        number += 1
        restore()
        if number % 2:
            outcome = faulty.kill_at(arguments, rng.randrange(1, calls + 1), **options)
        else:
            outcome = faulty.kill_after(arguments, rng.random() * seconds, **options)
        if not faulty.killed(outcome):
            assert outcome.status == 0, outcome
        row.tried += faulty.killed(outcome)
        what = f"{name}, kill {number}, {outcome}"
        found = check(faults, row, idx, [after] if outcome.status == 0 else [before, after], what)
        found_after += faulty.killed(outcome) and found == after != before
        if number % 3 == 0 and (found != after or name not in ("index", "add")):  # which refuse what is there
            again = warm.run(arguments, **options)
            if again.status:
                row.lost += 1
                faults.failed(f"{what}: again, {again}")
            check(faults, row, idx, [after], f"{what}, again")
    row.notes = {"system calls": calls, "killed after the commit": found_after}


def check(faults: Faults, row: Row, idx: Path, expected: Sequence[View | None], what: str) -> View | None:
    try:
        found: View | None = warm.call(look, idx)
    except AssertionError as error:
        row.wrong += 1
        faults.failed(f"{what}: {error}")
        return None
    allowed = [None if view is None else view.documents for view in expected]
    if (None if found is None else found.documents) not in allowed:
        row.lost += 1
        faults.failed(f"{what}: {0 if found is None else len(found.documents)} documents")
    if found is not None and not found.answers:
        row.wrong += 1
        faults.failed(f"{what}: answers are not those of brute force")
    return found


RECIPE = [
    "--base-model",
    "tiny",
    "--recipe",
    "sts-baseline",
    "--epochs",
    "2",
    "--eval-steps",
    "4",
    "--score-range",
    "0",
    "5",
    "--no-test",
]


def few_pairs(folder: Path) -> Path:
    """Pairs for a training of two epochs, in a new folder."""
    folder.mkdir()
    for split, count in (("train", 97), ("dev", 40)):
        lines = (SAMPLE_FOLDER / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{split}.csv").write_text("".join(lines[:count]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("averaging", [False, True])
def test_kills_of_training(averaging: bool, tmp_path: Path, faults: Faults, share: float, seed: int) -> None:
    """However often a training is killed and resumed, the model is that of one that was left in peace."""
    more = ["--averaging", "0.9"] if averaging else []
    row = faults.row(f"kill -9: train{', averaged weights' if averaging else ''}")
    pairs, rng = few_pairs(tmp_path / "pairs"), random.Random(f"{seed} {averaging}")

    def arguments(output: Path, *extra: str) -> list[object]:
        return ["train", "--dataset", pairs, *RECIPE, *more, *extra, "--output", output]

    peace = tmp_path / "peace"
    seconds = warm.run(arguments(peace)).seconds
    weights = load_file(peace / "model.safetensors")
    calls = faulty.count_calls(arguments(tmp_path / "counted"))
    most, resumed = 0.0, 0
    wanted = max(2, round(15 * share))
    while row.tried < wanted:
        output, extra = tmp_path / f"run-{row.tried}", []
        for _ in range(50):
            if row.tried < wanted and rng.random() < 0.7:
                if rng.random() < 0.5:
                    outcome = faulty.kill_after(arguments(output, *extra), rng.random() * seconds)
                else:
                    outcome = faulty.kill_at(arguments(output, *extra), rng.randrange(1, calls + 1))
                row.tried += faulty.killed(outcome)
            else:
                outcome = warm.run(arguments(output, *extra))
            if faulty.killed(outcome):
                extra = ["--resume"]
                resumed += 1
            elif outcome.status == 0 or "is complete" in outcome.stderr:
                break
            elif "nothing to resume" in outcome.stderr:
                extra = []
            else:
                row.lost += 1
                faults.failed(f"train: {outcome}")
                break
        if not (output / "model.safetensors").is_file():
            row.lost += 1
            faults.failed(f"{output}: no model")
            continue
        for name, value in load_file(output / "model.safetensors").items():
            most = max(most, float(np.abs(value - weights[name]).max(initial=0)))
        leftovers = [path.name for path in tmp_path.iterdir() if output.name in path.name and path != output]
        if leftovers:
            faults.failed(f"left behind: {leftovers}")
        shutil.rmtree(output)
    if most > 1e-6:
        row.wrong += 1
    row.notes = {"resumed": resumed, "largest difference of a weight": most}
