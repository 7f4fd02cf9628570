"""Fine-tune a SPLADE model on graded sentence pairs.

The recipe is that of sentence-transformers' sparse STS example: ``SparseCosineSimilarityLoss`` (the squared error
between cosine and gold score) under ``SpladeLoss`` with the FLOPS regulariser (Paria et al. 2020, arXiv:2004.05665),
which makes every term pay by the square of its mean weight over the batch and so keeps vectors sparse.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from sentence_transformers.sparse_encoder import (
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.evaluation import SparseEmbeddingSimilarityEvaluator
from sentence_transformers.sparse_encoder.losses import SparseCosineSimilarityLoss, SpladeLoss
from sentence_transformers.util import SimilarityFunction
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from sparse_sts_index.encoder import SparseStsEncoder
from sparse_sts_index.errors import ModelError
from sparse_sts_index.evaluation import CosineEvaluation, evaluate_cosine
from sparse_sts_index.files import atomic_writer
from sparse_sts_index.models import DEFAULT_BASE_MODEL, load_splade, no_progress_bars
from sparse_sts_index.pairs import Pairs

Precision = Literal["auto", "float32", "bfloat16"]
_BEST_METRIC = "eval_dev_spearman_cosine"
_SETTINGS_FILE = "settings.json"
_REPORT_FILE = "sparse_sts_training.json"


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what a training run gives, apart from the pairs.

    Attributes
    ----------
    base_model : str
        Folder, hub id or ``"tiny"``.
    epochs : float
        Passes over the training pairs.
    batch_size : int
        Pairs a step.
    learning_rate : float
        Peak of the linear schedule.
    warmup : float
        Share of the steps, 0..1, over which the learning rate rises from zero.
    regularizer_weight : float
        Weight of the FLOPS regulariser against the cosine loss; larger is sparser.
    max_length : int, optional
        Longest input in tokens; longer sentences are cut. Default: the base model's own.
    seed : int
        Seeds initialisation, shuffling and dropout; on a CPU it decides the result to the bit.
    device : str, optional
        A torch device. Default: a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}
        ``"bfloat16"`` trains under bfloat16 autocast; ``"auto"`` does so on a GPU that has it, and nowhere else.
    eval_steps : int, optional
        Steps between evaluations on the dev pairs, each with a checkpoint. Default: a quarter of an epoch.
    patience : int, optional
        Stop after this many evaluations without a better dev Spearman. Default: never.
    """

    base_model: str = DEFAULT_BASE_MODEL
    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float = 5e-5
    warmup: float = 0.0
    regularizer_weight: float = 3e-3
    max_length: int | None = None
    seed: int = 42
    device: str | None = None
    precision: Precision = "auto"
    eval_steps: int | None = None
    patience: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a running training stands.

    Attributes
    ----------
    step, total_steps : int
        Optimizer steps done, and in all.
    loss : float or None
        Training loss of the last logging interval.
    dev_spearman : float or None
        Spearman's rho on the dev pairs at the last evaluation.
    """

    step: int
    total_steps: int
    loss: float | None = None
    dev_spearman: float | None = None


@dataclass(frozen=True)
class TrainingReport:
    """What a training run gave. Saved with the model as ``sparse_sts_training.json``.

    Attributes
    ----------
    settings : TrainingSettings
    train_pairs : int
    steps, best_step : int
        Optimizer steps made, and the one whose checkpoint is the model.
    seconds : float
        Training time, evaluations included.
    fingerprint : str
        Of the saved model.
    dev, test : CosineEvaluation or None
        Correlations of the saved model; None where there were no test pairs.
    """

    settings: TrainingSettings
    train_pairs: int
    steps: int
    best_step: int
    seconds: float
    fingerprint: str
    dev: CosineEvaluation
    test: CosineEvaluation | None


def train(
    output: str | Path,
    train_pairs: Pairs,
    dev_pairs: Pairs,
    test_pairs: Pairs | None = None,
    settings: TrainingSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report_to: Iterable[str] = (),
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingReport:
    """Fine-tune a model and save the checkpoint with the best dev Spearman.

    The model is saved with ``save_pretrained`` and loads in plain sentence-transformers. Its folder appears in one
    step, complete, when all is done. Until then checkpoints are kept beside it in ``<output>.checkpoints``, from which
    an interrupted run can be resumed; they are removed at the end.

    Parameters
    ----------
    output : str or Path
        Folder for the model.
    train_pairs, dev_pairs : Pairs
        With scores. The dev pairs choose the checkpoint.
    test_pairs : Pairs, optional
        Only measured on, once, at the end.
    settings : TrainingSettings, optional
    resume : bool
        Go on from the last checkpoint of an interrupted run with the same settings.
    overwrite : bool
        Replace a model that is in `output`, and drop the checkpoints of an interrupted run.
    report_to : iterable of str
        Integrations of the transformers Trainer, such as ``"wandb"`` or ``"tensorboard"``.
    progress : callable, optional
        Called after each step and evaluation.

    Returns
    -------
    TrainingReport

    Raises
    ------
    DataError
        Pairs without scores.
    ModelError
        The base model does not load, `output` is taken, there is nothing to resume or it had other settings, or the
        device is not there or lacks bfloat16.
    """
    settings = settings or TrainingSettings()
    output = Path(output)
    checkpoints = output.with_name(output.name + ".checkpoints")
    steps_per_epoch = math.ceil(len(train_pairs) / settings.batch_size)
    eval_steps = settings.eval_steps or max(1, steps_per_epoch // 4)
    bfloat16 = _check_device(settings)
    last_checkpoint = _prepare_output(output, checkpoints, settings, resume, overwrite)
    columns = _columns(train_pairs)

    set_seed(settings.seed)  # before loading: a model without a head gets a random one
    model = load_splade(settings.base_model, device=settings.device)
    if settings.max_length is not None:
        model.max_seq_length = settings.max_length
    _describe(model, settings, train_pairs)
    fresh_checkpoints = not checkpoints.exists()
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        with atomic_writer(checkpoints / _SETTINGS_FILE) as file:
            json.dump(dataclasses.asdict(settings), file, indent=2)
        loss = SpladeLoss(
            model,
            loss=SparseCosineSimilarityLoss(model),
            document_regularizer_weight=settings.regularizer_weight,
            use_document_regularizer_only=True,
        )
        trainer = SparseEncoderTrainer(
            model=model,
            args=_arguments(checkpoints, settings, eval_steps, bfloat16, model.device.type == "cpu", report_to),
            train_dataset=Dataset.from_dict(columns),
            loss=loss,
            evaluator=_evaluator(dev_pairs, settings),
            callbacks=_callbacks(loss, settings, progress),
        )
        trainer.remove_callback(PrinterCallback)
        with no_progress_bars(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)
            result = trainer.train(resume_from_checkpoint=last_checkpoint)
    except BaseException:
        if fresh_checkpoints and _last_checkpoint(checkpoints) is None:
            shutil.rmtree(checkpoints, ignore_errors=True)
        raise
    encoder = SparseStsEncoder(model, str(output))
    report = TrainingReport(
        settings=settings,
        train_pairs=len(train_pairs),
        steps=trainer.state.global_step,
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        seconds=round(result.metrics["train_runtime"], 1),
        fingerprint=encoder.fingerprint,
        dev=evaluate_cosine(encoder, dev_pairs),
        test=evaluate_cosine(encoder, test_pairs) if test_pairs else None,
    )
    _save(model, report, output)
    shutil.rmtree(checkpoints)
    return report


def _columns(pairs: Pairs) -> dict[str, list[Any]]:
    return {"sentence1": pairs.sentence1, "sentence2": pairs.sentence2, "score": pairs.gold.tolist()}


def _check_device(settings: TrainingSettings) -> bool:
    """Whether to train in bfloat16."""
    try:
        device = torch.device(settings.device) if settings.device else None
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {settings.device} cannot be used: {str(error).splitlines()[0]}") from error
    on_gpu = device.type == "cuda" if device is not None else torch.cuda.is_available()
    if settings.precision == "auto":
        return on_gpu and torch.cuda.is_bf16_supported()
    if settings.precision == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ModelError("this GPU has no bfloat16; use precision float32")
    return settings.precision == "bfloat16"


def _prepare_output(
    output: Path, checkpoints: Path, settings: TrainingSettings, resume: bool, overwrite: bool
) -> str | None:
    """Refuse what must not be overwritten; the checkpoint to resume from, if any."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            raise ModelError(f"{output} already exists; replace it with overwrite=True, --overwrite")
        if not (output / "modules.json").is_file():
            raise ModelError(f"{output} is not a model folder; it will not be overwritten")
    last = _last_checkpoint(checkpoints)
    if resume:
        if last is None:
            raise ModelError(f"nothing to resume: no checkpoint in {checkpoints}")
        before = json.loads((checkpoints / _SETTINGS_FILE).read_text(encoding="utf-8"))
        now = dataclasses.asdict(settings)
        if changed := [f"{name} {before.get(name)} (now {now[name]})" for name in now if now[name] != before.get(name)]:
            raise ModelError(f"cannot resume {output}: it was started with {', '.join(changed)}")
        return last
    if last is not None and not overwrite:
        raise ModelError(
            f"an interrupted run is in {checkpoints}: go on with resume=True, --resume, "
            "or start again with overwrite=True, --overwrite"
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return None


def _last_checkpoint(checkpoints: Path) -> str | None:
    find: Any = get_last_checkpoint
    last: str | None = find(str(checkpoints)) if checkpoints.is_dir() else None
    return last


def _arguments(
    checkpoints: Path,
    settings: TrainingSettings,
    eval_steps: int,
    bfloat16: bool,
    use_cpu: bool,
    report_to: Iterable[str],
) -> SparseEncoderTrainingArguments:
    return SparseEncoderTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,  # below 1: a share of all steps
        seed=settings.seed,
        bf16=bfloat16,
        use_cpu=use_cpu,
        eval_strategy="steps",
        eval_steps=eval_steps,
        save_strategy="steps",
        save_steps=eval_steps,
        save_total_limit=1,  # and the best one
        load_best_model_at_end=True,
        metric_for_best_model=_BEST_METRIC,
        greater_is_better=True,
        logging_steps=eval_steps,
        report_to=list(report_to) or "none",
        disable_tqdm=True,
    )


