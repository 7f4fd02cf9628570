"""The average of a model's weights over a training run, which does better on unseen pairs than where a run ends.

The exponential moving average of Polyak and Juditsky (1992) as it is used with Adam: after each step,
:math:`a := d a + (1 - d) w` for decay :math:`d`. What is evaluated, saved and chosen is the average; what is trained
on is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparse_sts_index.errors import TrainingError
from sparse_sts_index.training.checkpoints import Checkpoints

_RAW_FILES = "trained-*.safetensors"  # beside the checkpoints, whose models are averages
_WARM_UP = 10  # the decay is at most (1 + step) / (10 + step), so that the average soon forgets where it began


class AveragedWeights(TrainerCallback):
    """Puts the averaged weights into the model whenever it is evaluated or saved, and takes them out again.

    Parameters
    ----------
    model : nn.Module
        The one that is trained.
    decay : float
        0..1; the average is over about ``1 / (1 - decay)`` steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._decay = decay
        self._average = self._copy()
        self._aside: dict[str, Tensor] | None = None  # the trained weights, while the averaged ones are in the model

    def _copy(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the weights of a checkpoint, if there is one to go on from.

        Raises
        ------
        TrainingError
            They are not there, or cannot be read.
        """
        self._average = self._copy()
        if state.global_step:
            raw = _raw_file(args, state)
            try:
                self._put(load_file(raw))
            except (OSError, SafetensorError, KeyError) as error:
                raise TrainingError(f"cannot resume: {raw} cannot be read; start again with --overwrite") from error

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Train on with the weights that are trained."""
        if self._aside is not None:
            self._put(self._aside)
            self._aside = None

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the step into the average, and put that into the model if it is to be looked at."""
        decay = min(self._decay, (1 + state.global_step) / (_WARM_UP + state.global_step))
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, 1 - decay)
        last = state.global_step >= state.max_steps
        if control.should_evaluate or control.should_save or last:
            self._aside = self._copy()
            if control.should_save or last:  # before the checkpoint, which is never there without them
                raw = _raw_file(args, state)
                with Checkpoints(str(args.output_dir)).writing():
                    save_file(self._aside, raw.with_suffix(".partial"))
                    raw.with_suffix(".partial").replace(raw)
            self._put(self._average)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remove the trained weights of checkpoints that are gone."""
        folder = Path(str(args.output_dir))
        for raw in folder.glob(_RAW_FILES):
            if not (folder / raw.stem.replace("trained-", "checkpoint-")).is_dir():
                raw.unlink()


def _raw_file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"trained-{state.global_step}.safetensors"
