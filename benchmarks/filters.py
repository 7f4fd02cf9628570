"""Measure what fields cost, and the speed of a search among the documents that pass a filter.

    python benchmarks/filters.py --corpus glosses.jsonl.gz --engines-python ENVIRONMENT/bin/python

gives documents six fields (two keywords, a list of keywords, a number, a date, a boolean), and asks for the 10 nearest
of one query at a time among all of them, and among the half, the twentieth and the two-hundredth whose number is low:
this package in memory and by Lucene, and Qdrant Edge with the same fields, an index on that number, and the same
condition, in turns, in one run (see ``harness.py``); no filter is asked twice in a round. "Identical" is the share of
queries with the documents of brute force in its order. The same index without fields is searched as well, and both are
built in turns, timed. Writes ``results/filters.json`` and ``results/filters.svg``.

Qdrant Edge wants an environment of its own, whose interpreter ``--engines-python`` names: ``pip install numpy scipy
qdrant-edge-py``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import search as unfiltered
from scipy.sparse import csr_array

K, BITS = 10, 8
SHARES = (1.0, 0.5, 0.05, 0.005)  # of the documents, that pass; all of them: no filter
TYPES = {
    "product": "keyword",
    "status": "keyword",
    "tags": "keywords",
    "price": "number",
    "created": "date",
    "open": "boolean",
}
WITH, WITHOUT, LUCENE, QDRANT = "in memory", "in memory, no fields", "by Lucene", "Qdrant Edge"
_CHUNK = 2048
_LESS = 1e-10  # by what each query's bound is lower than the last's: this package keeps the masks of late filters
Search = Callable[[csr_array, float], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="sample", help="A collection to encode.")
    parser.add_argument("--vectors", type=Path, help="Instead: folder with documents.npz and queries.npz.")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--queries-count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines-python", default=sys.executable, help="Interpreter for Qdrant Edge.")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--build", choices=[WITH, WITHOUT, QDRANT], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.build, arguments.folder)
    elif arguments.worker:
        work(arguments.worker, arguments.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = compare(arguments, Path(folder))
        print("wrote", harness.write(arguments.results / "filters.json", report))
        print("wrote", bars(arguments.results / "filters.svg", report))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    arguments.queries = None
    documents, queries = unfiltered.vectors(arguments)
    queries = unfiltered.shuffled(queries, arguments.queries_count)
    unfiltered.save(folder / "documents", documents)
    unfiltered.save(folder / "queries", queries)
    pythons = {QDRANT: arguments.engines_python}
    workers = list(WORKERS)
    if unfiltered.installed(arguments.engines_python, "qdrant-edge-py") is None:
        print(f"{QDRANT}: left out, qdrant-edge-py is not installed for {arguments.engines_python}", flush=True)
        workers.remove(QDRANT)
    command = [__file__, "--folder", str(folder)]
    builds: dict[str, dict[str, Any]] = {}
    for _, name in itertools.product(range(3), (WITHOUT, WITH)):  # in turns
        builds.setdefault(name, {"seconds": []})["seconds"].append(built(sys.executable, command, name))
    if QDRANT in workers:
        builds[QDRANT] = {"seconds": [built(arguments.engines_python, command, QDRANT)]}
    for name, figures in builds.items():
        figures |= {"median": statistics.median(figures["seconds"]), "mib": unfiltered.size_mib(folder / name)}
    asked = {name: [pythons.get(name, sys.executable), *command, "--worker", name] for name in workers}
    answers = harness.take_turns(asked, arguments.rounds)
    truth = {share: nearest(documents, queries, share) for share in SHARES}
    engines: dict[str, Any] = {}
    for name in workers:
        engines[name] = {}
        for share in SHARES[: 1 if name == WITHOUT else None]:
            p50 = [answer["p50_ms"][str(share)] for answer in answers[name][1:]]
            hits = answers[name][-1]["hits"][str(share)]
            same = statistics.fmean(one == other for one, other in zip(hits, truth[share], strict=True))
            engines[name][str(share)] = {"p50_ms": statistics.median(p50), "values": p50, "identical": same}
            print(f"{name}, {share:.1%} pass: p50 {statistics.median(p50):.2f} ms, identical {same:.1%}")
    return {
        "documents": documents.shape[0],
        "queries": queries.shape[0],
        "rounds": arguments.rounds,
        "types": TYPES,
        "machine": harness.machine(),
        "builds": builds,
        "engines": engines,
    }


def prices(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a number in [0, 1) for each document; the share of numbers below x is x."""
    return np.random.default_rng(0).permutation(count) / count


