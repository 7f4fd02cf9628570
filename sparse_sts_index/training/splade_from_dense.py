"""A SPLADE model out of a dense encoder: a masked-language-model head grown on it, taught by a SPLADE model.

Dense encoders such as MiniLM are published without the head that gives logits over the vocabulary. A new one begins as
the identity before the encoder's own word embeddings, and learns, with the encoder, to give each sentence the term
weights that the SPLADE model gives it. So its terms mean what they say, before it is fine-tuned on pairs.

Only terms that the teacher gives to some sentence of the batch, those of the sentences themselves, and a random sample
of the others are looked at, which costs a tenth of the whole vocabulary. ``relu`` has no gradient for a term without
weight; here ``softplus`` stands in for it.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor
from torch.nn.functional import softplus
from transformers import BertForMaskedLM, BertModel, set_seed

from sparse_sts_index._utils.files import folder_writer, os_errors_as, tensors_written
from sparse_sts_index.encoding.encoder import SparseStsEncoder
from sparse_sts_index.encoding.models import load_dense, no_progress_bars, tokenizer_vocabulary
from sparse_sts_index.errors import DataError, ModelError
from sparse_sts_index.training.model_folder import refuse_model_target
from sparse_sts_index.training.settings import GrowthSettings

_NORM = 4.0  # of the term weights that are aimed at
_BIAS = -1.0  # of all logits at the beginning: most terms are to have no weight
_GAIN = 2.0  # of the identity that the head begins as
_SHARPNESS = 4.0  # of softplus
_SILENCE = 20.0  # weight of the error of terms without weight, which are many and each almost right
_SAMPLED = 2000  # terms, at random
_WARM_UP = 0.1  # share of the steps
_BUCKET = 8  # batches whose sentences are sorted by length together
_MAX_LENGTH = 64  # tokens


def grow(
    output: str | Path,
    sentences: Sequence[str],
    settings: GrowthSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> SparseStsEncoder:
    """Give a dense encoder a SPLADE head, and save it as a ``SparseEncoder``, to be fine-tuned.

    Parameters
    ----------
    output : str or Path
        Folder for the model.
    sentences : sequence of str
        What the teacher shows its weights on: tens of thousands, of any kind; no grades are needed.
    settings : GrowthSettings, optional
    overwrite : bool
        Replace a model that is in `output`.
    progress : callable, optional
        Called after each step with its number, from 1, and its loss.

    Raises
    ------
    DataError
        Fewer sentences than a batch.
    ModelError
        A model does not load, the encoder is none of the BERT kind, the two vocabularies differ, or `output` is taken.
    """
    settings, output = settings or GrowthSettings(), Path(output)
    refuse_model_target(output, error=ModelError, overwrite=overwrite)
    if len(sentences) < settings.batch_size:
        raise DataError(f"growing takes at least a batch of {settings.batch_size} sentences, not {len(sentences)}")
    with os_errors_as(ModelError, f"cannot write {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
    set_seed(settings.seed)
    teacher = SparseStsEncoder.load(settings.teacher)
    teacher.model.max_seq_length = min(teacher.model.max_seq_length, _MAX_LENGTH)  # it sees what the pupil sees
    dense = load_dense(settings.encoder)
    bert = getattr(dense[0], "model", None)
    if not isinstance(dense[0], Transformer) or type(bert) is not BertModel:
        raise ModelError(f"{settings.encoder} is no BERT encoder, which is what a head can be grown on")
    sizes_differ = bert.config.vocab_size != len(teacher.vocabulary)
    if sizes_differ or dense.tokenizer.get_vocab() != tokenizer_vocabulary(teacher.model):
        raise ModelError(f"{settings.encoder} and {settings.teacher} have different vocabularies")
    model = _with_head(bert).to(dense.device)
    _teach(model, dense.tokenizer, sentences, teacher.encode(sentences), settings, progress)
    return _save(model, dense.tokenizer, int(dense.max_seq_length or _MAX_LENGTH), output, overwrite)


def _with_head(bert: BertModel) -> Any:
    model: Any = BertForMaskedLM(bert.config)
    model.bert.load_state_dict(bert.state_dict(), strict=False)  # all but the pooler, which it has not
    head = model.cls.predictions
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(bert.config.hidden_size) * _GAIN)
        head.transform.dense.bias.zero_()
        head.bias.fill_(_BIAS)
    model.tie_weights()
    return model


def _teach(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[str],
    weights: csr_array,
    settings: GrowthSettings,
    progress: Callable[[int, float], None] | None,
) -> None:
    ids: list[list[int]] = tokenizer(list(sentences), truncation=True, max_length=_MAX_LENGTH)["input_ids"]
    encoder = [parameter for name, parameter in model.named_parameters() if name.startswith("bert.")]
    head = [parameter for name, parameter in model.named_parameters() if not name.startswith("bert.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder, "lr": settings.encoder_learning_rate},
            {"params": head, "lr": settings.learning_rate},
        ]
    )
    steps, rising = settings.steps, max(1.0, _WARM_UP * settings.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / rising) * max(0.0, 1 - step / steps)
    )
    rng = np.random.default_rng(settings.seed)
    model.train()
    for step, rows in enumerate(_batches(ids, settings, rng), 1):
        loss = _loss(model, [ids[row] for row in rows], weights[rows], rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, loss.item())
    model.eval()


def _batches(ids: list[list[int]], settings: GrowthSettings, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows for each step: shuffled, then of similar length, which spares padding."""
    lengths = np.array([len(tokens) for tokens in ids])
    size, order = settings.batch_size, np.empty(0, dtype=np.int64)
    for done in range(0, settings.steps, _BUCKET):
        while len(order) < size * _BUCKET:
            order = np.concatenate((order, rng.permutation(len(ids))))
        bucket, order = order[: size * _BUCKET], order[size * _BUCKET :]
        parts = np.split(bucket[np.argsort(lengths[bucket], kind="stable")], _BUCKET)
        random.Random(int(rng.integers(2**32))).shuffle(parts)
        yield from parts[: settings.steps - done]


