"""A dense teacher, fine-tuned on graded pairs, and its vectors: kept in a folder, where other runs find them again.

Both take longer than most runs that learn from them. The name of what is kept is a checksum of what it was made of, the
weights of the model included, so that a run never takes the vectors of another model or of other sentences.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from sparse_sts_index._utils.files import folder_writer, os_errors_as, sync_folder, tensors_written
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.encoder import add_weights
from sparse_sts_index.encoding.models import load_dense, no_progress_bars
from sparse_sts_index.errors import TrainingError
from sparse_sts_index.training.distillation import tune_teacher

_SEED = 42  # of the fine-tuning: runs with different seeds share one teacher
_PART = 8192  # sentences in a file of vectors


class TeacherCache:
    """A folder of fine-tuned teachers and of their vectors.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def teacher(
        self, name: str, pairs: Pairs, epochs: float, *, device: str | None = None, bfloat16: bool = False
    ) -> SentenceTransformer:
        """Load a dense model, fine-tuned on pairs if that is asked for.

        Parameters
        ----------
        name : str
            Folder, hub id or ``"minilm"``.
        pairs : Pairs
            With scores.
        epochs : float
            Passes over the pairs; 0: the model as it is.
        device : str, optional
        bfloat16 : bool
            Fine-tune under bfloat16 autocast.

        Raises
        ------
        ModelError, HubUnreachableError
            It does not load.
        TrainingError
            The folder cannot be written.
        """
        model = load_dense(name, device=device)
        if not epochs:
            return model
        tuned = self._folder / f"teacher-{_digest(fingerprint(model), epochs, bfloat16, pairs.columns())}"
        if tuned.is_dir():
            return load_dense(tuned, device=device)
        with (
            os_errors_as(TrainingError, f"cannot write {self._folder}"),
            folder_writer(tuned) as folder,
            no_progress_bars(),
            tensors_written(),
        ):
            tune_teacher(model, pairs, epochs, _SEED, folder / "trainer", bfloat16=bfloat16)
            shutil.rmtree(folder / "trainer", ignore_errors=True)
            model.save_pretrained(str(folder), create_model_card=False)
        return model

    def vectors(
        self,
        model: SentenceTransformer,
        sentences: Sequence[str],
        *,
        bfloat16: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float16]:
        """Encode sentences, part by part; the next run continues a killed one.

        Parameters
        ----------
        model : SentenceTransformer
        sentences : sequence of str, length n
        bfloat16 : bool
            Encode under bfloat16 autocast.
        progress : callable, optional
            Called with the number of sentences encoded since its last call.

        Returns
        -------
        ndarray of float16, shape (n, dims)
            Of unit length, but for rounding.

        Raises
        ------
        TrainingError
            The folder cannot be written, or a file in it cannot be read.
        """
        folder = self._folder / f"vectors-{_digest(fingerprint(model), bfloat16, list(sentences))}"
        parts = []
        for start in range(0, len(sentences), _PART):
            file = folder / f"{start:09d}.npy"
            some = sentences[start : start + _PART]
            if not file.is_file():
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
                    encoded = model.encode(list(some), normalize_embeddings=True, show_progress_bar=False)
                _write(file, np.asarray(encoded, dtype=np.float16))
            parts.append(_read(file, len(some)))
            if progress is not None:
                progress(len(some))
        return np.concatenate(parts)


def fingerprint(model: SentenceTransformer) -> str:
    """Return a checksum of a model's weights and settings of its tokenizer."""
    digest = hashlib.sha256(f"{model.max_seq_length} {model.default_prompt_name} {model.prompts}".encode())
    add_weights(digest, model.state_dict())
    return digest.hexdigest()


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _write(file: Path, vectors: NDArray[np.float16]) -> None:
    partial = file.with_suffix(".partial")
    with os_errors_as(TrainingError, f"cannot write {file.parent}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as sink:
            np.save(sink, vectors)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(file)
        sync_folder(file.parent)


def _read(file: Path, rows: int) -> NDArray[np.float16]:
    try:
        vectors: NDArray[np.float16] = np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"cannot read {file}: remove it, and its sentences are encoded again") from error
    if vectors.dtype != np.float16 or vectors.ndim != 2 or len(vectors) != rows:
        raise TrainingError(f"{file} holds something else than {rows} vectors: remove it")
    return vectors
