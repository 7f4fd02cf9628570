from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sparse_sts_index.cli.main import main

from sparse_sts_index import load_pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "sts-mini"), "--recipe sts-mini needs a folder of sentences: --data FOLDER."),
        (
            ("--recipe", "sts-mini", "--data", ".", "--epochs", "2"),
            "--epochs cannot be combined with",
        ),
        (("--recipe", "sts-micro", "--data", ".", "--base-model", "tiny"), "--base-model cannot be combined with"),
        (("--recipe", "sts", "--data", "."), "--data needs a recipe of several stages: sts-micro, sts-mini."),
    ],
)
def test_train_refuses_options_of_other_recipes(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["train", "--dataset", "sample", *arguments])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.slow
def test_train_runs_a_recipe_of_several_stages(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pairs, data = tmp_path / "pairs", tmp_path / "data" / "unlabelled"
    pairs.mkdir()
    data.mkdir(parents=True)
    (data / "few.txt").write_text("A cat sleeps.\nA dog barks.\n", encoding="utf-8")
    for split in ("train", "dev"):
        some = load_pairs("sample", split)
        rows = zip(some.sentence1[:24], some.sentence2[:24], some.gold.tolist()[:24], strict=True)
        table = "".join(json.dumps({"sentence1": a, "sentence2": b, "score": score}) + "\n" for a, b, score in rows)
        (pairs / f"{split}.jsonl").write_text(table, encoding="utf-8")
    paths = ("--dataset", pairs, "--data", data.parent, "--output", tmp_path / "micro")
    arguments = ("--recipe", "sts-micro", "--teacher", "minilm", "--seed", 7, "--no-test", *paths)
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "the best on dev" in result.output
    card = (tmp_path / "micro" / "README.md").read_text(encoding="utf-8")
    for setting in ('"max_active_dims": 40', '"teacher": "minilm"', '"seed": 7'):
        assert setting in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "micro", "pairs"]
