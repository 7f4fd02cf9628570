"""``sparse-sts join``, from the shell."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    test, train = tmp_path / "test.csv", tmp_path / "train.jsonl"
    test.write_text("id,text\nq1,How do I reset my password?\nq2,The cat sleeps.\n", encoding="utf-8")
    rows = [("t1", "My invoice is wrong."), ("t2", "How do I reset my  password?"), ("t3", "A cat is sleeping.")]
    train.write_text("".join(json.dumps({"id": id_, "text": text}) + "\n" for id_, text in rows), encoding="utf-8")
    return test, train


def test_join_of_files_and_indexes(sparse_sts: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    test, train = files
    index = tmp_path / "train-index"
    assert sparse_sts("index", train, "--model", "tiny", "--output", index).returncode == 0
    expected = "1.0000  q1  t2  How do I reset my password?  |  How do I reset my  password?\n1 pairs\n"
    for sides, options in (((test, train), ["--model", "tiny"]), ((test, index), [])):
        run = sparse_sts("join", *sides, *options, "--threshold", 0.99)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        assert run.stdout == expected
    run = sparse_sts("join", index, test, "-k", 1, "--format", "jsonl")
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(line["first"], line["second"]) for line in found if line["cosine"] > 0.4] == [("t2", "q1"), ("t3", "q2")]
    assert found[-1]["second_text"] == "The cat sleeps."


def test_join_refuses_in_one_line(sparse_sts: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    test, train = files
    (tmp_path / "none.csv").write_text("id,text\n1,a\n1,b\n", encoding="utf-8")
    built = {model: tmp_path / f"{model}-index" for model in ("tiny", "mini")}
    for model, index in built.items():
        assert sparse_sts("index", train, "--model", model, "--output", index).returncode == 0
    for sides, reason in (
        ((test, tmp_path / "nothing.csv"), "no such file"),
        ((test, tmp_path), "is a folder, not a file"),
        ((test, tmp_path / "none.csv"), "none.csv:3: duplicate id '1'"),
        (tuple(built.values()), "no cosine of both means anything"),
    ):
        run = sparse_sts("join", *sides, *(() if sides[0] in built.values() else ("--model", "tiny")))
        assert run.returncode == 1
        assert run.stdout == ""
        assert run.stderr.startswith("Error: ")
        assert run.stderr.count("\n") == 1, run.stderr
        assert reason in run.stderr
