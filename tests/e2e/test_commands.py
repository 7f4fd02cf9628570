"""The whole path with the installed command: train, index, search, score, evaluate, export."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import assert_silent

from sparse_sts_index import SparseStsEncoder, load_pairs, read_corpus

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsIndex

Run = Callable[..., subprocess.CompletedProcess[str]]


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stderr
    assert_silent(run.stderr)
    return run.stdout


def test_train_to_evaluate(sparse_sts: Run, tmp_path: Path) -> None:
    pairs = load_pairs("sample", "train")
    rows = zip(pairs.sentence1[:48], pairs.sentence2[:48], pairs.gold[:48] * 5, strict=True)
    table = "".join(json.dumps({"sentence1": a, "sentence2": b, "label": score}) + "\n" for a, b, score in rows)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(table, encoding="utf-8")
    model, index = tmp_path / "model", tmp_path / "index"
    dataset = ("--dataset", tmp_path, "--score-range", 0, 5)
    recipe = ("--base-model", "tiny", "--recipe", "sts-baseline")
    out = succeeded(sparse_sts("train", *recipe, *dataset, "--output", model, "--no-test"))
    assert "3 steps on 48 pairs" in out
    assert "dev   Pearson" in out
    corpus = "".join(f"{document.text}\n" for document in list(read_corpus("sample"))[:100])
    out = succeeded(sparse_sts("index", "-", "--model", model, "--output", index, "--bits", 10, input=corpus))
    assert "index: 100 sentences in" in out
    out = succeeded(
        sparse_sts("search", index, "I was billed twice in March.", "-k", 3, "--format", "jsonl", "--explain")
    )
    hits = [json.loads(line) for line in out.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert hits[0]["id"] == "1"
    for hit in hits:
        assert sum(term["contribution"] for term in hit["explanation"]) == pytest.approx(hit["cosine"])
    report = tmp_path / "report.json"
    out = succeeded(sparse_sts("evaluate", "--index", index, *dataset, "--split", "dev", "--output", report))
    assert "Lucene, 10 bits" in out
    values = json.loads(report.read_text(encoding="utf-8"))
    (result,) = values["sets"]
    assert result["pairs"] == 48
    assert values["model_fingerprint"] == SparseStsEncoder.load(model).fingerprint
    assert abs(result["difference"]["spearman"]) < 0.01
    assert (
        json.loads(succeeded(sparse_sts("evaluate", "--index", index, *dataset, "--split", "dev", "--format", "json")))
        == values
    )


@pytest.mark.parametrize("memory", ["0", "4GiB"])
def test_many_queries_in_memory_and_without(
    sparse_sts: Run, sample_index: SparseStsIndex, tmp_path: Path, memory: str
) -> None:
    texts = [document.text for document in read_corpus("sample")][:120]
    (tmp_path / "q.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    run = sparse_sts(
        "search", sample_index.path, "--queries", tmp_path / "q.txt", "--format", "trec", "--memory", memory
    )
    found = [(line.split()[2], line.split()[4]) for line in succeeded(run).splitlines()]
    assert found == [(hit.id, f"{hit.cosine:.10f}") for hits in sample_index.search(texts) for hit in hits]


def test_search_formats(sparse_sts: Run, sample_index: SparseStsIndex, tmp_path: Path) -> None:
    expected = sample_index.search(["A cat\tsleeps.", "Zürich"], 4)
    (tmp_path / "q.jsonl").write_text('{"_id": "q1", "text": "A cat\\tsleeps."}\n{"_id": "q2", "text": "Zürich"}\n')
    queries = ("search", sample_index.path, "--queries", tmp_path / "q.jsonl", "-k", 4)
    run = [line.split() for line in succeeded(sparse_sts(*queries, "--format", "trec")).splitlines()]
    assert [(qid, doc_id, int(rank)) for qid, _, doc_id, rank, _, _ in run] == [
        (f"q{n}", hit.id, rank) for n, hits in enumerate(expected, 1) for rank, hit in enumerate(hits, 1)
    ]
    assert [float(row[4]) for row in run] == pytest.approx([hit.cosine for hits in expected for hit in hits], abs=1e-6)
    table = succeeded(sparse_sts(*queries, "--explain"))
    assert "query q1: A cat sleeps." in table
    for hits in expected:
        for hit in hits:
            assert f"{hit.cosine:.4f}  {hit.id}  {hit.text}\n" in table


def test_an_index_that_lives(sparse_sts: Run, tmp_path: Path) -> None:
    sentences = {"a": "A cat sleeps.", "b": "Stocks fell.", "c": "A cat sleeps!"}
    corpus = "".join(json.dumps({"id": doc_id, "text": text}) + "\n" for doc_id, text in sentences.items())
    (tmp_path / "c.jsonl").write_text(corpus)
    (tmp_path / "more.jsonl").write_text('{"id": "d", "text": "A cat sleeps"}\n{"id": "e", "text": "It rains."}\n')
    (tmp_path / "other.jsonl").write_text('{"id": "e", "text": "Stocks fell"}\n{"id": "f", "text": "Snow fell."}\n')
    index = tmp_path / "index"
    succeeded(sparse_sts("index", tmp_path / "c.jsonl", "--model", "tiny", "--output", index))
    assert succeeded(sparse_sts("add", index, tmp_path / "more.jsonl")) == f"{index}: 2 sentences added, 5 in all\n"
    out = succeeded(sparse_sts("update", index, tmp_path / "other.jsonl"))
    assert out == f"{index}: 1 sentences replaced, 1 added, 6 in all\n"
    out = succeeded(sparse_sts("duplicates", index, "--threshold", 0.8, "--format", "jsonl"))
    pairs = [json.loads(line) for line in out.splitlines()]
    assert {(p["first"], p["second"]) for p in pairs} == {("a", "c"), ("a", "d"), ("c", "d"), ("b", "e")}
    assert all(0.8 <= pair["cosine"] <= 1.000001 for pair in pairs)
    out = succeeded(sparse_sts("cluster", index, "--threshold", 0.8))
    assert out.splitlines()[0] == "cluster 1: 3 sentences"
    assert out.endswith("2 clusters, 5 sentences in them\n")
    assert succeeded(sparse_sts("delete", index, "c", "zz")).endswith(
        "1 sentences deleted, 1 ids were not there, 5 left\n"
    )
    assert succeeded(sparse_sts("delete", index, "--ids", "-", input="f\r\n\n")).endswith(
        "1 sentences deleted, 4 left\n"
    )
    assert succeeded(sparse_sts("verify", index)) == f"{index}: 4 sentences, all as they were written\n"
    assert succeeded(sparse_sts("compact", index)).startswith(f"{index}: 4 sentences, ")
    assert succeeded(sparse_sts("verify", index)) == f"{index}: 4 sentences, all as they were written\n"
    for mode in ([], ["--two-step"], ["--approximate"]):
        out = succeeded(sparse_sts("search", index, "A cat sleeps.", "-k", 1, "--format", "jsonl", *mode))
        hit = json.loads(out)
        assert (hit["id"], hit["cosine"]) == ("a", pytest.approx(1))
        assert hit["certified"] or mode


def test_score(sparse_sts: Run, tiny: SparseStsEncoder, tmp_path: Path) -> None:
    a, b = "A cat sleeps.", "The kitten is asleep."
    (tmp_path / "pairs.tsv").write_text(f"sentence1\tsentence2\n{a}\t{b}\n{a}\t{a}\n", encoding="utf-8")
    score = ("score", tmp_path / "pairs.tsv", "--model", "tiny", "--format", "jsonl", "--precision")
    expected = tiny.score_pairs([a, a], [b, a]).tolist()
    scores = [json.loads(line)["cosine"] for line in succeeded(sparse_sts(*score, "float32")).splitlines()]
    assert scores == pytest.approx(expected, abs=1e-6)
    rounded = [json.loads(line)["cosine"] for line in succeeded(sparse_sts(*score, "bfloat16")).splitlines()]
    assert rounded != scores
    assert rounded == pytest.approx(expected, abs=5e-3)
    piped = json.dumps({"sentence1": a, "sentence2": b}) + "\n"
    out = succeeded(sparse_sts("score", "-", *score[2:], "float32", input=piped))
    assert json.loads(out)["cosine"] == pytest.approx(scores[0], abs=1e-6)
    out = succeeded(sparse_sts("score", a, b, "--explain", "--precision", "float32", SPARSE_STS_MODEL="tiny"))
    out = out.splitlines()
    assert out[0] == f"{scores[0]:.4f}  {a}  |  {b}"
    assert sum(float(line.split()[3]) for line in out[2:-1]) == pytest.approx(scores[0], abs=0.002)
    assert out[-1].split() == ["sum", f"{scores[0]:.4f}"]


def test_export(sparse_sts: Run, tmp_path: Path) -> None:
    corpus = '{"id": "x", "contents": "Zürich 😀"}\n'
    out = succeeded(sparse_sts("export", "-", "--model", "tiny", input=corpus))
    assert json.loads(out)["contents"] == "Zürich 😀"
    (tmp_path / "c.jsonl").write_text(corpus, encoding="utf-8")
    export = ("export", tmp_path / "c.jsonl", "--model", "tiny", "--output", tmp_path / "v.jsonl.gz")
    succeeded(sparse_sts(*export))
    assert "already exists; replace it with --overwrite" in sparse_sts(*export).stderr
    succeeded(sparse_sts(*export, "--overwrite"))
    assert gzip.decompress((tmp_path / "v.jsonl.gz").read_bytes()).decode() == out


def test_a_pipe_is_read_once(sparse_sts: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("a cat\na dog\n"))
    writer.start()
    pipe = ("index", tmp_path / "pipe", "--format", "txt")
    assert "2 sentences" in succeeded(sparse_sts(*pipe, "--model", "tiny", "--output", tmp_path / "index"))
    writer.join()


def test_an_index_knows_its_model_better_than_the_environment(sparse_sts: Run, sample_index: SparseStsIndex) -> None:
    out = succeeded(sparse_sts("search", sample_index.path, "a fence", "-k", 1, SPARSE_STS_MODEL="./nosuch"))
    assert "fence" in out


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_killed(sparse_sts: Run, tmp_path: Path, kill: signal.Signals) -> None:
    """Kill -9 leaves no index to be found, Ctrl-C leaves nothing at all, and the next build works."""
    index = tmp_path / "index"
    script = Path(sys.executable).with_name("sparse-sts")
    command = [script, "index", "sample", "--model", "tiny", "--output", index]
    build = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 300
    while not (index / "lucene" / "write.lock").exists():  # from here on it encodes, for some seconds
        assert build.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    build.send_signal(kill)
    _, error = build.communicate(timeout=300)
    if kill == signal.SIGKILL:
        assert build.returncode == -signal.SIGKILL
        run = sparse_sts("search", index, "text")
        assert run.returncode == 1
        assert "no complete index (never built, or the build did not finish)" in run.stderr
    else:
        assert (build.returncode, error.split()) == (1, [b"Aborted!"])
        assert list(tmp_path.iterdir()) == []
    assert "1,000 sentences" in succeeded(sparse_sts(*command[1:]))
