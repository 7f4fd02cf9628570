"""Add, update, delete, commit, refresh, compact: against a dict and numpy, and against kill -9."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from scipy.sparse import csr_array
from support import VOCABULARY, brute_force, build, build_marked, chunk, marked, marks, random_vectors

from sparse_sts_index import DataError, Document, ImpactIndexError, SparseStsIndex
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.data.filters import Compare, Filter
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage import builder, impact_index
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene import writer
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.snapshot import Snapshot
from sparse_sts_index.storage.transaction import Transaction, clean

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.storage.lucene.reader import ImpactReader

POOL = random_vectors(np.random.default_rng(0), 60)
QUERIES = random_vectors(np.random.default_rng(1), 4)
IDS = [f"id{number}" for number in range(25)]
Model = dict[str, int]  # id to the row of its vector in POOL


def expected(model: Model, query: csr_array, k: int) -> list[tuple[str, float]]:
    ids = sorted(model)
    return brute_force(ids, POOL[[model[doc_id] for doc_id in ids]], query, k) if ids else []


def assert_same(index: ImpactIndex, model: Model, engines: Sequence[bool] = (True, False)) -> None:
    """Also of fields, where the index has any; all documents of `model` have those of :func:`support.marks` then."""
    assert len(index) == len(model)
    own = marks if index.manifest.fields else lambda row: {}
    some = {doc_id: row for doc_id, row in model.items() if own(row).get("n", 0) >= 10}
    filtered: list[tuple[Filter | None, Model]] = [(None, model), (Compare("n", ">=", 10.0), some)]
    with index.using() as state:
        for in_memory, (where, passing) in itertools.product(engines, filtered[: 1 + bool(index.manifest.fields)]):
            for row, found in enumerate(Searcher(state, in_memory).search(QUERIES, 5, where=where)):
                assert found.certified
                assert list(zip(found.ids, found.cosines, strict=True)) == expected(passing, QUERIES[[row]], 5)
    for doc_id in IDS:
        document = Document(doc_id, f"text of {doc_id}", fields=own(model[doc_id])) if doc_id in model else None
        assert index.get(doc_id) == document


class LivingIndex(RuleBasedStateMachine):
    """A writer, a reader that refreshes now and then, and what each should see."""

    batches = Bundle("batches")

    @initialize(first=st.lists(st.sampled_from(IDS), min_size=1, max_size=8, unique=True))
    def create(self, first: list[str]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "index"
        self.written: Model = {doc_id: number for number, doc_id in enumerate(first)}
        build_marked(self.path, self.written, POOL)
        self.committed, self.read = dict(self.written), dict(self.written)
        self.writer, self.reader = ImpactIndex.open(self.path, writable=True), ImpactIndex.open(self.path)

    @rule(
        target=batches,
        ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True),
        rows=st.lists(st.integers(0, 59), min_size=6, max_size=6),
    )
    def batch(self, ids: list[str], rows: list[int]) -> Model:
        return dict(zip(ids, rows, strict=False))

    def write(self, batch: Model, replace: bool, commit: bool) -> int:
        return self.writer.write([marked(batch, POOL)], replace=replace, commit=commit)

    @rule(batch=batches, commit=st.booleans())
    def add(self, batch: Model, commit: bool) -> None:
        if batch.keys() & self.written.keys():
            with pytest.raises(DataError, match="in the index already"):
                self.write(batch, False, commit)
            self.written = dict(self.committed)  # whatever fails drops what is not committed
            return
        assert self.write(batch, False, commit) == 0
        self.written.update(batch)
        self.after(commit)

    @rule(batch=batches, commit=st.booleans())
    def update(self, batch: Model, commit: bool) -> None:
        assert self.write(batch, True, commit) == len(batch.keys() & self.written.keys())
        self.written.update(batch)
        self.after(commit)

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=6), commit=st.booleans())
    def delete(self, ids: list[str], commit: bool) -> None:
        assert self.writer.delete(ids, commit=commit) == len(set(ids) & self.written.keys())
        for doc_id in ids:
            self.written.pop(doc_id, None)
        self.after(commit)

    @rule()
    def commit(self) -> None:
        self.writer.commit()
        self.after(True)

    @rule()
    def compact(self) -> None:
        self.writer.compact()
        self.after(True)
        assert self.writer.manifest.vectors.rows == len(self.written)

    @rule()
    def refresh(self) -> None:
        self.reader.refresh()
        self.read = dict(self.committed)

    @rule()
    def reopen_without_commit(self) -> None:
        self.writer.close()
        self.writer = ImpactIndex.open(self.path, writable=True)
        self.written = dict(self.committed)

    def after(self, commit: bool) -> None:
        if commit:
            self.committed = dict(self.written)

    @invariant()
    def everyone_sees_what_they_should(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert_same(self.writer, self.written)
        assert_same(self.reader, self.read)
        assert self.writer.verify() == len(self.written)

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            return
        self.writer.close()
        self.reader.close()
        with ImpactIndex.open(self.path) as index:
            assert_same(index, self.committed)
            assert index.verify() == len(self.committed)
        shutil.rmtree(self.folder)


LivingIndex.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLivingIndex = LivingIndex.TestCase

_KILLED = """
    import json, os, signal, sys
    import numpy as np
    sys.path.insert(0, sys.argv[3])
    from support import marked, random_vectors
    from sparse_sts_index.storage.impact_index import ImpactIndex
    pool = random_vectors(np.random.default_rng(0), 60)
    rng = np.random.default_rng(int(sys.argv[2]))
    with ImpactIndex.open(sys.argv[1], writable=True) as index:
        print("open", flush=True)
        while True:
            batch = {f"id{n}": int(row) for n, row in zip(rng.choice(25, 5, False), rng.integers(60, size=5))}
            gone = [f"id{n}" for n in rng.choice(25, 3, False)]
            turn = rng.integers(6)
            # what is about to be done, then that it was done
            print(json.dumps({"update": batch, "delete": gone, "turn": int(turn)}), flush=True)
            index.write([marked(batch, pool)], replace=True, commit=False)
            index.delete(gone, commit=False)
            index.compact() if turn == 0 else index.commit()
            print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_writer_killed_at_a_random_moment_leaves_the_last_commit(tmp_path: Path, seed: int) -> None:
    """What it had said was done is there; what it was at is there as a whole or not at all; and life goes on."""
    path = tmp_path / "index"
    model: Model = {doc_id: number for number, doc_id in enumerate(IDS[:5])}
    build_marked(path, model, POOL)
    rng = np.random.default_rng(seed)
    for attempt in range(2):
        script = textwrap.dedent(_KILLED)
        command = [sys.executable, "-c", script, str(path), str(seed * 10 + attempt), str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            threading.Timer(float(rng.uniform(0.0, 0.6)), process.kill).start()
            said = process.stdout.read().splitlines()
        assert process.returncode == -signal.SIGKILL
        states = [dict(model)]
        for line in said:
            if line.startswith("{") and line.endswith("}"):
                step = json.loads(line)
                after = {**states[-1], **step["update"]}
                states.append({doc_id: row for doc_id, row in after.items() if doc_id not in step["delete"]})
        with ImpactIndex.open(path) as index:
            assert index.verify() == len(index)
            possible = states[-2:] if said and said[-1] != "done" else states[-1:]
            found = {doc_id for doc_id in IDS if index.get(doc_id)}
            (model,) = [state for state in possible if state.keys() == found][-1:]
            try:
                assert_same(index, model)
            except AssertionError:  # the same ids may be of either state
                model = possible[0]
                assert_same(index, model)
        with ImpactIndex.open(path, writable=True) as index:
            assert_same(index, model)
            folders = [entry.name for entry in path.iterdir() if entry.name.startswith("vectors-")]
            assert folders == [index.manifest.vectors.folder]  # no litter


@pytest.mark.parametrize("change", [{"n": 99.0}, {"k": "other"}, {"ks": ("w9",)}, {"b": True}, {}])
def test_fields_in_lucene_and_beside_the_vectors_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, FieldValue]
) -> None:
    path, model = tmp_path / "index", {doc_id: row for row, doc_id in enumerate(IDS)}
    build_marked(path, model, POOL)
    assert "b" not in marks(6)
    right = writer.fields_text
    with ImpactIndex.open(path, writable=True) as index:
        monkeypatch.setattr(writer, "fields_text", lambda fields: right({**fields, **change}))
        index.write([marked({"id6": 6}, POOL)], replace=True, commit=True)
        if not change:
            assert index.verify() == 25
            return
        with pytest.raises(ImpactIndexError, match="document 'id6' has other fields in Lucene than"):
            index.verify()


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS[:3], POOL[:3])
    with ImpactIndex.open(path, writable=True) as writer:
        imports = "import sys\nfrom sparse_sts_index.storage.impact_index import ImpactIndex"
        script = imports + "\nImpactIndex.open(sys.argv[1], {})"
        reads = subprocess.run([sys.executable, "-c", script.format("writable=False"), path], capture_output=True)
        assert reads.returncode == 0
        refused = subprocess.run(
            [sys.executable, "-c", script.format("writable=True"), path],
            capture_output=True,
            text=True,
        )
        assert "another writer is at this index" in refused.stderr
        assert len(writer) == 3
    with pytest.raises(ImpactIndexError, match="not opened to be changed"), ImpactIndex.open(path) as index:
        index.delete(["id0"])