def _loss(model: Any, ids: list[list[int]], weights: csr_array, rng: np.random.Generator) -> Tensor:
    """Squared error of the term weights, over the terms that are looked at."""
    longest = max(map(len, ids))
    tokens = np.zeros((len(ids), longest), dtype=np.int64)
    mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, some in enumerate(ids):
        tokens[row, : len(some)], mask[row, : len(some)] = some, 1
    sampled = rng.integers(weights.shape[1], size=_SAMPLED)
    terms = np.unique(np.concatenate((weights.indices, tokens.ravel(), sampled)))
    device = model.device
    aim = torch.from_numpy(weights[:, terms].toarray()).to(device) * _NORM
    chosen, present = torch.from_numpy(terms).to(device), torch.from_numpy(mask).to(device)
    hidden = model.bert(input_ids=torch.from_numpy(tokens).to(device), attention_mask=present)[0]
    hidden = model.cls.predictions.transform(hidden)
    logits = hidden @ model.cls.predictions.decoder.weight[chosen].T + model.cls.predictions.bias[chosen]
    highest = logits.masked_fill(present[:, :, None] == 0, -1e4).amax(dim=1)
    found = softplus(highest, beta=_SHARPNESS).log1p()
    errors = (found - aim) ** 2
    active = aim > 0
    loss: Tensor = errors[active].sum() / active.sum().clamp_min(1) + _SILENCE * errors[~active].mean()
    return loss


def _save(model: Any, tokenizer: Any, max_length: int, output: Path, overwrite: bool) -> SparseStsEncoder:
    with (
        os_errors_as(ModelError, f"cannot save the model to {output}"),
        tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as plain,
        folder_writer(output, overwrite=overwrite) as folder,
        no_progress_bars(),
        tensors_written(),
    ):
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        transformer = Transformer(plain, transformer_task="fill-mask", max_seq_length=max_length)
        pooling = SpladePooling(pooling_strategy="max")
        encoder = SparseEncoder(modules=[transformer, pooling], device=str(model.device))
        encoder.model_card_data.local_files_only = True
        encoder.model_card_data.generate_widget_examples = False
        encoder.save_pretrained(str(folder))
    return SparseStsEncoder(encoder, str(output), precision="float32")
