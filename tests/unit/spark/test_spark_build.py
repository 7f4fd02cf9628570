"""What tasks of Spark do to files, and what is read out of them, without Spark."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyspark")

from sparse_sts_index import DataError, Document, ImpactIndexError, Quantizer, SparseStsIndex
from sparse_sts_index.index import describe
from sparse_sts_index.spark import build, input, queries, session
from sparse_sts_index.spark.build import Plan, prepare, publish
from sparse_sts_index.spark.executors import encoder_of
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene.jvm import detach_thread
from sparse_sts_index.storage.shards import Collection, Shard

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

TEXTS = ["a cat", "a dog", "a bird", "a cat", "a man", "a cat or a dog"]
DOCUMENTS = [Document(f"id {n}", text) for n, text in enumerate(TEXTS)]
OTHER = "shards-ba9876543210"


@pytest.fixture
def plan(tmp_path: Path, tiny: SparseStsEncoder) -> Plan:
    """Of two shards of three documents."""
    plan = Plan(tmp_path / "out" / "shards-0123456789ab", describe(tiny, Quantizer()), (0, 3, 6))
    prepare(plan)
    return plan


def shard(plan: Plan, number: int, documents: Iterator[tuple[int, Document]] | None = None) -> Shard:
    own = enumerate(DOCUMENTS[plan.starts[number] : plan.starts[number + 1]], plan.starts[number])
    (built,) = build._build_shard(plan, number, documents or own)
    return built


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_of_two_attempts_at_one_shard_one_succeeds(plan: Plan) -> None:
    encoder_of(plan.manifest)  # loaded once: a worker has one thread
    both_at_it = threading.Barrier(2, timeout=120)
    built: list[Shard] = []

    def documents() -> Iterator[tuple[int, Document]]:
        both_at_it.wait()
        yield from enumerate(DOCUMENTS[:3])
        both_at_it.wait()

    def attempt() -> None:
        try:
            built.append(shard(plan, 0, documents()))
        finally:
            detach_thread()

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2
    assert built[0] == built[1]
    assert entries(plan.folder) == ["00000"]
    assert shard(plan, 0, iter(())) == built[0]  # it is there


def test_an_attempt_whose_files_are_removed_takes_the_shard_that_is_there(plan: Plan) -> None:
    def documents() -> Iterator[tuple[int, Document]]:
        shard(plan, 0)
        for attempt in plan.folder.glob(".attempt-*"):  # by a build of the same, which has finished
            attempt.rename(plan.folder.parent / "gone")
        yield from enumerate(DOCUMENTS[:3])

    assert shard(plan, 0, documents()).documents == 3
    assert entries(plan.folder) == ["00000"]


def damage(index: Path) -> None:
    file = index / "vectors-000001" / "weights.f32"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")


def with_writer(change: Callable[[SparseStsIndex], object]) -> Callable[[Path], None]:
    def changed(index: Path) -> None:
        with SparseStsIndex.open(index, writable=True) as opened:
            change(opened)

    return changed


def of_other_bits(index: Path) -> None:
    shutil.rmtree(index)
    SparseStsIndex.build(index, DOCUMENTS[:3], "tiny", quantizer=Quantizer(5), precision="float32").close()


@pytest.mark.parametrize(
    "change",
    [
        with_writer(lambda index: index.update([Document("id 1", "a house")])),
        with_writer(lambda index: (index.delete(["id 1"]), index.add([Document("id 1", "a house")]))),
        with_writer(lambda index: (index.update([Document("id 1", "a house")]), index.compact())),
        with_writer(lambda index: index.delete(["id 1"])),
        damage,
        lambda index: (index / "lucene" / "segments_1").unlink(),
        of_other_bits,
    ],
    ids=["updated", "deleted and added", "compacted", "deleted", "damaged", "no index", "other bits"],
)
def test_a_shard_that_was_changed_is_built_anew(plan: Plan, change: Callable[[Path], object]) -> None:
    built = shard(plan, 0)
    assert shard(plan, 0, iter(())) == built  # taken as it is
    change(plan.shard(0))
    again = shard(plan, 0)
    assert again.documents == 3
    assert entries(plan.folder) == ["00000"]
    with ImpactIndex.open(plan.shard(0)) as index:
        assert index.verify() == 3
        assert [document for chunk in index.read() for document in chunk.documents] == DOCUMENTS[:3]
        assert index.manifest.bits == 8


def test_a_shard_of_the_wrong_size_is_not_put_in_its_place(plan: Plan) -> None:
    with pytest.raises(DataError, match="2 documents in shard 0, not 3: the input has changed"):
        shard(plan, 0, enumerate(DOCUMENTS[:2]))
    assert entries(plan.folder) == []
    assert shard(plan, 0).documents == 3  # and nothing is in the way of the next build


def test_a_rename_that_fails_is_said(plan: Plan) -> None:
    def documents() -> Iterator[tuple[int, Document]]:
        (plan.shard(0) / "something").mkdir(parents=True)
        yield from enumerate(DOCUMENTS[:3])

    with pytest.raises(ImpactIndexError, match=r"cannot write .*shards-0123456789ab: Directory not empty"):
        shard(plan, 0, documents())


def test_a_folder_that_cannot_be_made_durable_is_said(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(build, "sync_folder", fails)
    with pytest.raises(ImpactIndexError, match=r"cannot write .*shards-0123456789ab: Input/output error"):
        shard(plan, 0)
    with pytest.raises(ImpactIndexError, match=r"cannot write .*: Input/output error"):
        prepare(plan)


def test_what_is_published_is_durable_before_the_old_shards_go(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    output, shards = plan.folder.parent, [shard(plan, number) for number in range(2)]
    (output / OTHER).mkdir()
    Collection((Shard(f"{OTHER}/00000", 1, ""),), "", 0.0).write(output)
    (output / "shards-000000000000").mkdir()  # of a build that is not finished
    (plan.folder / ".attempt-00000-host-1-1").mkdir()
    seen: list[tuple[Path, str, bool]] = []

    def spy(folder: Path) -> None:
        seen.append((folder, (output / "collection.json").read_text(), (output / OTHER).exists()))

    monkeypatch.setattr(build, "sync_folder", spy)
    assert publish(plan, shards, time.monotonic()).documents == 6
    assert seen == [(output, (output / "collection.json").read_text(), True)]
    assert entries(output) == ["collection.json", "shards-000000000000", plan.folder.name]
    assert entries(plan.folder) == ["00000", "00001"]
    with ImpactIndex.open(output) as index:
        assert index.verify() == 6
    prepare(plan)
    assert [folder for folder, _, _ in seen[1:]] == [output, output.parent]


def test_what_cannot_be_read_is_not_published(plan: Plan) -> None:
    output, shards = plan.folder.parent, [shard(plan, number) for number in range(2)]
    (output / OTHER).mkdir()
    Collection((Shard(f"{OTHER}/00000", 1, ""),), "", 0.0).write(output)
    before = (output / "collection.json").read_text()
    plan.shard(1).rename(output / "elsewhere")  # as if workers wrote to another disk
    with pytest.raises(ImpactIndexError, match="00001.*the same folder for the driver and all workers"):
        publish(plan, shards, time.monotonic())
    shard(plan, 1)  # another
    with pytest.raises(ImpactIndexError, match="00001 is not as it was"):
        publish(plan, [shards[0], Shard(shards[1].folder, 3, "0" * 64)], time.monotonic())
    assert (output / "collection.json").read_text() == before
    assert (output / OTHER).is_dir()


def test_a_checksum_of_documents_does_not_depend_on_where_they_are_cut() -> None:
    def checksum(documents: list[Document], *cuts: int) -> tuple[int, int]:
        borders = itertools.pairwise([0, *cuts, len(documents)])
        rows = [(("file", a), document) for a, b in borders for document in documents[a:b]]
        return input.joined(summary for _, summary in input._count(rows))

    expected = checksum(DOCUMENTS)
    assert expected[0] == 6
    for count in range(1, 6):
        for cuts in itertools.combinations(range(1, 6), count):
            assert checksum(DOCUMENTS, *cuts) == expected
    for other in (
        DOCUMENTS[:5],
        DOCUMENTS[::-1],
        [*DOCUMENTS[:4], DOCUMENTS[5], DOCUMENTS[4]],
        [*DOCUMENTS[:5], Document("id 5", "a cat or a do")],
        [*DOCUMENTS[:5], Document("id 5a", " cat or a dog")],
    ):
        assert checksum(other) != expected


def test_files_that_change_while_they_are_read() -> None:
    block, other = ("file:///a%20folder/x.jsonl", 0), ("file:///a%20folder/x.jsonl", 99)
    rows = [(block, document) for document in DOCUMENTS]
    known = {"first": {block: 10}, "summaries": dict(input._count(rows))}
    assert [number for number, _ in input._number(rows, **known)] == list(range(10, 16))
    for changed in (rows[1:], [*rows[:5], rows[4]], [*rows[1:], rows[0]], [(other, DOCUMENTS[0])]):
        with pytest.raises(DataError, match=r"^/a folder/x.jsonl: has changed since it was first read$"):
            list(input._number(changed, **known))
    with pytest.raises(DataError, match=r"^/a folder/x.jsonl: has changed since it was first read$"):
        list(input._parse([(*other, b"{}")], "jsonl", {block: (1, 0)}))


def test_lines_of_txt_files_are_numbered_on() -> None:
    rows = [("file:/a.txt", 0, b"one"), ("file:/a.txt", 0, b""), ("file:/b.txt", 4, b"two")]
    found = input._parse(rows, "txt", {("file:/a.txt", 0): (1, 0), ("file:/b.txt", 4): (3, 2)})
    assert [(document.id, document.where) for _, document in found] == [("1", "/a.txt:1"), ("5", "/b.txt:3")]


def test_each_shard_is_opened_once_a_task_and_checked_by_one(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(plan, [shard(plan, number) for number in range(2)], time.monotonic())
    folders, manifest = queries._open(plan.folder.parent)
    opened: list[tuple[str, bool]] = []
    open_index = ImpactIndex.open

    def spy(path: Path, *, check: bool = True, **options: Any) -> ImpactIndex:
        opened.append((path.name, check))
        return open_index(path, check=check, **options)

    monkeypatch.setattr(ImpactIndex, "open", spy)
    pairs = [pair for two in ((0, 0), (0, 1), (1, 1)) for _, pair in queries._join(folders, 0.99, None, two)]
    assert [(pair.first.id, pair.second.id) for pair in pairs] == [("id 0", "id 3")]
    assert opened == [("00000", True), ("00000", False), ("00001", False), ("00001", True)]
    opened.clear()
    assert queries._open(plan.folder.parent) == (folders, manifest)
    list(queries._search_shard(folders, queries._Wanted(1, "exact", False, None, 0.0), 1, []))
    assert opened == [("out", False), ("00001", True)]
    damage(plan.shard(1))
    with pytest.raises(ImpactIndexError, match=r"weights.f32: not as it was written"):
        list(queries._join(folders, 0.99, None, (1, 1)))
    with pytest.raises(ImpactIndexError, match=r"weights.f32: not as it was written"):
        list(queries._search_shard(folders, queries._Wanted(1, "exact", False, None, 0.0), 1, []))


ABORTED = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 0.0 failed 1 times, most "
    "recent failure: Lost task 1.0 in stage 0.0 (TID 1) (192.0.2.2 executor driver): org.apache.spark.SparkException: "
)


@pytest.mark.parametrize(
    ("raised", "cause", "told"),
    [  # by PySpark 4.3
        (
            ABORTED + "Python worker exited unexpectedly (crashed). Consider x",
            "java.io.EOFException",
            "Python worker exited unexpectedly (crashed). Consider x",
        ),
        (
            "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:///x.",
            "java.io.IOException: invalid block type",
            "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:///x. "
            "(java.io.IOException: invalid block type)",
        ),
    ],
)
def test_what_is_told_of_a_failure_in_java(raised: str, cause: str, told: str) -> None:
    said = f"An error occurred while calling z:x.\n: {raised}\n\tat a.b(C:1)\nCaused by: {cause}\n\t... 2\n"
    assert str(session._one_line(Exception(said))) == f"the Spark job failed: {told}"


def test_what_is_told_of_a_spark_that_does_not_start() -> None:
    null = "An error occurred while calling None.x.JavaSparkContext.\n: java.lang.NullPointerException: x is null\n"
    log = (
        'Setting Spark log level to "ERROR".\n26/11/25 03:03:28 ERROR StandaloneSchedulerBackend: Application has been '
    )
    log += "killed. Reason: All masters are unresponsive! Giving up.\n"
    assert session._why(log, null) == "All masters are unresponsive! Giving up."
    assert session._why("", null) == "java.lang.NullPointerException: x is null"
    log = 'WARNING: Using incubator\nException in thread "main" org.apache.spark.SparkException: Master must\n\tat a'
    exited = "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number."
    assert session._why(log, exited).endswith("SparkException: Master must")
    assert session._why("", exited) == exited
