"""Does ``train`` reach what plain sentence-transformers reaches with the same recipe, files and seed?

    python benchmarks/recipe.py --dataset PATH/TO/STSB --score-range 0 5

trains twice in one run, first with sentence-transformers alone (its published sparse STS recipe: 1 epoch, batch 16,
learning rate 5e-5, FLOPS weight 3e-3, the last step is the model), then with this package (the same, but the best
checkpoint on dev is the model), measures both on the test pairs and writes ``results/recipe.json``. A question of
quality: nothing is timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.evaluation import SparseEmbeddingSimilarityEvaluator
from sentence_transformers.sparse_encoder.losses import SparseCosineSimilarityLoss, SpladeLoss
from sentence_transformers.util import SimilarityFunction

from sparse_sts_index import Pairs, SparseStsEncoder, TrainingSettings, evaluate, load_pairs, train
from sparse_sts_index.models import tiny_folder

RESULTS = Path(__file__).parent / "results" / "recipe.json"


def stock(base: str, pairs: dict[str, Pairs], seed: int, folder: str) -> dict[str, Any]:
    """Train and test with sentence-transformers only."""
    model = SparseEncoder(base)
    train_pairs, test_pairs = pairs["train"], pairs["test"]
    loss = SpladeLoss(
        model,
        loss=SparseCosineSimilarityLoss(model),
        document_regularizer_weight=3e-3,
        use_document_regularizer_only=True,
    )
    SparseEncoderTrainer(
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
    evaluator = SparseEmbeddingSimilarityEvaluator(
        test_pairs.sentence1,
        test_pairs.sentence2,
        test_pairs.gold.tolist(),
        main_similarity=SimilarityFunction.COSINE,
        similarity_fn_names=["cosine"],
        write_csv=False,
    )
    result = evaluator(model)
    return {
        "pearson": result["pearson_cosine"],
        "spearman": result["spearman_cosine"],
        "active_dims": result["active_dims"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--score-range", nargs=2, type=float, default=None)
    parser.add_argument("--base-model", default="tiny")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    score_range = tuple(arguments.score_range) if arguments.score_range else None
    pairs = {s: load_pairs(arguments.dataset, s, score_range=score_range) for s in ("train", "dev", "test")}
    base = str(tiny_folder()) if arguments.base_model == "tiny" else arguments.base_model
    with tempfile.TemporaryDirectory() as folder:
        reference = stock(base, pairs, arguments.seed, f"{folder}/stock")
        print("stock", reference)
        settings = TrainingSettings(base_model=arguments.base_model, seed=arguments.seed)
        report = train(f"{folder}/ours", pairs["train"], pairs["dev"], pairs["test"], settings)
        evaluation = evaluate(SparseStsEncoder.load(f"{folder}/ours"), pairs["test"])
    ours = {
        **evaluation.to_dict(),
        "best_step": report.best_step,
        "dev_spearman": report.dev.cosine.spearman,
    }
    print("ours", ours)
    result = {
        "settings": dataclasses.asdict(settings),
        "train_pairs": len(pairs["train"]),
        "test_pairs": len(pairs["test"]),
        "stock": reference,
        "ours": ours,
        "spearman_difference": ours["cosine"]["spearman"] - reference["spearman"],
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"test Spearman: stock {reference['spearman']:.4f}, ours {ours['cosine']['spearman']:.4f}; wrote {RESULTS}")


if __name__ == "__main__":
    main()