def test_readers_and_a_compacting_writer(tmp_path: Path) -> None:
    """A reader answers from the state that it opened while the files are replaced; opening meanwhile works, too."""
    path = tmp_path / "index"
    build(path, IDS, POOL[:25])
    model = {doc_id: number for number, doc_id in enumerate(IDS)}
    stop, wrong, reads = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                with ImpactIndex.open(path) as index:
                    assert_same(index, model)
                    reads.append(index)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    with ImpactIndex.open(path) as before, ImpactIndex.open(path, writable=True) as writer:
        for thread in threads:
            thread.start()
        while len(reads) < 8 and not wrong:
            writer.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert_same(before, model)
        assert before.refresh()
        assert not before.refresh()
        assert_same(before, model)


def test_damage_is_found(tmp_path: Path) -> None:
    """One flipped bit in any file of the index, or a cut one: it does not open; unchecked, verify says so."""
    good = tmp_path / "good"
    build(good, IDS, POOL[:25])
    with ImpactIndex.open(good, writable=True) as index:
        index.delete(["id3"])
    names = [file.relative_to(good) for file in sorted(good.rglob("*")) if file.is_file() and file.stat().st_size]
    assert {name.name for name in names} >= {"terms.i32", "weights.f32", "ends.i64", "ids.utf8", "dead.i64"}
    for name in names:
        for damage in ("flip", "cut"):
            bad = tmp_path / "bad"
            shutil.copytree(good, bad)
            content = bytearray((bad / name).read_bytes())
            if damage == "flip":
                content[len(content) // 2] ^= 1
            else:
                del content[-3:]
            (bad / name).write_bytes(content)
            for writable in (False, True) if name.name != "manifest.json" else ():  # a copy, which is not read
                with pytest.raises(ImpactIndexError):
                    ImpactIndex.open(bad, writable=writable)
            with pytest.raises(ImpactIndexError), ImpactIndex.open(bad, check=False) as index:
                index.verify()
            shutil.rmtree(bad)


def test_damage_is_found_on_refresh(tmp_path: Path) -> None:
    """What was committed since is read and compared; what was there before is not read again."""
    path = tmp_path / "index"
    build(path, IDS[:6], POOL[:6])
    before = {file for file in path.rglob("*") if file.is_file()}
    reader = ImpactIndex.open(path)
    with ImpactIndex.open(path, writable=True) as writer:
        writer.write([chunk(["new"], POOL[[7]])], replace=False, commit=True)
        writer.delete(["id1"])
    for name in ("weights.f32", "terms.i32", "dead.i64", "lucene/*.cfs", "lucene/*.liv"):
        (file,) = set(path.glob(name if "/" in name else f"vectors-*/{name}")) - before or path.glob(f"*/{name}")
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(ImpactIndexError):
            reader.refresh()
        assert_same(reader, {doc_id: number for number, doc_id in enumerate(IDS[:6])})
        file.write_bytes(good)
    (old,) = path.glob("*/weights.f32")
    content = old.read_bytes()
    old.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert reader.refresh()
    with pytest.raises(ImpactIndexError):
        ImpactIndex.open(path)


def test_a_document_that_is_not_the_same_in_both_halves(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS[:4], POOL[:4])
    with ImpactIndex.open(path, writable=True) as index:
        transaction = index._transaction
        transaction._lucene.add(["id2"], ["text"], chunk(["id2"], POOL[[9]]).impacts, VOCABULARY.terms, 2, replace=True)
        transaction.commit()
    with pytest.raises(ImpactIndexError, match="document 'id2' is not the same"), ImpactIndex.open(path) as index:
        index.verify()


def test_a_failed_change_leaves_a_usable_index(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS[:4], POOL[:4])
    with ImpactIndex.open(path, writable=True) as index:

        def broken() -> object:
            yield chunk(["new"], POOL[[5]])
            raise OSError(28, "No space left on device")

        with pytest.raises(ImpactIndexError, match="No space left"):
            index.write(broken(), replace=False, commit=True)
        assert (len(index), index.get("new"), index.verify()) == (4, None, 4)
        index.write([chunk(["new"], POOL[[5]])], replace=False, commit=True)
        assert index.verify() == 5


def test_an_index_that_was_emptied(tmp_path: Path) -> None:
    build(tmp_path / "index", IDS[:3], POOL[:3])
    with ImpactIndex.open(tmp_path / "index", writable=True) as index:
        assert index.delete(IDS) == 3
        assert_same(index, {})
        index.compact()
        assert_same(index, {})
        assert index.verify() == 0
        index.write([chunk(["a"], POOL[[7]])], replace=False, commit=True)
        assert index.verify() == len(index) == 1


def test_interrupts_lose_nothing(tmp_path: Path) -> None:
    """KeyboardInterrupt at random moments of compact, also just after Lucene has committed."""
    path = tmp_path / "index"
    build(path, IDS, POOL[:25])
    model = {doc_id: number for number, doc_id in enumerate(IDS)}
    interrupted = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for seed in range(40):
            index = ImpactIndex.open(path, writable=True)
            signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0012 * seed)
            try:
                try:
                    index.compact()
                    index.compact()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:  # which may also come just before the timer is stopped
                interrupted += 1
            index.close()
            with ImpactIndex.open(path) as reader:
                assert_same(reader, model)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 5


