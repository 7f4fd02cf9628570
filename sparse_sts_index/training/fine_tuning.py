"""Fine-tune a SPLADE model on graded sentence pairs.

The base of every recipe is that of sentence-transformers' sparse STS example: ``SparseCosineSimilarityLoss`` (the
squared error between cosine and gold score) under ``SpladeLoss`` with the FLOPS regulariser (Paria et al. 2020,
arXiv:2004.05665), which makes every term pay by the square of its mean weight over the batch and so keeps vectors
sparse. What :mod:`sparse_sts_index.training.settings` names goes beyond it: averaged weights, a vocabulary that is held
still, a dense teacher's grades.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import BatchSamplers
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
    set_seed,
)
from transformers.integrations import integration_utils

from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.encoder import SparseStsEncoder
from sparse_sts_index.encoding.model_safety import no_questions
from sparse_sts_index.encoding.models import load_splade, no_progress_bars
from sparse_sts_index.errors import TrainingError
from sparse_sts_index.evaluation.correlation import check_pairs
from sparse_sts_index.evaluation.quality import evaluate_cosine
from sparse_sts_index.training.checkpoints import Checkpoints, pairs_sha256, seal
from sparse_sts_index.training.distillation import distinct_sentences, prepare_lessons, sequential_batches
from sparse_sts_index.training.losses import DistillationLoss, SparseSpladeLoss
from sparse_sts_index.training.model_card import TrainingReport, card_metrics, describe, save
from sparse_sts_index.training.progress import BEST_METRIC, Progress, ScoringProgress, TrainingProgress
from sparse_sts_index.training.settings import TrainingSettings
from sparse_sts_index.training.teachers import TeacherCache
from sparse_sts_index.training.weight_averaging import AveragedWeights

_PUBLISHED_RATE, _PUBLISHED_WIDTH = 5e-5, 768  # of the published recipe, and of the base model it is for


def train(
    output: str | Path,
    train_pairs: Pairs,
    dev_pairs: Pairs,
    test_pairs: Pairs | None = None,
    settings: TrainingSettings | None = None,
    *,
    unlabelled: Sequence[str] = (),
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dataset: str | None = None,
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
    unlabelled : sequence of str
        Sentences that the teacher grades beside those of the pairs.
    cache : str or Path, optional
        Folder for the fine-tuned teacher and its vectors, where other runs with the same pairs and sentences find them
        again. Default: beside the checkpoints, and removed with them.
    resume : bool
        Go on from the last checkpoint of an interrupted run with the same settings and pairs.
    overwrite : bool
        Replace a model that is in `output`, and drop the checkpoints of an interrupted run.
    dataset : str, optional
        What to call the pairs in the model card.
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
        Pairs without scores, or dev or test pairs that all have the same.
    ModelError, HubUnreachableError
        The base model or the teacher does not load.
    TrainingError
        `output` is taken, it or a checkpoint cannot be written, there is nothing to resume or it had other settings,
        the device is not there or lacks bfloat16, a reporting tool is not installed, or `max_length` is beyond the
        base model's.
    """
    settings, output = settings or TrainingSettings(), Path(output).resolve()
    checkpoints = Checkpoints.of_output(output)
    _check_pairs(train_pairs, dev_pairs, test_pairs)
    if unlabelled and settings.teacher is None:
        raise TrainingError("unlabelled sentences are of use with a teacher only: teacher=, --teacher")
    if settings.similarity_floor and settings.teacher is None:
        raise TrainingError("a similarity floor is of use with a teacher only: teacher=, --teacher")
    identity = {**dataclasses.asdict(settings), "data": pairs_sha256(train_pairs, dev_pairs, unlabelled)}
    bfloat16, reporting = _check_device(settings), _check_reporting(report_to)
    checkpoint = checkpoints.check(output, identity, resume, overwrite)

    model, settings = _load(settings)
    describe(model, settings, train_pairs)
    with checkpoints.run(identity, checkpoint):
        teachers = TeacherCache(Path(cache) if cache is not None else checkpoints.folder / "teacher")
        loss, columns = _loss(model, settings, train_pairs, unlabelled, teachers, bfloat16, progress)
        trainer = _Trainer(
            model=model,
            args=_arguments(checkpoints, settings, len(train_pairs), bfloat16, model.device.type == "cpu", reporting),
            train_dataset=Dataset.from_dict(columns),
            loss=loss,
            evaluator=_Evaluator(dev_pairs, "dev"),
            callbacks=_callbacks(model, loss, settings, progress),
        )
        trainer.remove_callback(PrinterCallback)
        with no_progress_bars(), no_questions(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)
            result = trainer.train(resume_from_checkpoint=checkpoint)
    encoder = SparseStsEncoder(model, str(output), precision="float32")
    report = TrainingReport(
        settings=settings,
        dataset=dataset,
        train_pairs=len(train_pairs),
        steps=trainer.state.global_step,
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        seconds=round(result.metrics["train_runtime"], 1),
        fingerprint=encoder.fingerprint,
        dev=evaluate_cosine(encoder, dev_pairs),
        test=evaluate_cosine(encoder, test_pairs) if test_pairs else None,
    )
    # The card's own tables are of the last step; make them of the saved model.
    measured: dict[Any, Any] = model.model_card_data.eval_results_dict or {}
    measured[trainer.evaluator] = card_metrics("dev", report.dev)
    if test_pairs is not None and report.test is not None:
        measured[_Evaluator(test_pairs, "test")] = card_metrics("test", report.test)
    save(model, report, output, overwrite=overwrite)
    checkpoints.remove()
    return report


