"""Measure how long the search for all pairs above a cosine threshold takes, and how that time grows.

    python benchmarks/duplicates.py --vectors tiny=FOLDER trained=FOLDER --thresholds 0.9 0.8 0.7 0.6 0.5
    python benchmarks/duplicates.py --vectors trained=FOLDER --terms 8 16 32 64 128 --label terms
    python benchmarks/duplicates.py --vectors trained=FOLDER --documents 1000000 5000000 --thresholds 0.9 --label large
    python benchmarks/duplicates.py --vectors trained=FOLDER --label semhash --corpus glosses.jsonl \\
        --semhash-python ENVIRONMENT/bin/python --semhash-model FOLDER

Each FOLDER holds documents.npz (scipy's, CSR). Each case runs ``--rounds`` times, in a process of its own, and the
median counts: seconds from opened vectors to the last pair, on all cores, with the making of what is searched. The
peak memory is that of the process, mapped files included. ``--terms`` keeps the heaviest terms of each document, as
``--max-active-dims`` does. With more ``--documents`` than there are, the rest is resampled (see ``search.py``).

SemHash gets the same sentences, and its own model (any that model2vec reads). It lists the sentences to remove, each
with one sentence to keep. It does not list pairs of two removed sentences.

Writes ``results/duplicates.json`` and a plot of the seconds against the threshold, the documents, or the terms of a
document (for the plot: ``pip install matplotlib``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
from scipy import sparse
from scipy.sparse import csr_array
from search import load, read_json, save_documents


def main() -> None:
    arguments = parse()
    if arguments.worker:
        print(json.dumps(join(arguments.worker, arguments.thresholds[0])))
        return
    if arguments.semhash_worker:
        print(json.dumps(semhash(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cases = list(measure(arguments, Path(folder)))
    name = f"duplicates-{arguments.label}" if arguments.label else "duplicates"
    report = {"machine": harness.machine(), "rounds": arguments.rounds, "cases": cases}
    print("wrote", harness.write(arguments.results / f"{name}.json", report))
    if len(cases) > 1:
        print("wrote", plot(arguments.results / f"{name}.svg", cases))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", nargs="+", metavar="NAME=FOLDER", help="Folders with documents.npz.")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6, 0.5])
    parser.add_argument("--terms", type=int, nargs="+", default=[0], help="Heaviest terms to keep; 0: all.")
    parser.add_argument("--documents", type=int, nargs="+", default=[0], help="Number of documents; 0: all.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, help="For SemHash: the sentences (jsonl), in the order of the vectors.")
    parser.add_argument("--semhash-python", help="Interpreter with semhash installed.")
    parser.add_argument("--semhash-model", type=Path, help="Folder of a model of model2vec.")
    parser.add_argument("--label", help="For the names of what is written.")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--semhash-worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One case after the other."""
    for named in arguments.vectors:
        name, _, path = named.partition("=")
        for documents in arguments.documents:
            for terms in arguments.terms:
                target = folder / f"{name}-{documents}-{terms}"
                facts = {"vectors": name, **write_store(Path(path), documents, terms, target)}
                for threshold in arguments.thresholds:
                    command = [sys.executable, __file__, "--worker", target, "--thresholds", str(threshold)]
                    found = [run(command) for _ in range(arguments.rounds)]
                    seconds = [each["seconds"] for each in found]
                    case = {**found[0], **facts, "threshold": threshold, "all_seconds": seconds}
                    case["seconds"] = statistics.median(seconds)
                    if arguments.semhash_python:
                        case["semhash"] = beside(arguments, target, threshold)
                    print(case, flush=True)
                    yield case


def run(command: list[Any]) -> Any:
    """Return the JSON of the last line that a worker prints."""
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# Ours


