"""How long is a training step, and what memory does it take, with the fused head and with plain sentence-transformers?

    python benchmarks/train.py --dataset PATH/TO/STSB --score-range 0 5 [--rounds 7]

makes the same steps of the published sparse STS recipe (batches of 16 pairs: tokenize, forward, ``SpladeLoss`` over
``SparseCosineSimilarityLoss``, backward, clip, AdamW) with each engine in turn, in one run (see ``harness.py``), and
writes ``results/train.json`` and ``results/train.svg`` (for the plot: ``pip install matplotlib``). What a whole run
gives is asked by ``recipe.py``. Those in bfloat16 do as ``sparse-sts train --precision bfloat16`` does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

STOCK = "stock"
ENGINES = (STOCK, "stock, bfloat16", "fused, stock loss", "fused", "fused, bfloat16")
BATCH = 16  # pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--score-range", nargs=2, type=float, default=None)
    parser.add_argument("--base-model", default="tiny")
    parser.add_argument("--steps", type=int, default=12, help="Steps a round.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    commands = {name: [sys.executable, __file__, *sys.argv[1:], "--worker", name] for name in ENGINES}
    answers = harness.take_turns(commands, arguments.rounds)
    report: dict[str, Any] = {
        "dataset": arguments.dataset if arguments.dataset == "sample" else "STSb train",
        "base_model": arguments.base_model,
        "pairs_a_step": BATCH,
        "steps_a_round": arguments.steps,
        "machine": harness.machine(),
        "unit": "s a step (median of a round's steps)",
        "engines": {name: harness.summarize(answers[name], "step_seconds") for name in ENGINES},
    }
    for name, engine in report["engines"].items():
        engine["times_stock"] = report["engines"][STOCK]["median"] / engine["median"]
        engine["pairs_per_second"] = BATCH / engine["median"]
        engine["last_loss"] = answers[name][-1]["loss"]
        print(
            f"{name:<18} {engine['median'] * 1e3:7.1f} ms a step, {engine['pairs_per_second']:6.1f} pairs/s  "
            f"x {engine['times_stock']:5.2f}  "
            f"loaded {engine['loaded_mib']:5.0f} MiB, peak {engine['peak_mib']:5.0f} MiB  "
            f"loss {engine['last_loss']:.5f}"
        )
    print("wrote", harness.write(arguments.results / "train.json", report))
    plot = f"Training {arguments.base_model}, {BATCH} pairs a step"
    path = arguments.results / "train.svg"
    print("wrote", harness.bars(path, plot, "pairs/s", report["engines"], "pairs_per_second"))


def work(arguments: argparse.Namespace) -> None:
    """One engine."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.losses import SparseCosineSimilarityLoss, SpladeLoss

    from sparse_sts_index import load_pairs
    from sparse_sts_index.encoding.bundled import tiny_folder
    from sparse_sts_index.encoding.fused_encoder import fuse
    from sparse_sts_index.training.losses import SparseSpladeLoss

    score_range = tuple(arguments.score_range) if arguments.score_range else None
    pairs = load_pairs(arguments.dataset, "train", score_range=score_range)
    order = np.random.default_rng(0).permutation(len(pairs))
    torch.manual_seed(0)
    model = SparseEncoder(str(tiny_folder()) if arguments.base_model == "tiny" else arguments.base_model)
    if not arguments.worker.startswith(STOCK):
        fuse(model)
    kind = SparseSpladeLoss if arguments.worker in ("fused", "fused, bfloat16") else SpladeLoss
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in arguments.worker)
    loss = kind(
        model,
        loss=SparseCosineSimilarityLoss(model),
        document_regularizer_weight=3e-3,
        use_document_regularizer_only=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    model.train()
    done = 0

    def step() -> float:
        nonlocal done
        batch = [order[(done + i) % len(order)] for i in range(BATCH)]
        done += BATCH
        columns = [model.preprocess([column[i] for i in batch]) for column in (pairs.sentence1, pairs.sentence2)]
        with bfloat16:
            total: Any = sum(loss(columns, torch.tensor(pairs.gold[batch], dtype=torch.float32)).values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(total.detach())

    def round_() -> dict[str, Any]:
        seconds, losses = [], []
        for _ in range(arguments.steps):
            start = time.perf_counter()
            losses.append(step())
            seconds.append(time.perf_counter() - start)
        return {"step_seconds": statistics.median(seconds), "loss": statistics.mean(losses)}

    harness.serve(round_)


if __name__ == "__main__":
    main()
