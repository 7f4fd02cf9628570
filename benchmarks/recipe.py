"""Do the fused head and ``train`` reach what plain sentence-transformers reaches with the same recipe, files and seed?

    python benchmarks/recipe.py --dataset PATH/TO/STSB --score-range 0 5

trains three times in one run, first with sentence-transformers alone (its published sparse STS recipe: 1 epoch, batch
16, learning rate 5e-5, FLOPS weight 3e-3, the last step is the model), then the same with the fused head and its loss,
then with ``train`` (the same again, but the best checkpoint on dev is the model), measures all on the test pairs with
plain sentence-transformers and writes ``results/recipe.json``. A question of quality; for the time of a step, taken in
turns, see ``train.py``.

What does a recipe of several stages give?

    python benchmarks/recipe.py --recipe sts-mini --data SENTENCES --cache CACHE --output MODELS --seeds 42 1 2 \\
        --dataset PATH/TO/STSB --score-range 0 5 --tests stsb=STSB/test.csv:0:5 sick=SICK.csv:1:5

runs ``sparse-sts train`` with each seed, or takes the model that an earlier run left in ``MODELS``, measures it on each
set of pairs, and writes ``results/recipe-sts-mini.json`` and ``.md``, a table. What is given after ``--`` goes to
``sparse-sts train`` (``-- --teacher FOLDER --precision bfloat16``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
from datasets import Dataset
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.evaluation import SparseEmbeddingSimilarityEvaluator
from sentence_transformers.sparse_encoder.losses import SparseCosineSimilarityLoss, SpladeLoss
from sentence_transformers.util import SimilarityFunction
from sts import measure_model, parse_test

from sparse_sts_index import Pairs, SparseStsEncoder, TrainingSettings, evaluate, load_pairs, train
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.fused_encoder import fuse
from sparse_sts_index.training.losses import SparseSpladeLoss
from sparse_sts_index.training.model_folder import is_model
from sparse_sts_index.training.settings import STAGED_RECIPES
from sparse_sts_index.training.stages import stages_folder


def published(base: str, pairs: dict[str, Pairs], seed: int, folder: str, *, fused: bool) -> dict[str, Any]:
    """Train with the trainer of sentence-transformers."""
    model = SparseEncoder(base)
    train_pairs = pairs["train"]
    kind = SpladeLoss
    if fused:
        fuse(model)
        kind = SparseSpladeLoss
    loss = kind(
        model,
        loss=SparseCosineSimilarityLoss(model),
        document_regularizer_weight=3e-3,
        use_document_regularizer_only=True,
    )
    result = SparseEncoderTrainer(
        model=model,
        args=SparseEncoderTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=16,
            learning_rate=5e-5,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"sentence1": train_pairs.sentence1, "sentence2": train_pairs.sentence2, "score": train_pairs.gold.tolist()}
        ),
        loss=loss,
    ).train()
    model.save_pretrained(folder)
    return {**measure(folder, pairs["test"]), "pairs_per_second": result.metrics["train_samples_per_second"]}


def measure(folder: str, test_pairs: Pairs) -> dict[str, Any]:
    """Test with sentence-transformers only."""
    evaluator = SparseEmbeddingSimilarityEvaluator(
        test_pairs.sentence1,
        test_pairs.sentence2,
        test_pairs.gold.tolist(),
        main_similarity=SimilarityFunction.COSINE,
        similarity_fn_names=["cosine"],
        write_csv=False,
    )
    result = evaluator(SparseEncoder(folder))
    return {
        "pearson": result["pearson_cosine"],
        "spearman": result["spearman_cosine"],
        "active_dims": result["active_dims"],
    }


def run_recipe(arguments: argparse.Namespace) -> None:
    """Train with each seed by the command, and measure."""
    tests = {name: load_pairs(path, score_range=scores) for name, path, scores in map(parse_test, arguments.tests)}
    runs = {}
    for seed in arguments.seeds:
        folder = arguments.output / f"{arguments.recipe}-{seed}"
        command = [sys.executable, "-m", "sparse_sts_index", "train", "--recipe", arguments.recipe, "--no-test"]
        command += ["--data", arguments.data, "--dataset", arguments.dataset, "--seed", str(seed), "--output", folder]
        command += ["--score-range", *map(str, arguments.score_range)] if arguments.score_range else []
        command += ["--cache", arguments.cache] if arguments.cache else []
        command += ["--resume"] if stages_folder(folder).exists() else []
        if not is_model(folder):
            subprocess.run([*map(str, command), *arguments.train], check=True)
        report = json.loads((folder / "sparse_sts_training.json").read_text(encoding="utf-8"))
        runs[seed] = {name: report[name] for name in ("dev", "steps", "best_step", "seconds", "fingerprint")}
        runs[seed] |= measure_model(str(folder), tests)
    name = f"recipe-{arguments.recipe}"
    print("wrote", harness.write(arguments.results / f"{name}.json", {"runs": runs, "machine": harness.machine()}))
    text = seeds_table(runs, list(tests))
    (arguments.results / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def seeds_table(runs: dict[int, dict[str, Any]], tests: list[str]) -> str:
    columns = {"dev": [run["dev"]["cosine"]["spearman"] for run in runs.values()]}
    for test in tests:
        columns[test] = [run["sets"][test]["spearman"] for run in runs.values()]
        columns[f"{test}, 8 bits"] = [run["sets"][test]["spearman 8 bits"] for run in runs.values()]
        columns[f"{test}, dims"] = [run["sets"][test]["dims"] for run in runs.values()]
    lines = [f"| seed | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for number, seed in enumerate(runs):
        lines.append(f"| {seed} | {' | '.join(f'{values[number]:.4f}' for values in columns.values())} |")
    means = [f"{statistics.mean(values):.4f}" for values in columns.values()]
    spreads = [f"{max(values) - min(values):.4f}" for values in columns.values()]
    return "\n".join([*lines, f"| mean | {' | '.join(means)} |", f"| spread | {' | '.join(spreads)} |"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--score-range", nargs=2, type=float, default=None)
    parser.add_argument("--base-model", default="tiny")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--recipe", choices=STAGED_RECIPES, help="A recipe of several stages.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], help="With --recipe.")
    parser.add_argument("--data", type=Path, help="With --recipe: sentences.")
    parser.add_argument("--cache", type=Path, help="With --recipe: folder for the teacher.")
    parser.add_argument("--output", type=Path, help="With --recipe: folder for the models.")
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME=FILE:LOW:HIGH", help="With --recipe.")
    parser.add_argument("train", nargs="*", help="With --recipe: more for sparse-sts train, after --.")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    if arguments.recipe:
        run_recipe(arguments)
        return
    score_range = tuple(arguments.score_range) if arguments.score_range else None
    pairs = {s: load_pairs(arguments.dataset, s, score_range=score_range) for s in ("train", "dev", "test")}
    base = str(tiny_folder()) if arguments.base_model == "tiny" else arguments.base_model
    with tempfile.TemporaryDirectory() as folder:
        reference = published(base, pairs, arguments.seed, f"{folder}/stock", fused=False)
        print("stock", reference)
        with_fused_head = published(base, pairs, arguments.seed, f"{folder}/fused", fused=True)
        print("fused", with_fused_head)
        settings = TrainingSettings(base_model=arguments.base_model, learning_rate=5e-5, seed=arguments.seed)
        report = train(f"{folder}/ours", pairs["train"], pairs["dev"], pairs["test"], settings)
        evaluations = {
            precision: evaluate(SparseStsEncoder.load(f"{folder}/ours", precision=precision), pairs["test"])
            for precision in ("float32", "bfloat16")
        }
        measured = measure(f"{folder}/ours", pairs["test"])
    ours = {
        "with_sentence_transformers": measured,
        **{precision: evaluation.to_dict() for precision, evaluation in evaluations.items()},
        "best_step": report.best_step,
        "dev_spearman": report.dev.cosine.spearman,
    }
    print("ours", ours)
    result = {
        "settings": dataclasses.asdict(settings),
        "train_pairs": len(pairs["train"]),
        "test_pairs": len(pairs["test"]),
        "stock": reference,
        "fused_head": with_fused_head,
        "train": ours,
        "spearman_differences": {
            "fused head": with_fused_head["spearman"] - reference["spearman"],
            "train": measured["spearman"] - reference["spearman"],
            "train, bfloat16 encoding": ours["bfloat16"]["cosine"]["spearman"] - ours["float32"]["cosine"]["spearman"],
        },
        "machine": harness.machine(),
    }
    print(json.dumps(result["spearman_differences"], indent=2))
    print("wrote", harness.write(arguments.results / "recipe.json", result))


if __name__ == "__main__":
    main()
