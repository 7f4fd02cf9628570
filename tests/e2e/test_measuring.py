"""The commands that measure: calibrate, evaluate over several sets and against another model, tradeoff, bench."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import assert_silent

from sparse_sts_index import SparseStsEncoder
from sparse_sts_index.encoding.bundled import tiny_folder

Run = Callable[..., subprocess.CompletedProcess[str]]


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stderr
    assert_silent(run.stderr)
    return run.stdout


def refused(run: subprocess.CompletedProcess[str], message: str) -> None:
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path_factory.mktemp("models") / "copy"))


def test_calibrate_then_scores_stand_beside_cosines(sparse_sts: Run, model: Path, tmp_path: Path) -> None:
    out = succeeded(sparse_sts("calibrate", "--model", model, "--dataset", "sample", "--precision", "float32"))
    assert "on pairs not fitted to" in out
    refused(sparse_sts("calibrate", "--model", model, "--dataset", "sample"), "has a calibration already")
    refused(sparse_sts("calibrate", "--model", "tiny", "--dataset", "sample"), "tiny is no model folder of yours")
    out = succeeded(sparse_sts("score", "A cat.", "A kitten.", "--model", model, "--format", "jsonl"))
    line = json.loads(out)
    assert 0 <= line["cosine"] <= 1
    assert 0 <= line["score"] <= 5
    (tmp_path / "corpus.txt").write_text("A cat sleeps.\nStocks fell.\n", encoding="utf-8")
    index = tmp_path / "index"
    succeeded(sparse_sts("index", tmp_path / "corpus.txt", "--model", model, "--output", index))
    out = succeeded(sparse_sts("search", index, "A cat is asleep."))
    assert "rank  cosine  score  id" in out
    out = succeeded(sparse_sts("search", index, "A cat is asleep.", "--format", "jsonl"))
    assert set(json.loads(out.splitlines()[0])) >= {"cosine", "score", "rank", "certified"}
    smaller = ("--max-active-dims", 12, "--bits", 6, "--overwrite")
    succeeded(sparse_sts("index", tmp_path / "corpus.txt", "--model", model, "--output", index, *smaller))
    assert "score" not in succeeded(sparse_sts("search", index, "A cat is asleep.")).splitlines()[1]
    manifest = json.loads((index / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["max_active_dims"] == 12
    assert manifest["postings"] <= 24


def test_evaluate_on_several_sets_against_another_model(sparse_sts: Run, tmp_path: Path) -> None:
    graded = tmp_path / "graded.tsv"
    graded.write_text("A cat.\tA kitten.\t4\nA cat.\tStocks fell.\t0\nDogs bark.\tA dog barks.\t5\n", encoding="utf-8")
    sets = ("--dataset", "sample", "--score-range", 0, 5, "--dataset", graded, "--score-range", 0, 5)
    out = succeeded(sparse_sts("evaluate", "--model", "tiny", *sets, "--against", "tiny", "--format", "json"))
    first, second = json.loads(out)["sets"]
    assert (first["pairs"], second["pairs"]) == (72, 3)
    assert first["against"]["difference"] == {"spearman": 0, "interval": {"low": 0, "high": 0}, "p_value": 1}
    assert first["spearman_interval"]["low"] < first["cosine"]["spearman"] < first["spearman_interval"]["high"]
    out = succeeded(sparse_sts("evaluate", "--model", "tiny", *sets, "--against", "tiny"))
    assert "sample (test): 72 pairs" in out
    assert "graded.tsv: 3 pairs" in out
    assert "difference in Spearman: +0.0000" in out
    refused(sparse_sts("evaluate", "--model", "tiny", *sets, "--score-range", 0, 1), "once for each --dataset")


def test_tradeoff_recommends_what_index_takes(sparse_sts: Run, tmp_path: Path) -> None:
    curves = tmp_path / "curves"
    out = succeeded(sparse_sts("tradeoff", "--model", "tiny", "--dataset", "sample", "--plot", curves))
    flags = re.search(r"smallest within 0.005: +(--bits \d+( --max-active-dims \d+)?)\n", out)
    assert flags is not None
    succeeded(sparse_sts("index", "sample", "--model", "tiny", "--output", tmp_path / "i", *flags[1].split()))
    assert sorted(path.name for path in curves.iterdir()) == ["bits.svg", "dims.svg", "size.svg"]


def test_bench_writes_a_report(sparse_sts: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    out = succeeded(sparse_sts("bench", "--model", "tiny", "--dataset", "sample", "--output", report))
    for method in ("sparse, exact", "sparse, 8 bits", "dense, minilm", "BM25", "TF-IDF", "token overlap"):
        assert method in out
    values = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert values["model_fingerprint"] == SparseStsEncoder.load("tiny").fingerprint
    assert "<h1>tiny</h1>" in (report / "report.html").read_text(encoding="utf-8")
    refused(
        sparse_sts("bench", "--model", "tiny", "--dataset", "sample", "--output", report, "--dense", "./nosuch"),
        "--dense none",
    )
