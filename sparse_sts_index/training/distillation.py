"""What a dense model says of sentences that nobody has graded, as something to train a sparse one on.

Beside the training pairs, a batch holds groups of sentences that the dense model, the teacher, finds near each other,
out of the pairs themselves and out of an unlabelled collection. The teacher grades the pairs, and every such sentence
against every other; that is far more than the gold scores say, and of the words that they lack.

What a teacher calls 0.6 is not what people do: one that was fine-tuned on the pairs has learnt to, the cosines of any
other are brought to the scale of the gold scores by the monotone map that fits them best on the pairs.

This is the augmentation of Thakur et al. (2021, arXiv:2010.08240) with the teacher's cosine for the grade, and the
matrix of similarities of Tung and Mori (2019, arXiv:1907.09682) for the loss; see
:class:`~sparse_sts_index.training.losses.DistillationLoss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback

from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.calibration import isotonic
from sparse_sts_index.errors import DataError
from sparse_sts_index.training.settings import TrainingSettings

GROUP = 8  # sentences that are near each other
_BUCKET = 16  # batches whose groups are sorted by length together
_NEIGHBOURS = 30  # of a sentence, out of which the others of its group are drawn
_CHUNK = 512  # sentences compared with all others at a time
_TUNING_BATCH, _TUNING_WARM_UP = 32, 0.1
_TUNING_RATE, _TUNING_WIDTH = 5e-5, 384  # for other widths in inverse proportion
_ORDER_WEIGHT = 0.05


@dataclass(frozen=True)
class Lessons:
    """Rows to train on, and the teacher's vectors of all sentences in them.

    Attributes
    ----------
    columns : dict
        Of a data set, to be taken in order: ``sentence1``, ``sentence2``, ``companion1``, ``companion2``, ...; and
        ``label``, with for each row the gold score, where its sentences are in `vectors`, and its first companion's
        group. Of more than eight companions, each eight are a group, numbered on from there.
    vectors : Tensor of float16, shape (sentences, dims)
        Of unit length, but for rounding.
    cosines, scores : Tensor of float32, shape (corners,)
        The map from the teacher's cosine to the scale of the gold scores; see
        :func:`~sparse_sts_index.encoding.calibration.isotonic`.
    """

    columns: dict[str, list[Any]]
    vectors: Tensor
    cosines: Tensor
    scores: Tensor


def distinct_sentences(pairs: Pairs, unlabelled: Sequence[str]) -> list[str]:
    """Return all sentences to learn from, each once: those of the pairs first."""
    return list(dict.fromkeys((*pairs.sentence1, *pairs.sentence2, *unlabelled)))


def prepare_lessons(
    vectors: Tensor,
    sentences: Sequence[str],
    pairs: Pairs,
    settings: TrainingSettings,
) -> Lessons:
    """Return the rows of all passes over the pairs.

    Groups of about the same length stand in one batch, which spares padding.

    Parameters
    ----------
    vectors : Tensor of float16, shape (n, dims)
        The teacher's, of unit length.
    sentences : sequence of str, length n
        All that :func:`distinct_sentences` gives.
    pairs : Pairs
        With scores.
    settings : TrainingSettings
        Of a teacher that was fine-tuned on the pairs (``teacher_epochs``), the cosines are taken as they are, below 0
        as 0. A map fitted to pairs that it knows by heart would be too steep for others.

    Raises
    ------
    DataError
        Fewer than eight different sentences.
    """
    if len(sentences) < GROUP:
        raise DataError(f"a teacher needs at least {GROUP} different sentences, not {len(sentences)}")
    places = {sentence: place for place, sentence in enumerate(sentences)}
    first = np.array([places[sentence] for sentence in pairs.sentence1])
    second = np.array([places[sentence] for sentence in pairs.sentence2])
    rng = np.random.default_rng(settings.seed)
    rows = _passes(rng, len(pairs), max(1, round(settings.epochs * len(pairs))))
    groups = np.arange(len(rows)) * settings.companions // GROUP
    seeds = _passes(rng, len(sentences), int(groups[-1]) + max(1, settings.companions // GROUP))
    near = _neighbours(vectors, seeds)
    drawn = rng.random(near.shape).argsort(axis=1)[:, : GROUP - 1]
    members = np.column_stack([seeds, np.take_along_axis(near, drawn, axis=1)])
    lengths = np.array([len(sentence) for sentence in sentences])[members].max(axis=1)
    members = members[_bucketed(lengths, max(1, settings.batch_size * settings.companions // GROUP), rng)]
    companions = members.reshape(-1, settings.companions)[: len(rows)]
    together = np.column_stack([first[rows], second[rows], companions])
    names = ("sentence1", "sentence2", *(f"companion{n + 1}" for n in range(settings.companions)))
    columns: dict[str, list[Any]] = {
        name: [sentences[place] for place in together[:, number].tolist()] for number, name in enumerate(names)
    }
    columns["label"] = np.column_stack([pairs.gold[rows], together, groups]).tolist()
    corners: tuple[Any, Any] = ((0.0, 1.0), (0.0, 1.0))
    if not settings.teacher_epochs:
        graded = (vectors[first].float() * vectors[second].float()).sum(dim=1).double().numpy()
        corners = isotonic(graded, pairs.gold, (0.0, 1.0))
    return Lessons(columns, vectors, *(torch.tensor(values) for values in corners))


def interpolate(values: Tensor, corners: Tensor, heights: Tensor) -> Tensor:
    """The piecewise linear function through some corners, constant beyond them; ``numpy.interp`` for tensors."""
    if len(corners) == 1:
        return heights.expand(values.shape)
    right = torch.searchsorted(corners, values.contiguous()).clamp(1, len(corners) - 1)
    share = ((values - corners[right - 1]) / (corners[right] - corners[right - 1])).clamp(0, 1)
    return heights[right - 1] + share * (heights[right] - heights[right - 1])


def _passes(rng: np.random.Generator, count: int, length: int) -> NDArray[np.int64]:
    """The first `length` of endless passes over 0..count, each in an order of its own."""
    return np.concatenate([rng.permutation(count) for _ in range(math.ceil(length / count))])[:length]


def _bucketed(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of rows that are in random order, with rows of about the same length in each batch."""
    order = np.arange(len(lengths))
    for start in range(0, len(lengths), size * _BUCKET):
        some = order[start : start + size * _BUCKET]
        whole = len(some) // size * size
        ascending = np.argsort(lengths[some[:whole]], kind="stable").reshape(-1, size)
        some[:whole] = some[rng.permutation(ascending).ravel()]
    return order


