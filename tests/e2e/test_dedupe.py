"""``sparse-sts dedupe``, from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
ROWS = """id,text,votes
1,How do I reset my password?,3
2,"The printer
does not print.",1
1,How do I  reset my password?,9
3,The cat sleeps on the sofa.,
"""


def test_dedupe_copies_what_stays_and_says_what_goes(sparse_sts: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(ROWS, encoding="utf-8")
    options = ["--model", "tiny", "--output", tmp_path / "out.csv"]
    run = sparse_sts("dedupe", tmp_path / "in.csv", *options, "--removed", tmp_path / "gone.jsonl")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        f"{tmp_path}/in.csv: 4 sentences, 3 kept, 1 removed: "
        "1 with the text of one kept, 0 with a cosine of at least 0.95 to one",
        "the largest groups:",
        "       2  line 2  How do I reset my password?",
        f"{tmp_path}/out.csv: 3 sentences",
    ]
    lines = ROWS.splitlines(keepends=True)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "".join([*lines[:4], lines[5]])
    assert [json.loads(line) for line in (tmp_path / "gone.jsonl").open(encoding="utf-8")] == [
        {
            "row": 5,
            "id": "1",
            "text": "How do I  reset my password?",
            "cosine": 1.0,
            "same_text": True,
            "kept_row": 2,
            "kept_id": "1",
            "kept_text": "How do I reset my password?",
        }
    ]
    for keep, left in (("longest", lines[5]), ("votes", lines[4])):
        run = sparse_sts("dedupe", tmp_path / "in.csv", *options, "--keep", keep)
        assert run.returncode == 0, run.stderr
        kept = (tmp_path / "out.csv").read_text(encoding="utf-8")
        assert kept == "".join([lines[0], *lines[2:]])
        assert left in kept


def test_dedupe_of_what_it_wrote_finds_nothing(sparse_sts: Run, tmp_path: Path) -> None:
    options = ["--model", "tiny", "--threshold", "0.8"]
    first = sparse_sts("dedupe", "sample", *options, "--output", tmp_path / "once.jsonl.gz")
    assert first.returncode == 0, first.stderr
    assert "the nearest to the threshold, each above the one kept:\n  0.80" in first.stdout
    again = sparse_sts("dedupe", tmp_path / "once.jsonl.gz", *options, "--output", tmp_path / "twice.jsonl.gz")
    assert ", 0 removed: " in again.stdout
    assert (tmp_path / "once.jsonl.gz").read_bytes() == (tmp_path / "twice.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--output", "in.csv"], "in.csv is the input"),
        (["--output", "out.jsonl"], "out.jsonl: rows are copied as they are, so it has to be csv as well"),
        (["--output", "no/out.csv"], "no folder"),
        (["--output", "out.csv", "--removed", "in.csv"], "in.csv is the input or the output"),
        (["--output", "out.csv", "--removed", "out.csv"], "out.csv is the input or the output"),
        (["--output", "out.csv", "--removed", "."], "it is a folder"),
        (["--output", "."], "it is a folder"),
        (["--output", "out.csv", "--keep", "text"], "text is text; numbers"),
        (["--output", "out.csv", "--keep", "nothing"], "missing column nothing"),
        (["--output", "out.csv", "--columns", "text=body"], "missing column body"),
    ],
)
def test_dedupe_refuses_before_any_work(
    sparse_sts: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], reason: str
) -> None:
    (tmp_path / "in.csv").write_text(ROWS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run = sparse_sts("dedupe", "in.csv", "--model", "none/at/all", *options)  # not even looked at
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1
    assert reason in run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv"}
    assert (tmp_path / "in.csv").read_text(encoding="utf-8") == ROWS


def test_dedupe_killed_while_it_writes_leaves_the_old_output(tmp_path: Path) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("".join(f"{number % 5}\n" for number in range(400_000)), encoding="utf-8")
    target.write_text("before\n", encoding="utf-8")
    command = [Path(sys.executable).with_name("sparse-sts"), "dedupe", source, "--model", "tiny", "--output", target]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".out.txt.*.partial")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert target.read_text(encoding="utf-8") == "before\n"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert target.read_text(encoding="utf-8") == "0\n1\n2\n3\n4\n"