def write_store(source: Path, documents: int, terms: int, target: Path) -> dict[str, Any]:
    """Write vectors as an index has them, without Lucene."""
    from sparse_sts_index.storage.vector_files import Extent, VectorWriter
    from sparse_sts_index.vectors.quantizer import keep_largest, l2_normalize

    matrix = csr_array(sparse.load_npz(source / "documents.npz"))
    real = matrix.shape[0]
    if documents > real:
        save_documents(target, matrix, documents)
        matrix = load(target)
    elif documents:
        matrix = matrix[:documents]
    if terms:
        matrix = l2_normalize(keep_largest(matrix, terms))
    target.mkdir(exist_ok=True)
    writer = VectorWriter(target, Extent.empty("vectors"))
    for start in range(0, matrix.shape[0], 1 << 16):
        block = matrix[start : start + (1 << 16)]
        writer.add(block, [str(start + row) for row in range(block.shape[0])])
    extent = writer.extent(durable=False)
    writer.close()
    facts = {"documents": matrix.shape[0], "resampled": matrix.shape[0] > real}
    facts |= {"terms_a_document": matrix.nnz / matrix.shape[0], "kept": terms or None}
    harness.write(target / "store.json", {"extent": extent.to_json(), "vocabulary": matrix.shape[1]})
    return facts


def join(folder: Path, threshold: float) -> dict[str, Any]:
    """All pairs of a store; they are written beside it."""
    from sparse_sts_index.search.similarity_join import similar_rows
    from sparse_sts_index.storage.vector_files import Extent, VectorStore

    facts = read_json(folder / "store.json")
    store = VectorStore(folder, Extent.of_json(facts["extent"])[0], facts["vocabulary"])
    start, count = time.perf_counter(), 0
    pairs_file = folder / f"pairs-{threshold}.i64"
    with pairs_file.open("wb") as file:
        for first, second, _ in similar_rows(store, threshold):
            np.stack([first, second], axis=1).tofile(file)
            count += len(first)
    return {"pairs": count, "seconds": time.perf_counter() - start, "peak_mib": harness.peak_mib()}


# SemHash


def beside(arguments: argparse.Namespace, folder: Path, threshold: float) -> dict[str, Any]:
    """Run SemHash at the same threshold, and count the pairs that both programs find."""
    command = [arguments.semhash_python, __file__, "--semhash-worker", "--thresholds", threshold]
    command += ["--semhash-model", arguments.semhash_model, "--corpus", arguments.corpus]
    found = run(command)
    theirs = {tuple(sorted(pair)) for pair in found.pop("pairs")}
    ours = {(a, b) for a, b in np.fromfile(folder / f"pairs-{threshold}.i64", np.int64).reshape(-1, 2).tolist()}
    both = len(ours & theirs)
    shares = {"of_theirs": both / max(1, len(theirs)), "of_ours": both / max(1, len(ours))}
    return {**found, "pairs": len(theirs), "in_both": both, **shares}


def semhash(arguments: argparse.Namespace) -> dict[str, Any]:
    """Find duplicates with SemHash. Encoding is timed apart, and loading the model is not timed."""
    from model2vec import StaticModel
    from semhash import SemHash

    sentences = [json.loads(line)["text"] for line in arguments.corpus.read_text(encoding="utf-8").splitlines()]
    numbers: dict[str, list[int]] = {}
    for number, sentence in enumerate(sentences):
        numbers.setdefault(sentence, []).append(number)
    model = StaticModel.from_pretrained(arguments.semhash_model)
    start = time.perf_counter()
    index = SemHash.from_records(sentences, model=model)
    middle = time.perf_counter()
    result = index.self_deduplicate(threshold=arguments.thresholds[0])
    end = time.perf_counter()
    pairs = []
    for record in result.filtered:
        pairs += [(a, b) for a in numbers[record.record] for b in numbers[record.duplicate_of] if a != b]
    return {
        "pairs": pairs,
        "taken_out": len(result.filtered),
        "encoding_and_indexing_seconds": middle - start,
        "seconds": end - middle,
        "peak_mib": harness.peak_mib(),
    }


# The plot


def plot(path: Path, cases: list[dict[str, Any]]) -> Path:
    """Seconds against what was varied: terms, documents, or the threshold."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {"kept": "terms a document", "documents": "documents", "threshold": "threshold"}
    varied = next((key for key in ("kept", "documents") if len({case[key] for case in cases}) > 1), "threshold")
    figure, panel = pyplot.subplots(figsize=(7, 4.5))
    lines: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        place = case["terms_a_document"] if varied == "kept" else case[varied]
        line = case["vectors"] if varied == "threshold" else f"{case['vectors']}, {case['threshold']}"
        lines.setdefault(line, []).append((place, case["seconds"]))
    for line, points in lines.items():
        panel.plot(*zip(*sorted(points), strict=True), "o-", label=line)
    panel.set(xlabel=labels[varied], ylabel="seconds", yscale="log")
    if varied != "threshold":
        panel.set_xscale("log")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
