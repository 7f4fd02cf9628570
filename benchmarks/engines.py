"""What do serving engines answer that an index was pushed to, and how near the cosine are their own scores?

    python benchmarks/engines.py INDEX
    python benchmarks/engines.py INDEX --documents 0 --engines milvus --label all

pushes the first ``--documents`` of an index (0: all of them) to Milvus Lite and to Qdrant's local mode, asks both for
the 10 nearest of some of its documents, one at a time, and writes ``results/engines.json`` (with ``--label``,
``engines-LABEL``). The answers are compared with those of the index itself in exact mode: ids, and cosines to the last
bit. The engine's rounding is the largest difference of its own scores from the float cosines of the same documents.

Both engines are what their clients bring for development: Python, not the servers that bear their names.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
import numpy as np
from scipy.sparse import vstack

from sparse_sts_index import SparseStsIndex
from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.base import vectors_of
from sparse_sts_index.engines.pushing import push
from sparse_sts_index.engines.remote_index import RemoteIndex
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.manifest import Manifest

K = 10
URLS = {"milvus": "milvus+file:{folder}/milvus.db/bench", "qdrant": "qdrant+file:{folder}/qdrant/bench"}


def first(index: ImpactIndex, count: int) -> Iterator[Chunk]:
    for chunk in index.read():
        some = min(count, len(chunk.documents))
        if not some:
            return
        yield Chunk(chunk.documents[:some], chunk.vectors[:some], chunk.impacts[:some])
        count -= some


def subset(path: Path, folder: Path, count: int) -> Path:
    """An index of the first documents."""
    index = ImpactIndex.open(path)
    with index.using() as state:
        manifest = Manifest.without_model(state.vocabulary, index.manifest.bits)
        ImpactIndex.build(folder / "index", first(index, count), manifest, state.vocabulary)
    return folder / "index"


def measure(name: str, url: str, path: Path, queries: Any) -> dict[str, Any]:
    exact = SparseStsIndex.open(path)
    source = Source.of_index(ImpactIndex.open(path))
    engine = connect(url)
    try:
        pushed = push(source, engine)
        remote = RemoteIndex(engine)
        expected = exact.search_vectors(queries, K)
        equal = certified = 0
        seconds = []
        for number, wanted in enumerate(expected):
            start = time.perf_counter()
            (hits,) = remote.search_vectors(queries[[number]], source.vocabulary, K)
            seconds.append(time.perf_counter() - start)
            equal += hits.hits == wanted.hits
            certified += hits.certified
        rounding = max(map(abs, differences(engine, queries, source.vocabulary.terms)))
    finally:
        engine.close()
        exact.close()
    return {
        "documents": pushed.documents,
        "queries": len(expected),
        "equal_top_10": equal,
        "certified": certified,
        "largest_score_difference": rounding,
        "pushed_per_second": pushed.documents / pushed.seconds,
        "query_seconds": {"median": statistics.median(seconds), "largest": max(seconds)},
        "packages": {
            p: metadata.version(p) for p in {"milvus": ("pymilvus", "milvus-lite")}.get(name, ("qdrant-client",))
        },
    }


def differences(engine: Any, queries: Any, terms: Any) -> Iterator[float]:
    """Of the engine's own scores from the cosines of what it found."""
    for query in vectors_of(queries):
        weights = dict(zip(query.terms, query.weights, strict=True))
        (found,) = engine.search([query], K, terms)
        for hit in found:
            pairs = zip(hit.point.vector.terms, hit.point.vector.weights, strict=True)
            yield hit.score - sum(weights.get(term, 0.0) * weight for term, weight in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--engines", nargs="+", choices=URLS, default=list(URLS))
    parser.add_argument("--label", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = subset(arguments.index, folder, arguments.documents) if arguments.documents else arguments.index
        chunks = list(ImpactIndex.open(path).read())
        vectors = vstack([chunk.vectors for chunk in chunks], format="csr")
        chosen = np.random.default_rng(0).choice(vectors.shape[0], arguments.queries, replace=False)
        result: dict[str, Any] = {"machine": harness.machine(), "k": K, "engines": {}}
        for engine in arguments.engines:
            answer = measure(engine, URLS[engine].format(folder=folder), path, vectors[np.sort(chosen)])
            result["engines"][engine] = answer
            print(engine, answer, flush=True)
    label = f"-{arguments.label}" if arguments.label else ""
    print(harness.write(harness.RESULTS / f"engines{label}.json", result))


if __name__ == "__main__":
    main()