def _check_pairs(train_pairs: Pairs, dev_pairs: Pairs, test_pairs: Pairs | None) -> None:
    """Refuse pairs without scores, and dev or test pairs that all have the same."""
    train_pairs.columns()
    for pairs in (dev_pairs, test_pairs):
        if pairs is not None:
            check_pairs(pairs)


def _load(settings: TrainingSettings) -> tuple[SparseEncoder, TrainingSettings]:
    """Load the base model as the settings say, and return it with the settings completed by its learning rate."""
    set_seed(settings.seed)  # before loading: a model without a head gets a random one
    model = load_splade(settings.base_model, device=settings.device)
    if settings.max_length is not None:
        if settings.max_length > model.max_seq_length:
            raise TrainingError(f"max length {settings.max_length} is beyond the base model's {model.max_seq_length}")
        model.max_seq_length = settings.max_length
    if settings.max_active_dims is not None:
        model.max_active_dims = settings.max_active_dims
    if settings.dropout is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = settings.dropout
    if settings.freeze_vocabulary:
        _freeze_vocabulary(model)
    return model, dataclasses.replace(settings, learning_rate=settings.learning_rate or _learning_rate(model))


def _loss(
    model: SparseEncoder,
    settings: TrainingSettings,
    train_pairs: Pairs,
    unlabelled: Sequence[str],
    teachers: TeacherCache,
    bfloat16: bool,
    progress: Callable[[TrainingProgress], None] | None,
) -> tuple[SpladeLoss, dict[str, Any]]:
    """Return the loss of a recipe and the columns that it learns from."""
    if settings.teacher is None:
        loss = SparseSpladeLoss(
            model,
            loss=SparseCosineSimilarityLoss(model),
            document_regularizer_weight=settings.regularizer_weight,
            use_document_regularizer_only=True,
        )
        loss.configure(settings)
        return loss, train_pairs.columns()
    teacher = teachers.teacher(
        settings.teacher, train_pairs, settings.teacher_epochs, device=settings.device, bfloat16=bfloat16
    )
    sentences = distinct_sentences(train_pairs, unlabelled)
    scoring = None if progress is None else ScoringProgress(progress, len(sentences))
    vectors = torch.from_numpy(teachers.vectors(teacher, sentences, bfloat16=bfloat16, progress=scoring))
    lessons = prepare_lessons(vectors, sentences, train_pairs, settings)
    return DistillationLoss(model, lessons, settings), lessons.columns


def _check_device(settings: TrainingSettings) -> bool:
    """Whether to train in bfloat16."""
    try:
        device = torch.device(settings.device) if settings.device else None
        if device is not None:
            torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"device {settings.device} cannot be used: {str(error).splitlines()[0]}") from error
    on_gpu = device.type == "cuda" if device is not None else torch.cuda.is_available()
    if settings.precision == "auto":
        return on_gpu and torch.cuda.is_bf16_supported()
    if settings.precision == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise TrainingError("this GPU has no bfloat16; use precision float32")
    return settings.precision == "bfloat16"


