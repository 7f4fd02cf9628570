"""A trained model's folder: the model, its card, and the report of its training."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers.sparse_encoder import SparseEncoder
from sentence_transformers.util import SimilarityFunction

from sparse_sts_index._utils.files import folder_writer, os_errors_as, tensors_written
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.models import no_progress_bars
from sparse_sts_index.errors import TrainingError
from sparse_sts_index.evaluation.quality import CosineEvaluation
from sparse_sts_index.training.settings import TrainingSettings

_REPORT_FILE = "sparse_sts_training.json"


@dataclass(frozen=True)
class TrainingReport:
    """What a training run gave. Saved with the model as ``sparse_sts_training.json``.

    Attributes
    ----------
    settings : TrainingSettings
    dataset : str or None
        Where the pairs came from, as the caller put it.
    train_pairs : int
    steps, best_step : int
        Optimizer steps made, and the one whose checkpoint is the model.
    seconds : float
        Training time, evaluations included; of a resumed run, since it was resumed.
    fingerprint : str
        Of the saved model.
    dev, test : CosineEvaluation or None
        Correlations of the saved model; None where there were no test pairs.
    """

    settings: TrainingSettings
    dataset: str | None
    train_pairs: int
    steps: int
    best_step: int
    seconds: float
    fingerprint: str
    dev: CosineEvaluation
    test: CosineEvaluation | None


def describe(model: SparseEncoder, settings: TrainingSettings, pairs: Pairs) -> None:
    """What the model card generator should not ask the hub, or run the model, for."""
    card = model.model_card_data
    card.local_files_only = True
    card.generate_widget_examples = False
    card.widget = [{"text": sentence} for sentence in pairs.sentence1[:3]]
    card.task_name = "semantic textual similarity and sparse retrieval"
    card.model_name = f"SPLADE for semantic textual similarity, fine-tuned from {settings.base_model}"
    model.similarity_fn_name = SimilarityFunction.COSINE


def card_metrics(name: str, result: CosineEvaluation) -> dict[str, float]:
    """What was measured on a split, as the card generator calls it."""
    return {
        f"{name}_pearson_cosine": result.cosine.pearson,
        f"{name}_spearman_cosine": result.cosine.spearman,
        f"{name}_active_dims": result.active_dims,
        f"{name}_sparsity_ratio": result.sparsity,
    }


def save(model: SparseEncoder, report: TrainingReport, output: Path, *, overwrite: bool) -> None:
    """Save a model with its card and report; the folder appears, or replaces the one before it, complete.

    Raises
    ------
    TrainingError
        It cannot be written.
    """
    with (
        os_errors_as(TrainingError, f"cannot save the model to {output}"),
        folder_writer(output, overwrite=overwrite) as folder,
    ):
        with no_progress_bars(), tensors_written():
            model.save_pretrained(str(folder))
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8")
        before, heading, after = text.partition("## Model Details\n")
        card.write_text(f"{before}{_card_section(report)}\n{heading}{after}", encoding="utf-8")
        (folder / _REPORT_FILE).write_text(
            json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _card_section(report: TrainingReport) -> str:
    lines = [
        "## Semantic textual similarity",
        "",
        "Trained and measured with sparse-sts-index (`sparse-sts train`).",
        "",
        "| split | pairs | Pearson | Spearman | active dims | sparsity |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, result in (("dev", report.dev), ("test", report.test)):
        if result is not None:
            lines.append(
                f"| {name} | {result.pairs:,} | {result.cosine.pearson:.4f} | {result.cosine.spearman:.4f} "
                f"| {result.active_dims:.1f} | {result.sparsity:.4%} |"
            )
    settings = dataclasses.asdict(report.settings)
    lines += [
        "",
        f"{report.train_pairs:,} training pairs{f' of {report.dataset}' if report.dataset else ''}, "
        f"{report.steps:,} steps in {report.seconds:,.0f} s; the checkpoint of "
        f"step {report.best_step:,} had the best dev Spearman. Settings:",
        "",
        "```json",
        json.dumps(settings, indent=2, ensure_ascii=False),
        "```",
        "",
    ]
    return "\n".join(lines)