def fields(count: int) -> Iterator[dict[str, Any]]:
    """Six fields of each document, as JSON has them; some 15 % of the values are missing."""
    rng = np.random.default_rng(1)
    for price in prices(count).tolist():
        day, hour = divmod(int(rng.integers(24 * 365)), 24)
        tags = sorted({f"tag-{tag}" for tag in rng.integers(40, size=rng.integers(4)).tolist()})
        values = {
            "product": f"product-{int(rng.integers(50))}",
            "status": ("open", "closed", "waiting")[int(rng.integers(3))],
            "tags": tags,
            "created": f"2026-{1 + day * 12 // 365:02}-{1 + day % 28:02}T{hour:02}:00:00+00:00",
            "open": bool(rng.integers(2)),
        }
        kept = {name: value for name, value in values.items() if value != [] and rng.random() < 0.85}
        yield {"price": price, **kept}


def nearest(documents: csr_array, queries: csr_array, share: float) -> list[list[int]]:
    """Return the nearest documents that pass, by brute force in float64; equal cosines by id."""
    rows = np.flatnonzero(prices(documents.shape[0]) < share)
    found = unfiltered.nearest(documents[rows], queries)
    names = [[(-cosine, str(rows[row])) for cosine, row in hits] for hits in found]
    return [[int(name) for _, name in sorted(hits)[:K]] for hits in names]


def built(python: str, command: list[str], name: str) -> float:
    done = subprocess.run([python, *command, "--build", name], check=True, capture_output=True, text=True)
    seconds = float(done.stdout.splitlines()[-1])
    print(f"{name}: built in {seconds:.1f} s", flush=True)
    return seconds


def build(name: str, folder: Path) -> None:
    documents = unfiltered.load(folder / "documents")
    own = [] if name == WITHOUT else list(fields(documents.shape[0]))
    start = time.perf_counter()
    if name == QDRANT:
        build_qdrant(documents, own, folder / name)
    else:
        build_ours(documents, own, folder / name)
    print(time.perf_counter() - start)


def build_ours(documents: csr_array, own: list[dict[str, Any]], folder: Path) -> None:
    from sparse_sts_index.data.documents import Chunk, Document
    from sparse_sts_index.data.fields import check_types, typed_fields
    from sparse_sts_index.storage.impact_index import ImpactIndex
    from sparse_sts_index.storage.manifest import Manifest
    from sparse_sts_index.vectors.quantizer import Quantizer
    from sparse_sts_index.vectors.vocabulary import Vocabulary

    types = check_types(TYPES) if own else {}

    def chunks() -> Iterator[Chunk]:
        for start in range(0, documents.shape[0], _CHUNK):
            block = documents[start : start + _CHUNK]
            sentences = [
                Document(str(row), "", fields=own[row] if own else {}) for row in range(start, start + block.shape[0])
            ]
            typed = [Document(one.id, "", fields=typed_fields(one, types)) for one in sentences]
            yield Chunk(typed, block, Quantizer(BITS).quantize(block))

    vocabulary = Vocabulary(list(map(str, range(documents.shape[1]))))
    manifest = Manifest.without_model(vocabulary, BITS).with_fields(types)
    ImpactIndex.build(folder, chunks(), manifest, vocabulary, overwrite=True)


