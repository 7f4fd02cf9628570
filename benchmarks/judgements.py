"""Let people judge what models call the same, and the terms that they give for it, without knowing which model it is.

    python benchmarks/judgements.py draw --models tiny mini --collection glosses.jsonl.gz --sheets DIR

draws, for each model, ``--count`` random pairs of the collection with a cosine of at least ``--threshold``; and, of the
embedded sample, ``--count`` random pairs that people graded 0.5 or more, the same for every model, with the five shared
terms that add most. It writes ``DIR/duplicates.tsv`` and ``DIR/explanations.tsv``, shuffled and without the models'
names, and ``DIR/key.json``. In the first column of both, a judge writes 1 or 0 for each line: do the sentences say the
same? Would a person accept the terms as the reason? Then

    python benchmarks/judgements.py count --sheets DIR

writes the sums to ``results/judgements.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path

import harness

from sparse_sts_index import SparseStsEncoder, SparseStsIndex, explain_pair, load_pairs, read_corpus

_SHEETS = ("duplicates", "explanations")
_TERMS = 5
_GRADE = 0.5
Line = tuple[str, str, str]  # model, and what is shown: two sentences; or both and the terms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "count"))
    parser.add_argument("--sheets", type=Path, required=True, help="Folder for the sheets.")
    parser.add_argument("--models", nargs="+", default=["tiny", "mini"])
    parser.add_argument("--collection", type=Path, help="Sentences.")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    if arguments.what == "draw":
        draw(arguments)
    else:
        count(arguments.sheets, arguments.results)


def draw(arguments: argparse.Namespace) -> None:
    arguments.sheets.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    pairs = [load_pairs("sample", split) for split in ("train", "dev", "test")]
    graded = [graded for part in pairs for graded in zip(part.sentence1, part.sentence2, part.gold, strict=True)]
    chosen = rng.sample([(a, b) for a, b, gold in graded if gold >= _GRADE], arguments.count)
    lines: dict[str, list[Line]] = {name: [] for name in _SHEETS}
    found = {}
    for model in arguments.models:
        encoder = SparseStsEncoder.load(model)
        vectors = [encoder.encode(list(side)) for side in zip(*chosen, strict=True)]
        for row, (a, b) in enumerate(chosen):
            terms = explain_pair(encoder.vocabulary, vectors[0][[row]], vectors[1][[row]])[:_TERMS]
            lines["explanations"].append((model, f"{a} | {b}", " ".join(term.term for term in terms)))
        with (
            tempfile.TemporaryDirectory() as folder,
            SparseStsIndex.build(f"{folder}/idx", read_corpus(arguments.collection), encoder) as index,
        ):
            same = [(pair.first.text, pair.second.text) for pair in index.duplicates(arguments.threshold)]
        found[model] = len(same)
        lines["duplicates"] += [(model, a, b) for a, b in rng.sample(same, arguments.count)]
        print(f"{model}: {len(same):,} pairs from {arguments.threshold} on", flush=True)
    key = {"threshold": arguments.threshold, "pairs": found}
    for name, sheet in lines.items():
        rng.shuffle(sheet)
        with (arguments.sheets / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t").writerows(("", *shown) for _, *shown in sheet)
        key[name] = [model for model, *_ in sheet]
    (arguments.sheets / "key.json").write_text(json.dumps(key), encoding="utf-8")


def count(sheets: Path, results: Path) -> None:
    key = json.loads((sheets / "key.json").read_text(encoding="utf-8"))
    report = {"threshold": key["threshold"], "pairs": key["pairs"]}
    for name in _SHEETS:
        with (sheets / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            verdicts = [int(row[0]) for row in csv.reader(file, delimiter="\t")]
        by_model = defaultdict(list)
        for model, verdict in zip(key[name], verdicts, strict=True):
            by_model[model].append(verdict)
        report[name] = {model: {"judged": len(them), "accepted": sum(them)} for model, them in by_model.items()}
        print(name, report[name])
    print("wrote", harness.write(results / "judgements.json", report))


if __name__ == "__main__":
    main()