def sequential_batches(dataset: Dataset, batch_size: int, drop_last: bool, **_: Any) -> DefaultBatchSampler:
    """Batches in the order of the rows, for sentence-transformers' trainer: they are shuffled already."""
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def _neighbours(vectors: Tensor, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sentences nearest to each of some, themselves left out: ndarray of int64, shape (n, 7 to 30)."""
    count, vectors = min(_NEIGHBOURS, len(vectors) - 1), vectors.float()
    found = [np.empty((0, count), dtype=np.int64)]
    for start in range(0, len(rows), _CHUNK):
        some = torch.from_numpy(rows[start : start + _CHUNK])
        cosines = vectors[some] @ vectors.T
        cosines[torch.arange(len(some)), some] = -2.0
        found.append(cosines.topk(count, dim=1).indices.numpy())
    return np.concatenate(found)


def tune_teacher(
    teacher: SentenceTransformer, pairs: Pairs, epochs: float, seed: int, folder: Path, *, bfloat16: bool = False
) -> None:
    """Fine-tune a dense model on graded pairs, in place, before others learn from it.

    The loss is the squared error of the cosine, and CoSENT's for its order (Su 2022), both sentence-transformers'.

    Parameters
    ----------
    teacher : SentenceTransformer
    pairs : Pairs
        With scores.
    epochs : float
    seed : int
    folder : Path
        Where sentence-transformers may put what it needs.
    bfloat16 : bool
        Train under bfloat16 autocast.
    """
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=_TUNING_BATCH,
        learning_rate=_TUNING_RATE * _TUNING_WIDTH / (teacher.get_embedding_dimension() or _TUNING_WIDTH),
        warmup_steps=_TUNING_WARM_UP,
        seed=seed,
        bf16=bfloat16,
        use_cpu=teacher.device.type == "cpu",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = Dataset.from_dict({"sentence1": pairs.sentence1, "sentence2": pairs.sentence2, "score": pairs.gold.tolist()})
    card = teacher.model_card_data  # which is not to ask the hub, or to show what it does
    card.local_files_only, card.generate_widget_examples = True, False
    card.widget = [{"text": pairs.sentence1[0]}]
    trainer = SentenceTransformerTrainer(
        model=teacher, args=arguments, train_dataset=rows, loss=_SquaredErrorAndOrder(teacher)
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    teacher.eval()


class _SquaredErrorAndOrder(nn.Module):
    """The two losses of :func:`tune_teacher`, of one pass through the model."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self._order = CoSENTLoss(model)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        vectors = [self.model(features)["sentence_embedding"] for features in sentence_features]
        cosines = torch.nn.functional.cosine_similarity(*vectors)
        squared = torch.nn.functional.mse_loss(cosines, labels.float().view(-1))
        order: Tensor = self._order.compute_loss_from_embeddings(vectors, labels)
        return squared + _ORDER_WEIGHT * order