def _check_reporting(report_to: Iterable[str]) -> list[str]:
    wanted = list(report_to)
    utilities: Any = integration_utils
    available: list[str] = utilities.get_available_reporting_integrations()
    if missing := [name for name in wanted if name not in available]:
        raise TrainingError(
            f"cannot report to {missing[0]}: not installed or not known to transformers "
            f"(here: {', '.join(available) or 'none'})"
        )
    return wanted


def _arguments(
    checkpoints: Checkpoints,
    settings: TrainingSettings,
    pairs: int,
    bfloat16: bool,
    use_cpu: bool,
    reporting: list[str],
) -> SparseEncoderTrainingArguments:
    assert settings.learning_rate is not None
    eval_steps = settings.eval_steps or max(1, math.ceil(pairs / settings.batch_size) // 4)
    return SparseEncoderTrainingArguments(
        output_dir=str(checkpoints.folder),
        # With a teacher, the rows are of all passes, in their order.
        num_train_epochs=settings.epochs if settings.teacher is None else 1,
        batch_sampler=BatchSamplers.BATCH_SAMPLER if settings.teacher is None else sequential_batches,
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
        load_best_model_at_end=True,
        metric_for_best_model=BEST_METRIC,
        greater_is_better=True,
        logging_steps=eval_steps,
        report_to=reporting or "none",
        disable_tqdm=True,
    )


class _Trainer(SparseEncoderTrainer):
    """Keeps the last checkpoint and the best one, and says in one line that one cannot be written.

    The trainer it derives from would remove the last one in the end, file by file: who is killed while it does is left
    with half a checkpoint.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints = Checkpoints(str(self.args.output_dir))
        with checkpoints.writing():
            super()._save_checkpoint(model, trial)
            seal(checkpoints.folder / f"checkpoint-{self.state.global_step}")
            checkpoints.keep_last_and(self.state.best_model_checkpoint)


class _Evaluator(SparseEmbeddingSimilarityEvaluator):
    """Measures with :func:`evaluate_cosine`; to the trainer and the model card it is what it derives from."""

    def __init__(self, pairs: Pairs, name: str) -> None:
        super().__init__(
            pairs.sentence1,
            pairs.sentence2,
            pairs.gold.tolist(),
            main_similarity=SimilarityFunction.COSINE,
            similarity_fn_names=["cosine"],
            name=name,
            write_csv=False,
        )
        self.primary_metric = f"{name}_spearman_cosine"
        self._pairs = pairs

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        encoder = SparseStsEncoder(model, self.name, precision="float32")
        metrics = card_metrics(self.name, evaluate_cosine(encoder, self._pairs))
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics


def _learning_rate(model: SparseEncoder) -> float:
    """Return the published learning rate for a model's width; see :class:`~.training.settings.TrainingSettings`."""
    transformer: Any = model.transformers_model
    return float(_PUBLISHED_RATE * _PUBLISHED_WIDTH / transformer.config.hidden_size)


def _freeze_vocabulary(model: SparseEncoder) -> None:
    """Leave the rows of the vocabulary as they are, on the way in and on the way out.

    Some thousand pairs move the rows of the words that they hold, and no others: unseen words fall behind.
    """
    transformer: Any = model.transformers_model
    for embeddings in (transformer.get_input_embeddings(), transformer.get_output_embeddings()):
        embeddings.weight.requires_grad_(False)


def _callbacks(
    model: SparseEncoder,
    loss: SpladeLoss,
    settings: TrainingSettings,
    progress: Callable[[TrainingProgress], None] | None,
) -> list[TrainerCallback]:
    # The regulariser's weight rises over the first third of the run, as the trainer would arrange (with a warning).
    callbacks: list[TrainerCallback] = [SpladeRegularizerWeightSchedulerCallback(loss)]
    if settings.averaging:
        callbacks.append(AveragedWeights(model, settings.averaging))
    if settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=settings.patience))
    if progress is not None:
        callbacks.append(Progress(progress))
    return callbacks
