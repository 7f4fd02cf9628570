"""Where a running training stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: What the trainer calls Spearman's rho on the dev pairs.
BEST_METRIC = "eval_dev_spearman_cosine"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a running training stands.

    Attributes
    ----------
    step, total_steps : int
        Optimizer steps done, and in all; of the teacher, sentences.
    loss : float or None
        Training loss of the last logging interval.
    dev_spearman : float or None
        Spearman's rho on the dev pairs at the last evaluation.
    stage : {"teacher", "training"}
        Whether the teacher encodes sentences, or the model is trained.
    part : str
        Which part of a recipe of several this is; empty for one of a single part.
    """

    step: int
    total_steps: int
    loss: float | None = None
    dev_spearman: float | None = None
    stage: Literal["teacher", "training"] = "training"
    part: str = ""


class ScoringProgress:
    """Report how many sentences the teacher has encoded.

    Parameters
    ----------
    report : callable
    total : int
        Number of sentences.
    """

    def __init__(self, report: Callable[[TrainingProgress], None], total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, count: int) -> None:
        """Report that more sentences are encoded."""
        self._done += count
        self._report(TrainingProgress(self._done, self._total, stage="teacher"))


class Progress(TrainerCallback):
    """Passes on where the trainer stands."""

    def __init__(self, report: Callable[[TrainingProgress], None]) -> None:
        self._report = report
        self._loss: float | None = None
        self._dev_spearman: float | None = None

    def _send(self, state: TrainerState) -> None:
        self._report(TrainingProgress(state.global_step, state.max_steps, self._loss, self._dev_spearman))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        self._send(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A loss is known."""
        self._loss = kwargs["logs"].get("loss", self._loss)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """It was measured on the dev pairs."""
        self._dev_spearman = kwargs["metrics"].get(BEST_METRIC, self._dev_spearman)
        self._send(state)
