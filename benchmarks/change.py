"""Measure the time to the first answer, the time until an added sentence is found, and the throughput of all cores.

    git worktree add EARLIER COMMIT
    python benchmarks/change.py --vectors FOLDER --documents 1000000 --before EARLIER

builds an index of the same vectors (see ``search.py``) for this version and for the one in ``--before``, and asks
both in turns, each in a process of its own. Writes ``results/change.json``, with the medians of these figures:

- ``first_ms``: from the start of a fresh process to the answer of its first query, files in the page cache;
- ``next_ms``: a query of the same process, the median of the 98 after it;
- ``warm_ms``: a query after 200 others, the median of 100;
- ``found_ms``: from before the call that adds a sentence to after the search that finds it, the median of 10;
- ``batch_per_second``: 2,500 queries at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from scipy.sparse import csr_array
from search import build_ours, load, save, save_documents, shuffled, vectors

FIGURES = ("first_ms", "next_ms", "warm_ms", "found_ms", "batch_per_second")
_QUERIES = 2500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="Folder with documents.npz and queries.npz (scipy's, CSR).")
    parser.add_argument("--documents", type=int, help="Number of documents; if there are fewer, the rest is resampled.")
    parser.add_argument("--before", type=Path, help="Checkout of an earlier version.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first:
        first(arguments.first)
    elif arguments.worker:
        work(arguments.worker)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    documents, queries = vectors(arguments)
    count = arguments.documents or documents.shape[0]
    save(folder / "queries", shuffled(queries, _QUERIES))
    save_documents(folder / "documents", documents[: min(count, documents.shape[0])], count)
    build_ours(load(folder / "documents"), folder / "now")
    versions = {"now": harness.ROOT, **({"before": arguments.before.resolve()} if arguments.before else {})}
    if arguments.before:
        shutil.copytree(folder / "now", folder / "before")
    commands = {
        name: [*harness.of_checkout(root), __file__, "--worker", str(folder / name)] for name, root in versions.items()
    }
    answers = harness.take_turns(commands, arguments.rounds)
    engines = {name: {key: harness.summarize(answers[name], key) for key in FIGURES} for name in versions}
    report = {"documents": count, "machine": harness.machine(), "rounds": arguments.rounds, "versions": engines}
    for name, figures in engines.items():
        print(name, {key: round(figures[key]["median"], 3) for key in FIGURES})
    print("wrote", harness.write(arguments.results / "change.json", report))


def work(folder: Path) -> None:
    """One version: an index stays open, and is added to."""
    from sparse_sts_index import Document, SparseStsIndex

    queries = load(folder.parent / "queries", mapped=False)
    documents = load(folder.parent / "documents")
    index, numbers = SparseStsIndex.open(folder, writable=True), itertools.count()

    def ask(query: csr_array) -> list[str]:
        (hits,) = index.search_vectors(query, 10)
        return [hit.id for hit in hits]

    def median(rows: range) -> float:
        return statistics.median(timed(ask, queries[[row]]) for row in rows) * 1e3

    def found() -> float:
        number = next(numbers)
        vector, doc_id = documents[[number]], f"added-{number}"

        def add() -> None:
            index.write_vectors([Document(doc_id, "")], vector)
            assert doc_id in ask(vector)

        return timed(add)

    def round_() -> dict[str, Any]:
        own = subprocess.run(
            [sys.executable, __file__, "--first", folder], check=True, stdout=subprocess.PIPE, text=True
        )
        begin, next_ = map(float, own.stdout.split())
        median(range(200))
        return {
            "first_ms": begin,
            "next_ms": next_,
            "warm_ms": median(range(200, 300)),
            "found_ms": statistics.median(found() for _ in range(10)) * 1e3,
            "batch_per_second": queries.shape[0] / timed(lambda: index.search_vectors(queries, 10)),
        }

    harness.serve(round_)


def first(folder: Path) -> None:
    """A fresh process."""
    from sparse_sts_index import SparseStsIndex

    queries = load(folder.parent / "queries", mapped=False)
    index = SparseStsIndex.open(folder)
    index.search_vectors(queries[[0]], 10)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19])
    begin = now - ticks / os.sysconf("SC_CLK_TCK")
    others = [timed(index.search_vectors, queries[[row]], 10) for row in range(1, 99)]
    print(begin * 1e3, statistics.median(others) * 1e3)


def timed(call: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