def build_qdrant(documents: csr_array, own: list[dict[str, Any]], folder: Path) -> None:
    from qdrant_edge import (
        EdgeConfig,
        EdgeShard,
        EdgeSparseVectorParams,
        PayloadSchemaType,
        Point,
        SparseVector,
        UpdateOperation,
    )

    folder.mkdir()
    config = EdgeConfig(sparse_vectors={"text": EdgeSparseVectorParams()}, max_search_threads=1)
    shard = EdgeShard.create(str(folder), config)
    shard.update(UpdateOperation.create_field_index("price", PayloadSchemaType.Float))
    points = (
        Point(number, {"text": SparseVector(terms.tolist(), weights.tolist())}, values)
        for number, ((terms, weights), values) in enumerate(zip(unfiltered.rows(documents), own, strict=True))
    )
    while batch := list(itertools.islice(points, _CHUNK)):
        shard.update(UpdateOperation.upsert_points(batch))
    shard.optimize()
    shard.flush()
    shard.close()


def open_ours(folder: Path, in_memory: bool) -> Search:
    from sparse_sts_index.data.filters import Compare, typed_filter
    from sparse_sts_index.search.searcher import Searcher
    from sparse_sts_index.storage.impact_index import ImpactIndex

    index = ImpactIndex.open(folder)
    with index.using() as snapshot:
        searcher = Searcher(snapshot, in_memory)

    def search(query: csr_array, share: float) -> list[int]:
        where = None if share == 1 else typed_filter(Compare("price", "<", share), index.manifest.fields)
        with index.using():
            (found,) = searcher.search(query, K, "exact", where)
        assert found.certified
        return [int(name) for name in found.ids]

    return search


def open_qdrant(folder: Path) -> Search:
    from qdrant_edge import EdgeShard, FieldCondition, Filter, Query, QueryRequest, RangeFloat, SparseVector

    shard = EdgeShard.load(str(folder))

    def search(query: csr_array, share: float) -> list[int]:
        where = None if share == 1 else Filter(must=[FieldCondition("price", range=RangeFloat(lt=share))])
        vector = SparseVector(query.indices.tolist(), query.data.tolist())
        return [hit.id for hit in shard.query(QueryRequest(K, query=Query.Nearest(vector, using="text"), filter=where))]

    return search


WORKERS: dict[str, Callable[[Path], Search]] = {
    WITHOUT: lambda folder: open_ours(folder / WITHOUT, in_memory=True),
    WITH: lambda folder: open_ours(folder / WITH, in_memory=True),
    LUCENE: lambda folder: open_ours(folder / WITH, in_memory=False),
    QDRANT: lambda folder: open_qdrant(folder / QDRANT),
}


def work(name: str, folder: Path) -> None:
    queries, search = unfiltered.load(folder / "queries"), WORKERS[name](folder)
    prepared = [queries[[row]] for row in range(queries.shape[0])]
    shares = SHARES[: 1 if name == WITHOUT else None]

    def round_() -> dict[str, Any]:
        hits: dict[str, list[list[int]]] = {}
        p50 = {}
        for share in shares:
            seconds = []
            hits[str(share)] = []
            for row, query in enumerate(prepared):
                bound = share if share == 1 else share - row * _LESS
                start = time.perf_counter()
                hits[str(share)].append(search(query, bound))
                seconds.append(time.perf_counter() - start)
            p50[str(share)] = statistics.median(seconds) * 1e3
        return {"p50_ms": p50, "hits": hits}

    harness.serve(round_)


def bars(path: Path, report: dict[str, Any]) -> Path:
    """Median times by how many documents pass."""
    pyplot = unfiltered.plotting()
    figure, panel = pyplot.subplots(figsize=(8, 4))
    names = [name for name in report["engines"] if name != WITHOUT]
    for number, name in enumerate(names):
        values = [report["engines"][name][str(share)]["p50_ms"] for share in SHARES]
        places = [place + (number - (len(names) - 1) / 2) * 0.27 for place in range(len(SHARES))]
        panel.bar_label(panel.bar(places, values, 0.25, label=name), fmt="{:.2f}", fontsize=8)
    panel.set_xticks(range(len(SHARES)), ["no filter", *(f"{100 * share:g}% pass" for share in SHARES[1:])])
    panel.set_ylabel("a query, p50, ms")
    panel.set_yscale("log")
    panel.set_title(f"The {K} nearest of {report['documents']:,} sentences, with a filter")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
