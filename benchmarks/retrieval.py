"""Hide paraphrases among other sentences, and count the ones that a search finds first, and among the first ten.

    python benchmarks/retrieval.py --models mini tiny --dense minilm --pairs PARAPHRASES.csv.gz --count 1000 \\
        --others DIR/*.txt.gz --among 100000

Each pair's first sentence is a query, and its second is in the collection. Pairs have the highest grade of their file,
two sentences that differ in letters or digits, and no sentence of another pair; they are drawn evenly from the files.
Writes ``results/retrieval.json``.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
from leakage import ANY_SCORE, fold
from numpy.typing import NDArray

from sparse_sts_index import SparseStsIndex, load_pairs, read_corpus
from sparse_sts_index.data.documents import Document
from sparse_sts_index.evaluation.baselines import Baseline, Bm25, Dense

_K = 10


def main() -> None:
    arguments = parse()
    rng = random.Random(arguments.seed)
    pairs = draw_pairs(arguments.pairs, arguments.count, rng)
    queries, partners = [list(side) for side in zip(*pairs, strict=True)]
    taken = {fold(sentence) for pair in pairs for sentence in pair}
    others = [
        document.text for path in arguments.others for document in read_corpus(path) if fold(document.text) not in taken
    ]
    collection = [*partners, *rng.sample(list(dict.fromkeys(others)), arguments.among)]
    print(f"{len(queries):,} queries, {len(collection):,} sentences", flush=True)
    results = {name: found(ranks_of_model(name, queries, collection)) for name in arguments.models}
    for baseline in (Dense(arguments.dense), Bm25()):
        results[baseline.name] = found(ranks_of_baseline(baseline, queries, collection))
    for name, result in results.items():
        print(f"{name:<24} first {result['first']:5d}   among the first ten {result['first ten']:5d}")
    report: dict[str, Any] = {
        "queries": len(queries),
        "sentences": len(collection),
        "pairs": [path.name for path in arguments.pairs],
        "results": results,
    }
    print("wrote", harness.write(arguments.results / "retrieval.json", report))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="Sparse models.")
    parser.add_argument("--dense", default="minilm", help="A dense model.")
    parser.add_argument("--pairs", nargs="+", type=Path, required=True, help="Files of graded pairs.")
    parser.add_argument("--count", type=int, default=1000, help="Number of pairs.")
    parser.add_argument("--others", nargs="+", type=Path, required=True, help="Files of other sentences.")
    parser.add_argument("--among", type=int, default=100_000, help="Number of other sentences.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    return parser.parse_args()


def draw_pairs(paths: Sequence[Path], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Draw paraphrases, as many of each file as possible evenly."""
    taken: set[str] = set()
    chosen: list[tuple[str, str]] = []
    for number, path in enumerate(paths, 1):
        pairs = load_pairs(path, score_range=ANY_SCORE)
        best = [
            pair
            for pair, grade in zip(zip(pairs.sentence1, pairs.sentence2, strict=True), pairs.gold, strict=True)
            if grade == pairs.gold.max()
        ]
        rng.shuffle(best)
        for first, second in best:
            keys = {fold(first), fold(second)}
            if len(keys) == 2 and not keys & taken and len(chosen) < count * number // len(paths):
                taken |= keys
                chosen.append((first, second))
    if len(chosen) < count:
        raise SystemExit(f"only {len(chosen)} pairs")
    return chosen


def ranks_of_model(name: str, queries: Sequence[str], collection: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each query's partner, from 0; 10 where it is not among the first ten."""
    documents = (Document(str(row), text) for row, text in enumerate(collection))
    with (
        tempfile.TemporaryDirectory() as folder,
        SparseStsIndex.build(Path(folder) / "index", documents, name) as index,
    ):
        hits = index.search(queries, _K)
        return np.array([place([int(hit.id) for hit in found], row) for row, found in enumerate(hits)])


def ranks_of_baseline(baseline: Baseline, queries: Sequence[str], collection: Sequence[str]) -> NDArray[np.int64]:
    baseline.index(collection)
    return np.array([place(baseline.search(query, _K).tolist(), row) for row, query in enumerate(queries)])


def place(rows: list[int], row: int) -> int:
    return rows.index(row) if row in rows else _K


def found(ranks: NDArray[np.int64]) -> dict[str, int]:
    return {"first": int((ranks == 0).sum()), "first ten": int((ranks < _K).sum())}


if __name__ == "__main__":
    main()