def test_cleaning_up_lets_an_interrupt_through(tmp_path: Path) -> None:
    """At whatever line of Python it comes, an interrupt stays one, and the next time all is removed."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal left
        left -= event == "line"
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    while True:
        folder = tmp_path / "vectors-000001"
        folder.mkdir(exist_ok=True)
        (folder / "terms.i32").touch()
        left = lines
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            clean(tmp_path, keep="vectors-000002")
            break
        except KeyboardInterrupt:
            lines += 1
        finally:
            sys.settrace(before)
    assert not folder.exists()
    assert lines > 10


def test_an_interrupt_just_after_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index"
    build(path, IDS[:4], POOL[:4])
    commit = ImpactWriter.commit

    def interrupted(self: ImpactWriter, user_data: dict[str, str]) -> None:
        commit(self, user_data)
        raise KeyboardInterrupt

    monkeypatch.setattr(ImpactWriter, "commit", interrupted)
    with ImpactIndex.open(path, writable=True) as index:
        with pytest.raises(KeyboardInterrupt):
            index.compact()
        assert index.verify() == 4
    with pytest.raises(KeyboardInterrupt):
        build(path, ["one"], random_vectors(np.random.default_rng(1), 1), overwrite=True)
    with ImpactIndex.open(path) as index:
        assert index.verify() == 1


def test_a_writer_that_breaks_just_after_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed is done: the call does not fail, and the index goes on with another writer."""
    path = tmp_path / "index"
    build(path, IDS[:4], POOL[:4])
    with ImpactIndex.open(path, writable=True) as index:

        def broken(self: ImpactWriter) -> ImpactReader:
            monkeypatch.undo()
            raise ImpactIndexError("out of heap")

        monkeypatch.setattr(ImpactWriter, "reader", broken)
        assert index.delete(IDS[:1]) == 1
        assert len(index) == 3
        assert index.delete(IDS[1:2]) == 1
        assert index.verify() == 2
        monkeypatch.setattr(ImpactWriter, "reader", broken)
        with pytest.raises(ImpactIndexError, match="out of heap"):
            index.delete(IDS[2:3], commit=False)
        assert len(index) == 2


