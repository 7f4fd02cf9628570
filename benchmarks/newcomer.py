"""Does the listing of the sources tell a newcomer where to look?

    python benchmarks/newcomer.py list [--revision REV]
    python benchmarks/newcomer.py grade ANSWERS.json... [--revision REV]

``list`` prints what a newcomer sees: the names of the source files, and 15 tasks. The newcomer has not seen the code,
opens no file, and names one file per task. ``grade`` reads the answers, a JSON list of 15 paths in the order of the
tasks, and prints how many are right. A right answer is the file that holds the definition belonging to the task, which
``git grep`` finds at that revision, so that the tasks stay the same when files move.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path

#: Each task, and a pattern that only its definition matches.
TASKS = (
    ("Change the search request that is sent to Elasticsearch.", r"^class Elasticsearch\("),
    ("Add an option to the command `sparse-sts update`.", r"^def update\($|^def update\(index: Path"),
    ("Read the proof that exact search misses no nearer sentence.", r"\\cos\(u, v\) \\le"),
    ("Change which models are refused as unsafe (pickled weights, code of their own).", r"^def check_model\("),
    ("Change the order in which one commit writes vectors and Lucene's files.", r"^class (Changes|Transaction)\b"),
    ("Accept csv files whose columns are separated by semicolons.", r"^def _?(read_delimited|rows_of_csv)\("),
    ("Change how concurrent HTTP requests are grouped into one batch.", r"^class (Worker|Batcher)\b"),
    ("Change how the HTTP service checks the access token of a request.", r"def _?check_token\("),
    ("Change how a Spark executor keeps its model between two tasks.", r"^def encoder_of\("),
    ("Change the default learning rate of training.", r"^class TrainingSettings\b"),
    ("Change where an installed Java is looked for.", r"^def find_java\("),
    ("Speed up the search for all pairs above a threshold.", r"^def similar_rows\("),
    ("Add a paragraph to the model card of a trained model.", r"^def _card_section\("),
    ("Change how the files of float vectors are checked against their checksums.", r"^class VectorStore\b"),
    ("Add a plot to the HTML report.", r"^def charts\("),
)
FOLDERS = ("sparse_sts_index", "cli")


def git(*arguments: str) -> list[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()


def right_files(revision: str, pattern: str) -> set[str]:
    found = git("grep", "--extended-regexp", "--files-with-matches", pattern, revision, "--", *FOLDERS)
    return {line.partition(":")[2] for line in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("list", "grade"))
    parser.add_argument("answers", nargs="*", type=Path)
    parser.add_argument("--revision", default="HEAD")
    options = parser.parse_args()
    if options.action == "list":
        print("\n".join(git("ls-tree", "-r", "--name-only", options.revision, "--", *FOLDERS)), end="\n\n")
        print("\n".join(f"{number}. {task}" for number, (task, _) in enumerate(TASKS, 1)))
        return
    scores = []
    for file in options.answers:
        wrong = []
        for (task, pattern), answer in zip(TASKS, json.loads(file.read_text(encoding="utf-8")), strict=True):
            right = right_files(options.revision, pattern)
            if answer not in right:
                wrong.append(f"  {task} {answer}, not {' or '.join(sorted(right))}")
        scores.append(len(TASKS) - len(wrong))
        print("\n".join([f"{file}: {scores[-1]} of {len(TASKS)} right", *wrong]))
    print(f"median: {statistics.median(scores):g} of {len(TASKS)}")


if __name__ == "__main__":
    main()
