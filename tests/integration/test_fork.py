"""Forked processes: Java and torch are refused at once, and a child that uses neither ends as it should.

A script in a process of its own forks one child after the other, and prints the exit status of each.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import warm
from support import build, random_vectors

from sparse_sts_index import ForkError, ModelError, SparseStsEncoder, semantic_search_lucene

_REFUSED = 7

_FORK = """
import json, os, signal, sys, threading, time
from multiprocessing import get_context
from sparse_sts_index.storage.lucene import jvm
from sparse_sts_index.errors import ForkError, ImpactIndexError
from sparse_sts_index.storage.impact_index import ImpactIndex

path, outcomes = sys.argv[1], {}

def fork(name, child):
    "Note how a child ends, an interpreter's usual end included."
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        try:
            child()
        except ForkError:
            sys.exit(7)
        sys.exit(0)
    done = status = 0
    while not done and time.monotonic() - began < 10:
        done, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.005)
    if not done:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    outcomes[name] = os.waitstatus_to_exitcode(status) if done else -1

def get(index):
    return index.get("1").text
"""

_INDEX = """
def own():
    with ImpactIndex.open(path) as mine:
        assert get(mine) == "text of 1"

fork("nothing used before", own)
index = ImpactIndex.open(path)
fork("opened", lambda: get(index))
get(index)
fork("used", lambda: get(index))
fork("opened again", own)
fork("java", lambda: jvm.java_class("java.lang.System"))
fork("closed", index.close)
fork("unused", lambda: None)

def within():
    with ImpactIndex.open(path) as inner:
        fork("ends within a block", lambda: None)
        assert get(inner) == "text of 1"
within()

def reading():
    chunks = index.read()
    next(chunks)
    fork("ends within a reading", lambda: None)
    assert list(chunks) == []
reading()

def get_by_id(doc_id):
    return index.get(doc_id).text
with get_context("fork").Pool(2) as workers:
    try:
        workers.map_async(get_by_id, ["1", "2"]).get(timeout=10)
        outcomes["pool"] = 0
    except ForkError:
        outcomes["pool"] = 7

held, done = threading.Event(), threading.Event()
def hold():
    with jvm.jvm_lock, index._lock:
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
fork("locks held", lambda: get(index))
fork("locks held, unused", lambda: None)
fork("locks held, closed", index.close)
done.set()
holder.join()
assert get(index) == "text of 1"
"""

_CHANGES = """
from support import chunk, random_vectors
import numpy as np

def chunks(name):
    yield chunk([name], random_vectors(np.random.default_rng(1), 1))
    fork(name, lambda: None)

with ImpactIndex.open(path, writable=True) as index:
    documents = len(index)
    index.write(chunks("ends within an addition"), replace=False, commit=True)
    assert len(index) == documents + 1 and index.verify() == documents + 1
from support import VOCABULARY
from sparse_sts_index.storage.manifest import Manifest
ImpactIndex.build(path + "-new", chunks("ends within a build"), Manifest.without_model(VOCABULARY, 8), VOCABULARY)
with ImpactIndex.open(path + "-new") as built:
    assert built.verify() == 1
"""

_ENCODING = """
from sparse_sts_index import SparseStsEncoder
encoder = SparseStsEncoder.load("tiny", device="cpu")
import torch
torch.set_num_threads(2)

def progress(_):
    if len(outcomes) < 5:
        fork(f"ends beside batches {len(outcomes)}", lambda: None)

sentences = [f"sentence {number} of many words about cats" for number in range(3000)]
assert encoder.encode(sentences, progress=progress).shape[0] == 3000
from sparse_sts_index._utils.environment import cores
assert cores() < 2 or "sparse-sts-encode_1" in {thread.name for thread in threading.enumerate()}
"""

#: While Java collects garbage: a child that frees a Java object waits for the end of a safepoint that never comes.
_BUSY = """
index, stop = ImpactIndex.open(path), threading.Event()
def collect():
    with jvm.jvm_lock:
        system = jvm.java_class("java.lang.System")
        while not stop.is_set():
            system.gc()
errors = []
with ImpactIndex.open(path, writable=True):
    try:
        ImpactIndex.open(path, writable=True)
    except ImpactIndexError as error:
        errors.append(error)  # with the half-made writer, in its traceback