def test_a_writer_that_breaks_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be closed, and no other opened at once: the next change tries again."""
    path = tmp_path / "index"
    build(path, IDS[:4], POOL[:4])

    def broken(*_: object, **__: object) -> None:
        raise ImpactIndexError("out of heap")

    with ImpactIndex.open(path, writable=True) as index:
        with monkeypatch.context() as patch:
            patch.setattr(ImpactWriter, "delete", broken)
            patch.setattr(impact_index, "open_transaction", broken)
            for _ in range(2):
                with pytest.raises(ImpactIndexError, match="out of heap"):
                    index.delete(IDS[:1])
                assert len(index) == 4
        assert index.delete(IDS[:1]) == 1
        assert index.verify() == 3
        close = Transaction.close
        monkeypatch.setattr(Transaction, "close", lambda self: (close(self), broken()))
        assert index.delete(IDS[1:2]) == 1
    monkeypatch.undo()
    with ImpactIndex.open(path) as index:
        assert index.verify() == 2


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_another_build_just_before_this_one_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, fails: bool
) -> None:
    path = tmp_path / "index"

    def late(folder: Path) -> ImpactWriter:
        monkeypatch.undo()
        build(path, IDS[:4], POOL[:4])
        if fails:
            monkeypatch.setattr(Transaction, "add", lambda *_: 1 / 0)
        return ImpactWriter(folder)

    monkeypatch.setattr(builder, "ImpactWriter", late)
    if overwrite and not fails:
        build(path, IDS[:2], POOL[:2], overwrite=True)
    else:
        with pytest.raises(ZeroDivisionError if overwrite else ImpactIndexError):
            build(path, IDS[:2], POOL[:2], overwrite=overwrite)
    monkeypatch.undo()
    with ImpactIndex.open(path) as index:
        assert index.verify() == (2 if overwrite and not fails else 4)


def test_a_refused_change_reads_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, checked = tmp_path / "index", []
    build(path, IDS[:4], POOL[:4])
    check = Snapshot.check
    monkeypatch.setattr(Snapshot, "check", lambda self, before=None: (checked.append(before), check(self, before))[1])
    with ImpactIndex.open(path, writable=True) as index:
        with pytest.raises(DataError, match="already"):
            index.write([chunk(IDS[:1], POOL[:1])], replace=False, commit=True)
        assert [before is None for before in checked] == [True, False]


def test_searches_while_others_refresh(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS, POOL[:25])
    model = {doc_id: number for number, doc_id in enumerate(IDS)}
    stop, wrong = threading.Event(), []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ImpactIndex.open(path, writable=True) as writer, ImpactIndex.open(path) as reader:

            def read() -> None:
                while not stop.is_set():
                    try:
                        assert_same(reader, model, [True])
                    except Exception as error:
                        wrong.append(error)

            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(40):
                writer.write([chunk(["id3"], POOL[[3]])], replace=True, commit=True)
                assert reader.refresh()
            stop.set()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_after_close(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS[:3], POOL[:3])
    index = ImpactIndex.open(path, writable=True)
    with index.using() as state:
        index.close()
        index.close()
        assert len(state.reader) == 3  # in use until the block ends
    for change in (index.commit, index.compact, lambda: index.delete(["id1"])):
        with pytest.raises(ImpactIndexError, match="is closed"):
            change()
    with pytest.raises(ImpactIndexError, match="is closed"):
        index.get("id1")
    with ImpactIndex.open(path, writable=True) as again:
        with pytest.raises(ValueError, match="not one string"):
            again.delete("id1")
        assert len(again) == 3


def test_a_vocabulary_with_one_term_twice_is_damage(tmp_path: Path) -> None:
    """One flipped bit makes t1 of t0."""
    build(tmp_path / "index", IDS[:3], POOL[:3])
    (file,) = tmp_path.glob("index/vectors-*/vocabulary.json")
    file.write_bytes(file.read_bytes().replace(b'"t0"', b'"t1"'))
    with pytest.raises(ImpactIndexError, match="vocabulary.json cannot be read"):
        ImpactIndex.open(tmp_path / "index")


def test_an_id_that_no_file_can_hold(tmp_path: Path) -> None:
    build(tmp_path / "index", IDS[:3], POOL[:3])
    with ImpactIndex.open(tmp_path / "index", writable=True) as index:
        for ask in (index.get, lambda doc_id: index.delete([doc_id])):
            with pytest.raises(DataError, match="surrogate"):
                ask("id\udcff")
        assert index.verify() == 3


def test_a_copy_of_the_manifest_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, IDS[:3], POOL[:3])
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()
    with ImpactIndex.open(path, writable=True) as index:
        assert index.delete(["id1"]) == 1
        assert index.verify() == 2


def test_sentences_with_a_real_model(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    SparseStsIndex.build(tmp_path / "index", ["A cat sleeps.", "Stocks fell."], tiny).close()
    with (
        SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as index,
        SparseStsIndex.open(tmp_path / "index", tiny) as other,
    ):
        index.add([Document("k", "A kitten is asleep.")], commit=False)
        assert [hit.id for hit in index.search(["A kitten is asleep."], 2)[0]] == ["k", "1"]
        assert not other.refresh()
        index.commit()
        assert other.refresh()
        assert other.get("k") == Document("k", "A kitten is asleep.")
        with pytest.raises(DataError, match="there is a document with id 'k' in the index already"):
            index.add([Document("n", "new"), Document("k", "A kitten is asleep.")])
        assert index.get("n") is None
        assert index.update([Document("k", "Shares rose."), Document("n", "new")]) == 1
        assert index.search(["Shares rose."], 1)[0][0].id == "k"
        assert index.delete(["1", "nothing"]) == 1
        assert [len(index), len(other), index.verify()] == [3, 3, 3]
        index.compact()
        assert [index.get(i) for i in ("1", "k")] == [None, Document("k", "Shares rose.")]
        assert other.get("1") == Document("1", "A cat sleeps.")


def test_open_files_do_not_grow(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("counts open files in /proc")
    build(tmp_path / "index", IDS[:4], POOL[:4])
    counts = []
    with ImpactIndex.open(tmp_path / "index", writable=True) as index, ImpactIndex.open(tmp_path / "index") as reader:
        for number in range(30):
            index.write([chunk(["x"], POOL[[number]])], replace=True, commit=True)
            reader.refresh()
            counts.append(len(os.listdir(descriptors)))  # noqa: PTH208
    assert max(counts[10:]) <= max(counts[:10]) + 5