def _evaluator(pairs: Pairs, settings: TrainingSettings) -> SparseEmbeddingSimilarityEvaluator:
    return SparseEmbeddingSimilarityEvaluator(
        pairs.sentence1,
        pairs.sentence2,
        pairs.gold.tolist(),
        batch_size=2 * settings.batch_size,
        main_similarity=SimilarityFunction.COSINE,
        similarity_fn_names=["cosine"],
        name="dev",
        write_csv=False,
    )


def _callbacks(
    loss: SpladeLoss, settings: TrainingSettings, progress: Callable[[TrainingProgress], None] | None
) -> list[TrainerCallback]:
    # The regulariser's weight rises over the first third of the run, as the trainer would arrange (with a warning).
    callbacks: list[TrainerCallback] = [SpladeRegularizerWeightSchedulerCallback(loss)]
    if settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    if progress is not None:
        callbacks.append(_Progress(progress))
    return callbacks


class _Progress(TrainerCallback):
    """Passes on where the trainer stands."""

    def __init__(self, report: Callable[[TrainingProgress], None]) -> None:
        self._report = report
        self._loss: float | None = None
        self._dev_spearman: float | None = None

    def _send(self, state: TrainerState) -> None:
        self._report(TrainingProgress(state.global_step, state.max_steps, self._loss, self._dev_spearman))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._send(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._loss = kwargs["logs"].get("loss", self._loss)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._dev_spearman = kwargs["metrics"].get(_BEST_METRIC, self._dev_spearman)
        self._send(state)


def _describe(model: SparseEncoder, settings: TrainingSettings, pairs: Pairs) -> None:
    """What the model card generator should not ask the hub, or run the model, for."""
    card = model.model_card_data
    card.local_files_only = True
    card.generate_widget_examples = False
    card.widget = [{"text": sentence} for sentence in pairs.sentence1[:3]]
    card.task_name = "semantic textual similarity and sparse retrieval"
    card.model_name = f"SPLADE for semantic textual similarity, fine-tuned from {settings.base_model}"
    model.similarity_fn_name = SimilarityFunction.COSINE


def _save(model: SparseEncoder, report: TrainingReport, output: Path) -> None:
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with no_progress_bars():
            model.save_pretrained(str(partial))
        card = partial / "README.md"
        text = card.read_text(encoding="utf-8")
        before, heading, after = text.partition("## Model Details\n")
        card.write_text(f"{before}{_card_section(report)}\n{heading}{after}", encoding="utf-8")
        (partial / _REPORT_FILE).write_text(
            json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except OSError as error:
        raise ModelError(f"cannot save the model to {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        f"{report.train_pairs:,} training pairs, {report.steps:,} steps in {report.seconds:,.0f} s; the checkpoint of "
        f"step {report.best_step:,} had the best dev Spearman. Settings:",
        "",
        "```json",
        json.dumps(settings, indent=2, ensure_ascii=False),
        "```",
        "",
    ]
    return "\n".join(lines)