collecting = threading.Thread(target=collect)
collecting.start()
for number in range(10):
    fork(str(number), lambda: None)
    fork(f"{number}, dropped", errors.clear)
stop.set()
collecting.join()
"""

_OTHERS = """
import jnius_config
jnius_config.add_classpath(str(jvm.anserini_jar()))
os.environ["JAVA_HOME"] = str(jvm.find_java().home)
import jnius
fork("java of other code", lambda: ImpactIndex.open(path))
with ImpactIndex.open(path) as index:
    assert get(index) == "text of 1"
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fork") / "index"
    build(path, [str(row) for row in range(200)], random_vectors(np.random.default_rng(0), 200))
    return path


def run(script: str, index: Path) -> dict[str, int]:
    """Run a script, and return the exit status of each child by name; -1 for one that hangs."""
    code = f"{_FORK}\n{script}\nprint(json.dumps(outcomes))"
    search_path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": search_path, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(index)], capture_output=True, text=True, timeout=150, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("Error|Exception|Traceback", done.stderr), done.stderr  # "Exception ignored in", say
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


@pytest.fixture(scope="module")
def outcomes(index: Path) -> dict[str, int]:
    return run(_INDEX, index)


@pytest.mark.parametrize("case", ["opened", "used", "opened again", "java", "pool", "locks held"])
def test_use_in_a_forked_process_is_refused(outcomes: dict[str, int], case: str) -> None:
    assert outcomes[case] == _REFUSED


@pytest.mark.parametrize(
    "case",
    [
        "nothing used before",
        "closed",
        "unused",
        "ends within a block",
        "ends within a reading",
        "locks held, unused",
        "locks held, closed",
    ],
)
def test_other_forked_processes_end_normally(outcomes: dict[str, int], case: str) -> None:
    assert outcomes[case] == 0


def test_a_child_leaves_the_changes_of_its_parent_alone(index: Path) -> None:
    assert run(_CHANGES, index) == {"ends within an addition": 0, "ends within a build": 0}


def test_a_child_of_an_encoding_ends(index: Path) -> None:
    outcomes = run(_ENCODING, index)
    assert len(outcomes) == 5
    assert set(outcomes.values()) == {0}


def test_a_child_frees_no_java_objects(index: Path) -> None:
    assert set(run(_BUSY, index).values()) == {0}


def test_java_of_other_code_is_refused_after_a_fork(index: Path) -> None:
    assert run(_OTHERS, index)["java of other code"] == _REFUSED


def _encode_in_children() -> list[str]:
    """Ask for vectors in a child, of the parent's model and of one of its own."""
    model = SparseStsEncoder.load("tiny")
    embeddings = model.model.encode(["a cat"])
    calls = (
        lambda: model.encode(["a dog"]),
        lambda: model.trace(["a dog"]),
        lambda: model.fingerprint,
        lambda: SparseStsEncoder.load("tiny"),
        lambda: model.model.encode(["a dog"]),
        lambda: semantic_search_lucene(embeddings, embeddings),
    )
    return [_in_child(call) for call in calls]


def _load_in_child() -> str:
    """Load a model in a child, after the parent has failed to."""
    try:
        SparseStsEncoder.load("/no/such/model")
    except ModelError:
        return _in_child(lambda: SparseStsEncoder.load("tiny").encode(["a cat"]))
    return "loaded"


def _in_child(call: Callable[[], object]) -> str:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            call()
            os.write(writing, b"done")
        except ForkError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        if not select.select([pipe], [], [], 60)[0]:
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return pipe.read()


def test_models_are_refused_in_a_forked_process() -> None:
    for message in warm.call(_encode_in_children):
        assert message.startswith("torch was used before this process was forked and does not work in it; ")


def test_a_failure_to_load_is_no_use() -> None:
    assert warm.call(_load_in_child) == "done"


def _remove_corpus_in_child() -> bool:
    import torch

    from sparse_sts_index.engines.sentence_transformers import LuceneCorpus

    corpus = LuceneCorpus(torch.eye(3, 40).to_sparse_coo())
    _in_child(corpus.close)
    return len(corpus.index) == 3 and corpus.index.path.is_dir()


def test_a_temporary_index_stays_its_parents() -> None:
    assert warm.call(_remove_corpus_in_child)
