"""Spark for real: a master, two workers and two executors, processes of their own, against one process."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from sparse_sts_index.cli.main import main

from sparse_sts_index import (
    ClusterError,
    DataError,
    Document,
    ImpactIndexError,
    JavaError,
    ModelError,
    SparseStsIndex,
    read_corpus,
)
from sparse_sts_index.data.documents import examine_corpus
from sparse_sts_index.spark import queries as spark_queries, session
from sparse_sts_index.spark.build import build_collection
from sparse_sts_index.spark.input import SparkCorpus
from sparse_sts_index.storage.impact_index import ImpactIndex

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparse_sts_index import (
        SparseStsEncoder,
    )

COUNT = 7000  # sentences: four chunks


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    try:
        session.find_spark_java()
    except JavaError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    settings = {  # some ten blocks a file, and no more retries than the workers that are killed make necessary
        "spark.sql.files.maxPartitionBytes": "120k",
        "spark.sql.files.openCostInBytes": "1",
        "spark.sql.files.minPartitionNum": "10",
        "spark.sql.shuffle.partitions": "4",
        "spark.task.maxFailures": "3",
    }
    with session.spark_session("local-cluster[2,1,1024]", settings) as spark:
        yield spark


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Short sentences, some of them twice or three times, a few empty."""
    words = " ".join(document.text for document in read_corpus("sample")).split()
    rng = random.Random(0)
    texts = [" ".join(rng.choices(words, k=rng.randint(3, 6))) for _ in range(COUNT - 310)]
    return [Document(f"id {n}", text) for n, text in enumerate([*texts, *[""] * 10, *rng.sample(texts, 300)])]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, documents: list[Document]) -> str:
    """In two files, which Spark cuts into some ten blocks."""
    folder = tmp_path_factory.mktemp("a corpus")
    write(folder / "1.jsonl", documents[:4500])
    write(folder / "2.jsonl", documents[4500:])
    return str(folder / "*.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, documents: list[Document], tiny: SparseStsEncoder) -> Path:
    path = tmp_path_factory.mktemp("whole") / "index"
    SparseStsIndex.build(path, documents, tiny).close()
    return path


@pytest.fixture(scope="module")
def built(
    spark: SparkSession, corpus: str, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[int]]:
    """By Spark, with two of its Python workers killed while they build."""
    output = tmp_path_factory.mktemp("built") / "collection"
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while len(killed) < 2 and not done.wait(0.01):
            for attempt in output.glob("shards-*/.attempt-*/lucene"):
                process = int(attempt.parent.name.split("-")[-2])
                if process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        build_collection(spark, corpus, output, "tiny", shards=3, precision="float32")
    finally:
        done.set()
        killer.join()
    return output, killed


def write(path: Path, documents: list[Document]) -> None:
    lines = (json.dumps({"id": d.id, "text": d.text}, ensure_ascii=False) + "\n" for d in documents)
    path.write_text("".join(lines), encoding="utf-8")


def test_a_build_is_what_one_process_builds_though_workers_are_killed(
    built: tuple[Path, list[int]], whole: Path
) -> None:
    path, killed = built
    assert len(killed) == 2
    with ImpactIndex.open(path) as shards, ImpactIndex.open(whole) as one:
        assert shards.verify() == len(one) == COUNT
        for a, b in zip(shards.read(), one.read(), strict=True):
            assert a.documents == b.documents
            for part in ("indptr", "indices", "data"):
                np.testing.assert_array_equal(getattr(a.vectors, part), getattr(b.vectors, part))
        counted = ("documents", "empty_documents", "postings", "max_document_error", "model_fingerprint", "precision")
        assert [getattr(shards.manifest, n) for n in counted] == [getattr(one.manifest, n) for n in counted]
    folders = json.loads((path / "collection.json").read_text())["shards"]
    assert [shard["documents"] for shard in folders] == [2048, 2048, 2904]
    (build,) = (entry for entry in path.iterdir() if entry.is_dir())
    assert sorted(entry.name for entry in build.iterdir()) == ["00000", "00001", "00002"]


def test_hits_and_pairs_are_those_of_one_index(
    spark: SparkSession, built: tuple[Path, list[int]], whole: Path, documents: list[Document]
) -> None:
    queries = [Document(d.id, " ".join(d.text.split()[:-1])) for d in documents[:600:2]]
    with SparseStsIndex.open(whole) as one:
        expected = [
            hits
            for start in range(0, len(queries), 256)
            for hits in one.search([query.text for query in queries[start : start + 256]], 5, explain=True)
        ]
        found = list(spark_queries.search(spark, built[0], queries, 5, explain=True))
        assert [hits.hits for hits in found] == [hits.hits for hits in expected]
        assert all(hits.certified for hits in found)
        pairs = list(one.duplicates(0.8))
        assert len(pairs) > 300
        assert list(spark_queries.duplicates(spark, built[0], 0.8)) == pairs
        assert list(spark_queries.duplicates(spark, whole, 0.8)) == pairs  # an index is a collection of one
    assert list(spark_queries.search(spark, built[0], [])) == []


def test_an_unfinished_build_is_taken_up(spark: SparkSession, built: tuple[Path, list[int]], corpus: str) -> None:
    path = built[0]
    before = (path / "collection.json").read_text()
    (build,) = (entry for entry in path.iterdir() if entry.is_dir())
    kept = {"00000": (build / "00000").stat().st_ino}
    (path / "collection.json").unlink()
    shutil.rmtree(build / "00001")
    (build / ".attempt-00001-host-1-1").mkdir()
    (path / "shards-0123456789ab" / "00000").mkdir(parents=True)  # of other documents
    with ImpactIndex.open(build / "00002", writable=True) as changed:
        changed.delete([f"id {COUNT - 1}"])
    other_cuts = spark.newSession()
    other_cuts.conf.set("spark.sql.files.minPartitionNum", "2")
    manifest, count = build_collection(other_cuts, corpus, path, "tiny", shards=3, precision="float32")
    assert (manifest.documents, count) == (COUNT, 3)
    assert {name: (build / name).stat().st_ino for name in kept} == kept
    assert {entry.name for entry in path.iterdir()} == {"collection.json", build.name, "shards-0123456789ab"}
    assert sorted(entry.name for entry in build.iterdir()) == ["00000", "00001", "00002"]
    shards = [json.loads(text)["shards"] for text in (before, (path / "collection.json").read_text())]
    assert [(s["folder"], s["documents"]) for s in shards[0]] == [(s["folder"], s["documents"]) for s in shards[1]]
    with pytest.raises(ImpactIndexError, match="already holds a collection; replace it with --overwrite"):
        build_collection(spark, corpus, path, "tiny", shards=3)
    with pytest.raises(ImpactIndexError, match=r"not a collection and not empty \(it holds 00000\)"):
        build_collection(spark, corpus, build, "tiny", shards=3)


def test_errors_of_workers_arrive_as_they_are(
    spark: SparkSession, built: tuple[Path, list[int]], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    queries = [Document("1", "x")]
    with pytest.raises(ModelError, match=str(model)), session.one_line_errors():
        list(spark_queries.search(spark, built[0], queries, model=model))
    with pytest.raises(ClusterError, match="the Spark job failed: KeyError: 1"), session.one_line_errors():
        spark.sparkContext.parallelize([1]).map(lambda x: {}[x]).collect()
    with pytest.raises(ClusterError, match="failed: Python worker exited unexpectedly"), session.one_line_errors():
        spark.sparkContext.parallelize([1], 1).map(lambda _: os.kill(os.getpid(), signal.SIGKILL)).collect()


ODD = [
    *(Document(f"{n}", text) for n, text in enumerate(["one\rtwo", "\u2028", "\x85 \x0b", "é" * 9000, "", " x "])),
    *(Document(f"long {n}", "word " * (n % 300)) for n in range(2000)),
]


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.parquet", "d.txt"])
def test_files_are_read_as_in_one_process(spark: SparkSession, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a folder, with 100%" / name
    path.parent.mkdir()
    lines = [
        json.dumps({"_id": d.id, "title": "" if n % 2 else "T", "text": d.text}, ensure_ascii=False)
        for n, d in enumerate(ODD)
    ]
    text = "\ufeff" + "\r\n".join([*lines[:900], "", "  ", *lines[900:]])
    if name.endswith(".parquet"):
        table = pyarrow.table({"text": [d.text for d in ODD], "more": [1] * len(ODD), "id": [d.id for d in ODD]})
        pyarrow.parquet.write_table(table, path, row_group_size=300)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".txt"):
        path.write_text("\n".join(d.text for d in ODD), encoding="utf-8", newline="")
    else:
        path.write_text(text + "\n", encoding="utf-8", newline="")
    expected = list(read_corpus(path))
    corpus = SparkCorpus(spark, str(path).replace("%", "?"))
    assert len(corpus) == len(expected) > 1900
    assert len(corpus.blocks) > 1 or name.endswith(".gz")
    found = sorted(corpus.numbered().collect())
    assert [document for _, document in found] == expected
    assert [document.where for _, document in found] == [document.where for document in expected]
    assert [number for number, _ in found] == list(range(len(expected)))


def test_files_follow_each_other_by_name(spark: SparkSession, tmp_path: Path) -> None:
    for name, some in (("10.jsonl", ODD[:3]), ("2.jsonl", ODD[6:]), ("b/1.jsonl", ODD[3:6])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, some)
    corpus = SparkCorpus(spark, f"{tmp_path}/{{*,b/*}}.jsonl")
    found = [document for _, document in sorted(corpus.numbered().collect())]
    assert found == [*ODD[:3], *ODD[6:], *ODD[3:6]]
    corpus.check_ids()
    for name, text in (("1.txt", "one\n\ntwo\n"), ("2.txt", "three"), ("3.txt", "\nfour\n")):
        (tmp_path / name).write_text(text)
    corpus = SparkCorpus(spark, f"{tmp_path}/*.txt")
    found = [document for _, document in sorted(corpus.numbered().collect())]
    assert found == [Document(*pair) for pair in (("1", "one"), ("3", "two"), ("4", "three"), ("6", "four"))]
    assert [Path(document.where).name for document in found] == ["1.txt:1", "1.txt:3", "2.txt:1", "3.txt:2"]


def test_files_are_cut_alike_on_any_number_of_cores(spark: SparkSession, corpus: str) -> None:
    cuts = []
    for cores in ("1", "16"):
        session = spark.newSession()
        session.conf.unset("spark.sql.files.minPartitionNum")
        session.conf.set("spark.sql.files.openCostInBytes", "20k")
        session.conf.set("spark.sql.leafNodeDefaultParallelism", cores)
        cuts.append(SparkCorpus(session, corpus).blocks)
    assert cuts[0] == cuts[1]
    assert len(cuts[0]) > 5


def test_parquet_files_of_different_columns(spark: SparkSession, tmp_path: Path) -> None:
    def table(name: str, **columns: list[object]) -> None:
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / name)

    table("1.parquet", id=["a"], text=["one"])
    table("2.parquet", id=["b"], title=["T"], text=["two"])
    files = f"{tmp_path}/*.parquet"
    found = [document for _, document in sorted(SparkCorpus(spark, files).numbered().collect())]
    assert found == [Document("a", "one"), Document("b", "T two")]
    table("3.parquet", id=[3], text=["three"])
    with pytest.raises(DataError, match="a column is not of the same type in all files"):
        SparkCorpus(spark, files)


def test_files_that_change_between_two_readings(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", ODD[6:46])
    corpus = SparkCorpus(spark, f"{tmp_path}/x.jsonl")
    assert len(corpus) == 40
    content = (tmp_path / "x.jsonl").read_text()
    (tmp_path / "x.jsonl").write_text(content[:-6] + "X" + content[-5:])
    with pytest.raises(DataError, match="x.jsonl: has changed since it was first read"), session.one_line_errors():
        corpus.check_ids()


def test_what_is_wrong_with_the_input_is_said_with_its_line(spark: SparkSession, tmp_path: Path) -> None:
    good = [json.dumps({"id": d.id, "text": d.text}).encode() for d in ODD]
    path = tmp_path / "x.jsonl"
    for line, message in (
        (b'{"id": 7', r"x.jsonl:1501: malformed JSON"),
        (b'{"id": "a", "text": "\xff"}', r"x.jsonl:1501: not UTF-8 \(byte 22 of the line\)"),
        (b'{"id": "a"}', r"x.jsonl:1501: missing column text"),
        (b'{"id": 1.5, "text": ""}', r"x.jsonl:1501: id must be a string or an integer"),
    ):
        path.write_bytes(b"\n".join([*good[:1500], line, *good[1500:]]))
        with pytest.raises(DataError, match=message), session.one_line_errors():
            len(SparkCorpus(spark, str(path)))
    path.write_bytes(b"\n".join([*good, good[1800], good[17], good[3]]))
    with pytest.raises(DataError, match=r"x.jsonl:2007: duplicate id 'long 1794'"), session.one_line_errors():
        SparkCorpus(spark, str(path)).check_ids()
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match="no documents in it"):
        len(SparkCorpus(spark, str(path)))
    for files, message in (
        (str(tmp_path / "none*"), "no such file: .*none"),
        (str(Path(__file__)), "formats unknown or mixed"),
        (str(Path(__file__).parents[2] / "sparse_sts_index/data/sample/*.csv"), "csv cannot be read in pieces"),
    ):
        with pytest.raises(DataError, match=message):
            SparkCorpus(spark, files)


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ('JAVA_VERSION="11.0.2"\n', "is Java 11"),
        ('JAVA_VERSION="21.0.1"\nMODULES="java.base java.sql"\n', "lacks the module jdk.incubator.vector"),
    ],
)
def test_a_java_that_spark_cannot_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, said: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "release").write_text(release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(session, "_INSTALLED", tmp_path / "none")
    result = CliRunner().invoke(main, ["duplicates", str(tmp_path), "--engine", "spark"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "Spark needs a JDK 17 or newer, such as Debian's openjdk-17-jre-headless; set JAVA_HOME to" in result.stderr
    assert f"(found: {tmp_path} {said})" in result.stderr
    (tmp_path / "release").write_text('JAVA_VERSION="17.0.1"\nMODULES="java.base jdk.incubator.vector"\n')
    assert session.find_spark_java() == tmp_path


def test_options_that_do_not_go_together() -> None:
    for command, message in (
        (["index", "sample", "--output", "x", "--model", "tiny", "--shards", "2"], "--shards needs --engine spark"),
        (["index", "--output", "x", "--model", "tiny"], "Give CORPUS, or --input, once"),
        (["index", "a", "--input", "b", "--output", "x", "--model", "tiny"], "Give CORPUS, or --input, once"),
        (["duplicates", "x", "--master", "local"], "--master and --spark-conf need --engine spark"),
        (["duplicates", "x", "--engine", "spark", "--spark-conf", "memory=1"], "is not of the form spark.NAME=VALUE"),
        (["search", "x", "a text", "--engine", "spark"], "--engine spark searches for --queries"),
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert message in result.stderr


#: Runs commands one after the other; prints what they exit with, and how often a Java was started for them.
SCRIPT = """
import json, sys
import pyspark.java_gateway
from sparse_sts_index.cli.main import main

launch, launched, exits = pyspark.java_gateway.launch_gateway, [], []
pyspark.java_gateway.launch_gateway = lambda *a, **k: launched.append(1) or launch(*a, **k)
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as error:
        exits.append(error.code)
print(exits, len(launched))
"""


def test_commands_alone_on_one_java(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ODD[:300])
    (tmp_path / "b.jsonl").write_text('{"id": "0", "text": "again"}\n')
    command = ["index", "--engine", "spark", "--model", "tiny", "--output", "out", "--spark-conf"]
    command += ["spark.ui.enabled=false", "--master"]
    commands = [
        [*command, "local[1]", "--input", "a.jsonl"],
        [*command, "local[1]", "--overwrite", "*.jsonl"],
        [*command, "nonsense://x", "--overwrite", "*.jsonl"],
    ]
    script = [sys.executable, "-c", SCRIPT, json.dumps(commands)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    built, exits = done.stdout.splitlines()
    assert built.startswith("out: 300 sentences in ")
    assert built.endswith(" without a term, in 1 shards")
    assert exits == "[0, 1, 1] 1"
    assert done.stderr.splitlines() == [
        f"Error: {tmp_path}/b.jsonl:1: duplicate id '0'",
        "Error: Spark does not start: Could not parse Master URL: 'nonsense://x'",
    ]
    with ImpactIndex.open(tmp_path / "out") as index:
        assert index.verify() == 300


def test_without_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    result = CliRunner().invoke(main, ["duplicates", "x", "--engine", "spark"])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: needs the package pyspark: pip install 'sparse-sts-index[spark]'\n",
    )


def test_fields_and_filters(spark: SparkSession, tmp_path: Path, tiny: SparseStsEncoder) -> None:
    """Spark keeps the fields and gives the hits that one process does."""
    rows = [{"id": f"{n}", "text": f"A cat of {n % 50} years.", "n": n % 7, "k": "ab"[n % 2]} for n in range(5000)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = examine_corpus(tmp_path / "c.jsonl", "all")[1]
    types = {field.name: field.type for field in fields}
    build_collection(
        spark, str(tmp_path / "c.jsonl"), tmp_path / "c", "tiny", shards=2, precision="float32", fields=fields
    )
    SparseStsIndex.build(tmp_path / "i", read_corpus(tmp_path / "c.jsonl", fields=fields), tiny, fields=types).close()
    queries = [Document("q1", "A cat of 12 years."), Document("q2", "Three dogs.")]
    asked: dict[str, Any] = {"where": 'n > 4 and not k = "a"', "min_cosine": 0.2}
    with SparseStsIndex.open(tmp_path / "i") as one, SparseStsIndex.open(tmp_path / "c") as many:
        expected = one.search([query.text for query in queries], 5, **asked)
        assert expected[0][0].fields["k"] == "b"
        assert many.search([query.text for query in queries], 5, **asked) == expected
        assert list(spark_queries.search(spark, tmp_path / "c", queries, 5, **asked)) == expected
        where = "n = 6 and k = 'a'"
        pairs = list(one.duplicates(0.99, where=where))
        assert len(pairs) > 100
        assert list(many.duplicates(0.99, where=where)) == pairs
        assert list(spark_queries.duplicates(spark, tmp_path / "c", 0.99, where=where)) == pairs
        assert one.counts("k") == many.counts("k") == {"a": 2500, "b": 2500}
