"""The settings of a training run, and named ones that do well; apart from the training itself, which imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sparse_sts_index._utils.hub import DEFAULT_BASE_MODEL
from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.data.mixture import Mixture
from sparse_sts_index.encoding.bundled import MINILM, TINY
from sparse_sts_index.vectors.spec import Precision

COMPANIONS = (1, 2, 4, 8, 16, 32)  # that a pair may have: groups of eight, or parts of one


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
    regularize_unit_vectors : bool
        Regularise unit vectors of the terms that are kept, and not the weights. Smaller weights have the same cosines,
        so that a regulariser of weights can be met without sparser vectors. That of unit vectors is the mean cosine
        of a batch's sentences with each other: large if they share terms, such as one that nearly all have.
    excess_weight : float
        Weight of the sum of a sentence's terms beyond `max_active_dims`, in units of the length of its vector. They
        are in no vector, and so nothing else makes them fewer; the encoder computes them all the same.
    similarity_floor : float
        Grades up to this, 0..1, count as 0, and those above are stretched to 0..1. A dense teacher gives sentences
        that have nothing in common a cosine above 0, which takes a term that all of them have.
    freeze_vocabulary : bool
        Train all but the embeddings of the vocabulary, which hold most of a small model's parameters: pairs move the
        words that they hold away from those that they do not.
    dropout : float, optional
        Probability of dropout in training, 0..1. Default: the base model's own.
    averaging : float
        Decay of the moving average of the weights, 0..1, which is then the model; 0: no average.
    teacher : str, optional
        A dense model whose similarities are learnt beside the gold scores; see :mod:`.training.distillation`.
        Folder, hub id or ``"minilm"``.
    teacher_epochs : float
        Passes over the training pairs by which the teacher itself is fine-tuned first.
    teacher_weight : float
        Weight of the teacher's grades against the gold scores.
    companions : int
        Sentences beside each pair that the teacher grades: 1, 2, 4, 8, 16 or 32.
    max_active_dims : int, optional
        Keep this many terms of a sentence, those of most weight, in training and in the saved model. Default: all.
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
    regularize_unit_vectors: bool = False
    excess_weight: float = 0.0
    similarity_floor: float = 0.0
    freeze_vocabulary: bool = False
    dropout: float | None = None
    averaging: float = 0.0
    teacher: str | None = None
    teacher_epochs: float = 0.0
    teacher_weight: float = 1.5
    companions: int = 2
    max_active_dims: int | None = None
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
        check_real("excess_weight", self.excess_weight, 0)
        check_real("similarity_floor", self.similarity_floor, 0, 0.99)
        check_real("averaging", self.averaging, 0, 1)
        check_real("teacher_epochs", self.teacher_epochs, 0, 1e6)
        check_real("teacher_weight", self.teacher_weight, 0, above=True)
        if self.learning_rate is not None:
            check_real("learning_rate", self.learning_rate, 0, above=True)
        if self.dropout is not None:
            check_real("dropout", self.dropout, 0, 1)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        check_whole("companions", self.companions, 1, 32)
        if self.companions not in COMPANIONS:
            raise ValueError(f"companions must be one of {', '.join(map(str, COMPANIONS))}, not {self.companions}")
        for name in ("max_length", "max_active_dims", "eval_steps", "patience"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 3 if name == "max_length" else 1)


@dataclass(frozen=True)
class GrowthSettings:
    """Everything that decides what :func:`~.training.splade_from_dense.grow` gives, apart from the sentences.

    Attributes
    ----------
    encoder : str
        Dense sentence-transformers model of the BERT kind: folder, hub id or ``"minilm"``.
    teacher : str
        SPLADE model with the same vocabulary: folder, hub id or ``"tiny"``.
    steps, batch_size : int
        Optimizer steps, and sentences in each.
    learning_rate, encoder_learning_rate : float
        Peaks of the linear schedule for the new head, and for the encoder under it.
    seed : int

    Raises
    ------
    ValueError
        A number is out of its range, or not finite.
    """

    encoder: str = MINILM
    teacher: str = TINY
    steps: int = 800
    batch_size: int = 64
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 5e-5
    seed: int = 42

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        check_real("learning_rate", self.learning_rate, 0, above=True)
        check_real("encoder_learning_rate", self.encoder_learning_rate, 0)


@dataclass(frozen=True)
class Recipe:
    """A base model, and the stages that train it, one after the other.

    Attributes
    ----------
    mixture : Mixture
        Sentences to take from each source of the data.
    growth : GrowthSettings, optional
        Make the base model of a dense encoder. Default: the base model is that of the first stage.
    stages : tuple of TrainingSettings
        Each stage but the first has the model of the one before it for base model.
    """

    mixture: Mixture
    growth: GrowthSettings | None
    stages: tuple[TrainingSettings, ...]


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

#: Sources that are large and uniform, or unlike the sentences that people compare.
_MIXTURE = Mixture(
    {
        "clinc_wiki_sentences": 10_000,
        "common_voice_en": 20_000,
        "comve_sentences": 20_000,
        "esnli_explanation_pairs": 0,
        "esnli_explanations": 8_000,
        "gsm8k": 5_000,
        "intents_clinc_banking_snips": 8_000,
        "movie_review_sentences": 12_000,
        "opentriviaqa": 12_000,
        "sgd_dialogue": 8_000,
        "squad_sentences_questions": 18_000,
        "state_union": 5_000,
        "tatoeba_en": 25_000,
        "vsr_captions": 2_000,
        "wikisplit": 12_000,
        "wikisplit_pairs": 8_000,
        "wordnet_glosses_examples": 30_000,
    },
    count=250_000,
)
_FROM_SENTENCES = TrainingSettings(
    batch_size=8,
    companions=8,
    warmup=0.05,
    regularizer_weight=0.7,
    regularize_unit_vectors=True,
    excess_weight=0.005,
    similarity_floor=0.2,
    dropout=0.0,
    averaging=0.999,
    teacher="sentence-transformers/all-mpnet-base-v2",
    teacher_epochs=2,
    teacher_weight=6,
    eval_steps=1024,
)
#: Recipes of several stages by name; see ``docs/recipes.md`` for what each gives.
STAGED_RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "sts-micro": Recipe(
            _MIXTURE, None, (replace(_FROM_SENTENCES, base_model=TINY, max_active_dims=40, epochs=34.2),)
        ),
        "sts-mini": Recipe(
            _MIXTURE, GrowthSettings(steps=400), (replace(_FROM_SENTENCES, max_active_dims=64, epochs=17.1),)
        ),
    }
)
