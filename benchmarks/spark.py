"""Spark against one process: the same documents, hits and pairs? And how does a build grow with the workers?

    python benchmarks/spark.py --collection glosses.jsonl.gz --model tiny

runs the installed ``sparse-sts`` command, with ``--engine spark`` on ``local-cluster``: a master, workers and executors
that are processes of their own, one core and one Python worker each, all on this machine. It writes
``results/spark.json``.

- Weak scaling: half of the collection by one worker, all of it by two; in turns, several rounds.
- Workers killed: during a build of all of it, an executor (Java) that is at a shard is sent SIGKILL when two shards are
  finished, and a Python worker when four are; then every document is compared with that of one process: id, sentence
  and vector, to the last bit.
- The hits of queries and the near-duplicates: what the commands print is compared, byte for byte.

Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.storage.impact_index import ImpactIndex

COMMAND = [str(Path(sys.executable).with_name("sparse-sts"))]


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="sparse-sts-spark-", dir=options.folder) as folder:
        result = run(options, Path(folder))
    print(harness.write(harness.RESULTS / "spark.json", result))
    if not all(result["identical"].values()):
        raise SystemExit(f"not identical: {result['identical']}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", required=True, help="jsonl or jsonl.gz with id and text")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=int, default=2048, help="MiB an executor")
    parser.add_argument("--folder", help="for temporary files")
    return parser.parse_args()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    documents = list(read_corpus(options.collection))
    whole, half = folder / "whole.jsonl", folder / "half.jsonl"
    for path, some in ((whole, documents), (half, documents[: len(documents) // 2])):
        path.write_text("".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in some), encoding="utf-8")
    build = ["index", "--model", options.model, "--precision", "float32", "--overwrite"]

    def spark(workers: int, command: Sequence[str]) -> list[str]:
        return [*command, "--engine", "spark", "--master", f"local-cluster[{workers},1,{options.memory}]"]

    seconds: dict[str, list[float]] = {"one process": [], "1 worker, half": [], "2 workers, whole": []}
    for _ in range(options.rounds):
        for name, command, output in (
            ("one process", [*build, str(whole)], "one"),
            ("1 worker, half", [*spark(1, build), "--shards", str(options.shards // 2), str(half)], "half"),
            ("2 workers, whole", [*spark(2, build), "--shards", str(options.shards), str(whole)], "two"),
        ):
            shutil.rmtree(folder / output, ignore_errors=True)  # or its shards would be taken as they are
            call([*command, "--output", str(folder / output)])
            seconds[name].append(build_seconds(folder / output))
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    killed = folder / "killed"
    killer = Killer(killed, after=2)
    began = time.monotonic()
    call([*spark(2, build), "--shards", str(options.shards), str(whole), "--output", str(killed)])
    victims = killer.stop()
    print(f"killed {victims}, {time.monotonic() - began:.1f} s", flush=True)
    identical = {"documents": same_documents(folder / "one", killed), "killed": len(victims) == 2}
    queries = folder / "queries.jsonl.gz"
    with gzip.open(queries, "wt", encoding="utf-8") as file:
        for document in random.Random(1).sample(documents, options.queries):
            file.write(json.dumps({"id": document.id, "text": " ".join(document.text.split()[:-1])}) + "\n")
    searched = ["search", "--queries", str(queries), "--format", "jsonl"]
    joined = ["duplicates", "--threshold", str(options.threshold), "--format", "jsonl"]
    times: dict[str, float] = {}
    for name, command in (("search", searched), ("duplicates", joined)):
        expected, times[f"{name}, one process"] = timed([*command, str(folder / "one")])
        for how, found in (
            ("shards in one process", timed([*command, str(killed)])),
            ("spark, 2 workers", timed([*spark(2, command), str(killed)])),
        ):
            identical[f"{name}, {how}"] = found[0] == expected
            times[f"{name}, {how}"] = found[1]
        print(f"{name}: {expected.count(chr(10)):,} lines", {k: round(v, 1) for k, v in times.items()}, flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "collection": Path(options.collection).name,
        "documents": len(documents),
        "model": options.model,
        "shards": options.shards,
        "build_seconds": seconds,
        "weak_scaling_efficiency": medians["1 worker, half"] / medians["2 workers, whole"],
        "killed": victims,
        "killed_build_seconds": build_seconds(killed),
        "identical": identical,
        "command_seconds": times,
        "bytes": sizes(folder / "two"),
        "machine": harness.machine(),
    }


class Killer:
    """Kills the executor of one attempt and the Python worker of another, when so many shards are finished."""

    def __init__(self, output: Path, after: int) -> None:
        self._output, self._after = output, after
        self._victims: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> dict[str, str]:
        self._stop.set()
        self._thread.join()
        return self._victims

    def _watch(self) -> None:
        while not self._stop.wait(0.05) and len(self._victims) < 2:
            finished = list(self._output.glob("shards-*/[0-9]*"))
            if len(finished) < self._after + 2 * len(self._victims):
                continue
            for attempt in sorted(self._output.glob("shards-*/.attempt-*/lucene")):
                python = int(attempt.parent.name.split("-")[-2])
                try:
                    kind, process = ("Python worker", python) if self._victims else ("executor", parent(parent(python)))
                    os.kill(process, signal.SIGKILL)
                except (ProcessLookupError, FileNotFoundError):
                    continue  # of a process that is dead already
                self._victims[kind] = f"{attempt.parent.name}, {len(finished)} shards finished"
                break


def parent(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("PPid:")[1].split()[0])


def call(command: Sequence[str]) -> str:
    return subprocess.run([*COMMAND, *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def timed(command: Sequence[str]) -> tuple[str, float]:
    began = time.monotonic()
    return call(command), time.monotonic() - began


def build_seconds(path: Path) -> float:
    with ImpactIndex.open(path) as index:
        return index.manifest.build_seconds


def same_documents(one: Path, other: Path) -> bool:
    with ImpactIndex.open(one) as first, ImpactIndex.open(other) as second:
        second.verify()
        return len(first) == len(second) and all(
            a.documents == b.documents
            and all(
                np.array_equal(getattr(a.vectors, part), getattr(b.vectors, part))
                for part in ("indptr", "indices", "data")
            )
            for a, b in zip(first.read(), second.read(), strict=True)
        )


def sizes(path: Path) -> dict[str, int]:
    """Bytes of all shards, by what they are."""
    found = {"lucene": 0, "vectors": 0}
    for file in path.rglob("*"):
        for part in found:
            if file.is_file() and file.parent.name.startswith(part):
                found[part] += file.stat().st_size
    return found


if __name__ == "__main__":
    main()
