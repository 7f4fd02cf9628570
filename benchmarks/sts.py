"""Measure sparse models and what one could take instead on several sets of graded sentence pairs.

    python benchmarks/sts.py --models mini tiny --dense minilm \\
        --tests stsb=STSB/test.csv:0:5 sick=SICK.csv:1:5 sts16=STS16.csv:0:5 --trained STSB/train.csv

For each method and set: Spearman's correlation with a 95 % bootstrap interval; for a sparse model also that of
Lucene's 8-bit scores, and the mean number of terms that 8 bits leave of a sentence. For each encoder: bytes per
sentence of what a search reads (Lucene's postings and the float vectors, or a dense vector), and sentences per second
in batches of 1 and 32, the median of rounds in which the encoders take turns.

A set that holds pairs of ``--trained``, whatever their grades, is measured without them as well.

Writes ``results/sts.json`` and ``results/sts.md``, a table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import torch
from leakage import ANY_SCORE, pair_keys

from sparse_sts_index import Pairs, Quantizer, SparseStsEncoder, evaluate, load_pairs
from sparse_sts_index.encoding.models import load_dense
from sparse_sts_index.evaluation.baselines import Baseline, Bm25, Dense, TfIdf
from sparse_sts_index.evaluation.correlation import correlation, spearman_interval
from sparse_sts_index.storage.lucene.temporary import scratch_index

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BATCHES = {1: 300, 32: 1504}  # sentences per batch, and in a round


def main() -> None:
    arguments = parse()
    tests = {name: load_pairs(path, score_range=scores) for name, path, scores in arguments.tests}
    trained = {key for path in arguments.trained for key in pair_keys(load_pairs(path, score_range=ANY_SCORE))}
    for name, pairs in list(tests.items()):
        unseen = [row for row, key in enumerate(pair_keys(pairs)) if key not in trained]
        if len(unseen) < len(pairs):
            sides = ([side[row] for row in unseen] for side in (pairs.sentence1, pairs.sentence2))
            tests[f"{name}, unseen pairs"] = Pairs(*sides, pairs.gold[unseen])
    methods = {name: measure_model(name, tests) for name in arguments.models}
    for baseline in (Dense(arguments.dense), Bm25(), TfIdf()):
        methods[baseline.name] = measure_baseline(baseline, tests)
    sentences = list(dict.fromkeys(sentence for pairs in tests.values() for sentence in pairs.sentence1))
    rates = speed(arguments.models, arguments.dense, sentences, arguments.rounds)
    result = {"methods": methods, "sentences_per_second": rates, "machine": harness.machine()}
    print("wrote", harness.write(arguments.results / "sts.json", result))
    text = table(methods, list(tests))
    (arguments.results / "sts.md").write_text(text, encoding="utf-8")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="Sparse models.")
    parser.add_argument("--dense", default="minilm", help="A dense model.")
    parser.add_argument("--tests", nargs="+", required=True, metavar="NAME=FILE:LOW:HIGH", help="Graded pairs.")
    parser.add_argument("--trained", nargs="*", type=Path, default=[], help="Files of pairs that were trained on.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    arguments.tests = [parse_test(test) for test in arguments.tests]
    return arguments


def parse_test(test: str) -> tuple[str, Path, tuple[float, float]]:
    name, _, rest = test.partition("=")
    path, low, high = rest.rsplit(":", 2)
    return name, Path(path), (float(low), float(high))


def measure_model(name: str, tests: dict[str, Pairs]) -> dict[str, Any]:
    encoder = SparseStsEncoder.load(name, precision="float32")
    sets: dict[str, Any] = {}
    for test, pairs in tests.items():
        found = evaluate(encoder, pairs)
        sets[test] = {
            "pairs": found.pairs,
            "spearman": found.cosine.spearman,
            "low": found.spearman_interval.low,
            "high": found.spearman_interval.high,
            "pearson": found.cosine.pearson,
            "spearman 8 bits": found.quantized.spearman,
            "dims": found.quantized_active_dims,
        }
        print(name, test, sets[test], flush=True)
    sentences = [sentence for pairs in tests.values() for sentence in (*pairs.sentence1, *pairs.sentence2)]
    vectors = encoder.encode(sentences)
    impacts = Quantizer().quantize(vectors)
    with scratch_index(impacts, encoder.vocabulary.terms) as (_, size):
        index_bytes = size / len(sentences)
    return {"sets": sets, "bytes": index_bytes + 8 * vectors.nnz / len(sentences), "lucene_bytes": index_bytes}


def measure_baseline(baseline: Baseline, tests: dict[str, Pairs]) -> dict[str, Any]:
    sets = {}
    for test, pairs in tests.items():
        similarities = baseline.similarities(pairs.sentence1, pairs.sentence2)
        found, interval = correlation(similarities, pairs.gold), spearman_interval(similarities, pairs.gold)
        sets[test] = {"pairs": len(pairs), "spearman": found.spearman, "low": interval.low, "high": interval.high}
        print(baseline.name, test, sets[test], flush=True)
    dims = load_dense_dims(baseline)
    return {"sets": sets} if dims is None else {"sets": sets, "bytes": 4 * dims, "dims": dims}


def load_dense_dims(baseline: Baseline) -> int | None:
    return int(baseline.what.split()[0]) if isinstance(baseline, Dense) else None


def speed(models: Sequence[str], dense: str, sentences: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Sentences per second by encoder and batch: medians of rounds in which the encoders take turns."""
    encoders: dict[str, Callable[[list[str]], Any]] = {}
    for precision, dtype in _PRECISIONS.items():
        for model in models:
            encoders[f"{model}, {precision}"] = SparseStsEncoder.load(model, precision=precision).encode  # type: ignore[arg-type]
        encoders[f"{dense} (dense), {precision}"] = load_dense(dense).to(dtype).encode
    measured: dict[str, dict[str, list[float]]] = {name: {f"batch {n}": [] for n in _BATCHES} for name in encoders}
    for round_ in range(rounds + 1):
        for batch, count in _BATCHES.items():
            for name, encode in encoders.items():
                start = time.perf_counter()
                for first in range(0, count, batch):
                    encode(list(sentences[first : first + batch]))
                if round_:  # the first warms up
                    measured[name][f"batch {batch}"].append(count / (time.perf_counter() - start))
    rates = {name: {b: statistics.median(values) for b, values in found.items()} for name, found in measured.items()}
    for name, found in rates.items():
        print(f"{name:<28}", "  ".join(f"{batch}: {rate:7.0f}/s" for batch, rate in found.items()), flush=True)
    return rates


def table(methods: dict[str, dict[str, Any]], tests: Sequence[str]) -> str:
    lines = [f"| method | {' | '.join(tests)} | dims, {tests[0]} | bytes per sentence |"]
    lines.append("|---|" + "---:|" * (len(tests) + 2))
    for name, method in methods.items():
        cells = [
            f"{found['spearman']:.4f} ({found['low']:.3f} to {found['high']:.3f})"
            for found in (method["sets"][test] for test in tests)
        ]
        dims = method["sets"][tests[0]].get("dims", method.get("dims"))
        cells += ["" if dims is None else f"{dims:.1f}", f"{method['bytes']:.0f}" if "bytes" in method else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
