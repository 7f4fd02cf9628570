"""Count the test sentences that also occur, exactly or nearly, in what a model is trained on.

    python benchmarks/leakage.py --sentences DIR/unlabelled/*.txt.gz --pairs DIR/pairs/*.csv.gz STSB/train.csv \\
        --tests stsb=STSB/test.csv sick=SICK.csv sts16=STS16.csv

For each test set, the number of its different sentences that are in the training data as they stand (exact), as far as
letters and digits go (folded), with eight words in a row in common (8-gram; all words of a shorter sentence), or with a
cosine of at least 0.9 to a training sentence (near; vectors of ``--model``, the library's join, exact). And the number
of test pairs that are also a training pair, folded, in either order.
Writes ``results/leakage.json``, which also has the counts by training file.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

from sparse_sts_index import Pairs, SparseStsEncoder, load_pairs, read_corpus
from sparse_sts_index.search.similarity_join import similar_rows_between
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter

WORDS = 8
_CHUNK = 50_000  # sentences encoded at a time
ANY_SCORE = (-1e9, 1e9)  # any scale of grades


def main() -> None:
    arguments = parse()
    sources = {path.name: [document.text for document in read_corpus(path)] for path in arguments.sentences}
    trained_pairs = set()
    for path in arguments.pairs:
        pairs = load_pairs(path, score_range=ANY_SCORE)
        sources[path.name] = [*pairs.sentence1, *pairs.sentence2]
        trained_pairs.update(pair_keys(pairs))
    trained = list(dict.fromkeys(sentence for sentences in sources.values() for sentence in sentences))
    print(f"{len(trained):,} different training sentences in {len(sources)} files", flush=True)
    encoder = SparseStsEncoder.load(arguments.model)
    exact, folded = set(trained), {fold(sentence) for sentence in trained}
    grams = {gram for sentence in trained for gram in word_grams(sentence)}
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        store = stored(encoder, trained, Path(folder) / "trained")
        for name, path in arguments.tests.items():
            pairs = load_pairs(path, score_range=ANY_SCORE)
            tested = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
            near = set()
            for rows, *_ in similar_rows_between(
                stored(encoder, tested, Path(folder) / name), store, arguments.threshold
            ):
                near.update(rows.tolist())
            keys = {fold(sentence) for sentence in tested}
            tables[name] = {
                "sentences": len(tested),
                "exact": sum(sentence in exact for sentence in tested),
                "folded": sum(fold(sentence) in folded for sentence in tested),
                "8-gram": sum(any(gram in grams for gram in word_grams(sentence)) for sentence in tested),
                "near": len(near),
                "pairs": len(pairs),
                "trained pairs": sum(key in trained_pairs for key in pair_keys(pairs)),
                "folded, by file": {
                    source: count
                    for source, sentences in sources.items()
                    if (count := len(keys & {fold(sentence) for sentence in sentences}))
                },
            }
            print(name, {key: value for key, value in tables[name].items() if key != "folded, by file"}, flush=True)
    result: dict[str, Any] = {
        "trained_on": {source: len(sentences) for source, sentences in sources.items()},
        "different": len(trained),
        "model": arguments.model,
        "threshold": arguments.threshold,
        "tests": tables,
    }
    print("wrote", harness.write(arguments.results / "leakage.json", result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", nargs="*", type=Path, default=[], help="Files of unlabelled sentences.")
    parser.add_argument("--pairs", nargs="*", type=Path, default=[], help="Files of graded pairs.")
    parser.add_argument("--tests", nargs="+", required=True, metavar="NAME=FILE", help="Files of graded test pairs.")
    parser.add_argument("--model", default="tiny", help="Model of the vectors that near duplicates are found by.")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    arguments.tests = {name: Path(path) for name, path in (test.split("=", 1) for test in arguments.tests)}
    return arguments


def fold(sentence: str) -> str:
    """Return the letters and digits of a sentence, case-folded."""
    return re.sub(r"[\W_]+", "", sentence.casefold())


def pair_keys(pairs: Pairs) -> list[frozenset[str]]:
    """Return for each pair what is the same for pairs of the same folded sentences, in either order."""
    return [frozenset(map(fold, pair)) for pair in zip(pairs.sentence1, pairs.sentence2, strict=True)]


def word_grams(sentence: str) -> Iterator[int]:
    """Yield a hash of each run of eight words, case-folded; of a shorter sentence, of all its words."""
    words = re.findall(r"\w+", sentence.casefold())
    for start in range(max(1, len(words) - WORDS + 1)):
        yield hash(tuple(words[start : start + WORDS]))


def stored(encoder: SparseStsEncoder, sentences: list[str], path: Path) -> VectorStore:
    """Return the float vectors of sentences in files."""
    writer = VectorWriter(path, Extent.empty("vectors"))
    for start in range(0, len(sentences), _CHUNK):
        chunk = sentences[start : start + _CHUNK]
        writer.add(encoder.encode(chunk), [str(start + row) for row in range(len(chunk))])
    extent = writer.extent(durable=False)
    writer.close()
    return VectorStore(path, extent, len(encoder.vocabulary))


if __name__ == "__main__":
    main()
