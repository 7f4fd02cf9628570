"""The settings of a training run, and named ones that do well; apart from the training itself, which imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sparse_sts_index._utils.hub import DEFAULT_BASE_MODEL
from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.vectors.spec import Precision


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what a training run gives, apart from the pairs.

    Attributes
    ----------
    base_model : str
        Folder, hub id or the name of a model that pip brings.
    epochs : float
        Passes over the training pairs.
    batch_size : int
        Pairs a step.
    learning_rate : float, optional
        Peak of the linear schedule. Default: 5e-5 for a hidden size of 768, which is the published one, and for other
        sizes in inverse proportion (as of Yang et al. 2022, arXiv:2203.03466): 1e-4 for 384, 3e-4 for 128.
    warmup : float
        Share of the steps, 0..1, over which the learning rate rises from zero.
    regularizer_weight : float
        Weight of the FLOPS regulariser against the cosine loss; larger is sparser.
    freeze_vocabulary : bool
        Train all but the embeddings of the vocabulary, which hold most of a small model's parameters: pairs move the
        words that they hold away from those that they do not.
    averaging : float
        Decay of the moving average of the weights, 0..1, which is then the model; 0: no average.
    teacher : str, optional
        A dense model whose similarities are learnt beside the gold scores; see :mod:`.training.distillation`.
        Folder, hub id or ``"minilm"``.
    teacher_epochs : float
        Passes over the training pairs by which the teacher itself is fine-tuned first.
    teacher_weight : float
        Weight of the teacher's grades against the gold scores.
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

    Raises
    ------
    ValueError
        A number is out of its range, or not finite.
    """

    base_model: str = DEFAULT_BASE_MODEL
    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float | None = None
    warmup: float = 0.0
    regularizer_weight: float = 3e-3
    freeze_vocabulary: bool = False
    averaging: float = 0.0
    teacher: str | None = None
    teacher_epochs: float = 0.0
    teacher_weight: float = 1.5
    max_length: int | None = None
    seed: int = 42
    device: str | None = None
    precision: Precision = "auto"
    eval_steps: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        check_real("epochs", self.epochs, 0, 1e6, above=True)
        check_real("warmup", self.warmup, 0, 1)
        check_real("regularizer_weight", self.regularizer_weight, 0)
        check_real("averaging", self.averaging, 0, 1)
        check_real("teacher_epochs", self.teacher_epochs, 0, 1e6)
        check_real("teacher_weight", self.teacher_weight, 0, above=True)
        if self.learning_rate is not None:
            check_real("learning_rate", self.learning_rate, 0, above=True)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        for name in ("max_length", "eval_steps", "patience"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 3 if name == "max_length" else 1)


#: Settings by name; see ``docs/recipes.md`` for what each gives.
RECIPES: Mapping[str, TrainingSettings] = MappingProxyType(
    {
        "sts-baseline": TrainingSettings(learning_rate=5e-5),
        "sts": TrainingSettings(epochs=4, warmup=0.05, regularizer_weight=4e-4, freeze_vocabulary=True, averaging=0.99),
        "sts-distilled": TrainingSettings(
            epochs=5,
            warmup=0.05,
            regularizer_weight=2.5e-3,
            averaging=0.99,
            teacher="minilm",
            teacher_epochs=2,
        ),
    }
)
DEFAULT_RECIPE = "sts-distilled"
