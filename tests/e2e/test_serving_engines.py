"""export, push and search --url with the installed command, on engines that live in files."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
QUERY = "Three girls paint a fence."


@pytest.fixture(scope="module")
def index(sparse_sts: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "idx"
    assert sparse_sts("index", "sample", "--model", "tiny", "--output", path).returncode == 0
    return path


@pytest.mark.parametrize("engine", ["milvus+file:{}/m.db/glosses", "qdrant+file:{}/q/glosses"])
def test_pushed_and_searched(sparse_sts: Run, index: Path, tmp_path: Path, engine: str) -> None:
    url = engine.format(tmp_path)
    journal = ("--journal", tmp_path / "journal", "--batch-size", 300)
    pushed = sparse_sts("push", index, "--url", url, *journal)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"{url}: 1,000 sentences in ")
    assert pushed.stdout.endswith("float32 weights and sums\n")
    for options in (("--explain", "-k", "3"), ("--format", "jsonl"), ("--format", "trec")):
        ours, theirs = sparse_sts("search", index, QUERY, *options), sparse_sts("search", "--url", url, QUERY, *options)
        assert theirs.returncode == 0, theirs.stderr
        if "jsonl" not in options:
            assert theirs.stdout == ours.stdout
            continue
        for ours_line, theirs_line in zip(ours.stdout.splitlines(), theirs.stdout.splitlines(), strict=True):
            hit, expected = json.loads(theirs_line), json.loads(ours_line)
            assert hit.pop("bound") == pytest.approx(expected.pop("bound"), abs=1e-6)
            assert hit == expected
    again = sparse_sts("push", index, "--url", url, "--overwrite")
    assert again.returncode == 0, again.stderr


NINE = "; weights of 9 significant bits: scores within 0.20% of the cosine"
HELD = {
    **{"elasticsearch": NINE, "opensearch": NINE, "ciff": ", 8 bits", "anserini": ", 8 bits"},
    **dict.fromkeys(("solr", "milvus", "qdrant"), "; float32 weights and sums"),
}


@pytest.mark.parametrize(("format", "held"), HELD.items())
def test_exported(sparse_sts: Run, index: Path, tmp_path: Path, format: str, held: str) -> None:
    output = tmp_path / ("out.jsonl" if format == "anserini" else "out")
    done = sparse_sts("export", index, "--format", format, "--output", output)
    assert (done.returncode, done.stdout) == (0, f"{output}: 1,000 vectors{held}\n"), done.stderr
    if output.is_dir():
        assert json.loads((output / "manifest.json").read_text())["model"] == "tiny"


def test_an_index_and_its_corpus_export_alike(sparse_sts: Run, index: Path) -> None:
    from_index = sparse_sts("export", index)
    from_corpus = sparse_sts("export", "sample", "--model", "tiny")
    assert from_index.returncode == from_corpus.returncode == 0
    assert from_index.stdout == from_corpus.stdout
    assert from_index.stdout.count("\n") == 1000


@pytest.mark.parametrize("command", ["push", "search"])
def test_a_wrong_address_is_said_while_it_is_tried(command: str, sparse_sts: Run, index: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"solr+http://127.0.0.1:{taken.getsockname()[1]}/solr/glosses"
        run = sparse_sts(command, index if command == "push" else QUERY, "--url", url)
    assert run.returncode == 1
    said = run.stderr.splitlines()
    assert len(said) == 3, run.stderr
    assert all(line.startswith(f"{url}: ") and ": again in " in line for line in said[:2])
    assert "given up after 3 attempts" in said[2]


def test_what_is_wrong_is_one_line(sparse_sts: Run, index: Path, tmp_path: Path) -> None:
    missing = f"qdrant+file:{tmp_path}/q/none"
    for arguments, message in (
        (("push", index, "--url", "nonsense"), "not the URL of a collection"),
        (("push", index, "--url", "faiss+http://u:secret@host/x"), "no engine 'faiss'"),
        (("push", tmp_path, "--url", missing), "not an index"),
        (("search", "--url", missing, QUERY), "is not there"),
        (("search", "--url", missing, "--two-step", QUERY), "cannot be used with --url of an engine"),
        (("search", "--url", missing), "Give either TEXT or --queries"),
        (("export", index, "--format", "solr"), "give it with --output"),
        (("export", index, "--bits", "4"), "cannot be used with an index"),
        (("export", index, "--model", "tiny"), "cannot be used with an index"),
        (("export", index, "--precision", "auto"), "cannot be used with an index"),
    ):
        run = sparse_sts(*arguments)
        assert run.returncode in (1, 2)
        assert message in run.stderr.splitlines()[-1]
        assert "secret" not in run.stderr + run.stdout
        assert "Traceback" not in run.stderr
