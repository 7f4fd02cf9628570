"""Sentences to L2-normalised sparse vectors over the vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_array
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import PretrainedConfig

from sparse_sts_index.errors import ModelError
from sparse_sts_index.models import load_splade, tokenizer_vocabulary
from sparse_sts_index.quantizer import l2_normalize, pairwise_dot
from sparse_sts_index.records import check_unicode
from sparse_sts_index.vocabulary import Vocabulary

#: Sentences that the fingerprint's tokenizer probe is taken from: case, accents, CJK, digits, punctuation, subwords.
_PROBE = ("Héllo WORLD's naïve café—12.5%", "東京 playing 3,000 C++ e-mails :-)", "unaffordability's Straße\u00a0№7 😀")


class SparseStsEncoder:
    """A SPLADE model seen as a function from sentences to unit vectors.

    Query and document are encoded alike: similarity is symmetric.

    Parameters
    ----------
    model : sentence_transformers.SparseEncoder
        A model with a masked-language-model head and ``SpladePooling``.
    name : str
        What to call it in manifests and messages.
    """

    def __init__(self, model: SparseEncoder, name: str) -> None:
        self.model = model
        self.name = name

    @classmethod
    def load(cls, name: str | Path, *, device: str | None = None) -> SparseStsEncoder:
        """Load a model by folder, hub id or ``"tiny"``; see :func:`sparse_sts_index.models.load_splade`."""
        return cls(load_splade(name, device=device), str(name))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The terms of the vector dimensions."""
        return Vocabulary.from_mapping(tokenizer_vocabulary(self.model), self._config.vocab_size)

    @property
    def _config(self) -> PretrainedConfig:
        transformer = self.model.transformers_model
        if transformer is None:
            raise ModelError(f"model {self.name} has no transformer")
        config: PretrainedConfig = transformer.config
        return config

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a vector: weights, pooling, tokenization, maximum length.

        Equal for copies of one model wherever they are saved, different after any training step.
        """
        config = self._config
        pooling = next(module for module in self.model.modules() if isinstance(module, SpladePooling))
        settings = {
            "architecture": config.model_type,
            "attention_heads": getattr(config, "num_attention_heads", None),
            "activation": str(getattr(config, "hidden_act", None)),
            "epsilon": getattr(config, "layer_norm_eps", None),
            "pooling": [pooling.pooling_strategy, pooling.activation_function],
            "max_active_dims": self.model.max_active_dims,
            "max_length": self.model.max_seq_length,
            "prompt": self.model.prompts.get(self.model.default_prompt_name or "", ""),
            "vocabulary": self.vocabulary.sha256,
            "probe": [self.model.tokenizer(text)["input_ids"] for text in _PROBE],
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode(
        self, sentences: Sequence[str], *, batch_size: int = 32, progress: Callable[[int], None] | None = None
    ) -> csr_array:
        """Encode sentences.

        Sentences are batched with others of similar length, which keeps padding low; the result is in input order.

        Parameters
        ----------
        sentences : sequence of str, length n
        batch_size : int
            Sentences a forward pass. Memory grows with ``batch_size * tokens * vocab``.
        progress : callable, optional
            Called after each batch with the number of sentences in it.

        Returns
        -------
        csr_array of float32, shape (n, vocab)
            Non-negative term weights, each row of unit length, or empty where no term is active. Indices sorted.

        Raises
        ------
        DataError
            A sentence holds an unpaired surrogate.
        ModelError
            The model gives weights that are not finite or below zero.
        ValueError
            `sentences` is a bare string.
        """
        if isinstance(sentences, str):
            raise ValueError("expected a sequence of sentences, not one string")
        for number, sentence in enumerate(sentences, 1):
            check_unicode(sentence, "text", f"sentence {number}")
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]), reverse=True)
        blocks = [csr_array((0, len(self.vocabulary)), dtype=np.float32)]
        for start in range(0, len(order), batch_size):
            batch = [sentences[i] for i in order[start : start + batch_size]]
            weights = self.model.encode(
                batch,
                batch_size=len(batch),
                convert_to_sparse_tensor=False,
                save_to_cpu=True,
                show_progress_bar=False,
            )
            blocks.append(csr_array(weights.float().numpy()))
            if progress is not None:
                progress(len(batch))
        by_length = sparse.vstack(blocks, format="csr")
        if not np.isfinite(by_length.data).all() or (by_length.data < 0).any():
            raise ModelError(f"model {self.name} gives term weights that are negative or not finite")
        vectors = l2_normalize(by_length[np.argsort(order)])
        vectors.sort_indices()
        return vectors

    def encode_pairs(self, a: Sequence[str], b: Sequence[str], *, batch_size: int = 32) -> tuple[csr_array, csr_array]:
        """Encode both sides of sentence pairs, as :meth:`encode` does.

        Parameters
        ----------
        a, b : sequence of str, length n
        batch_size : int
            Sentences a forward pass.

        Returns
        -------
        two csr_array of float32, shape (n, vocab)

        Raises
        ------
        DataError, ModelError
            See :meth:`encode`.
        ValueError
            `a` and `b` differ in length, or are bare strings.
        """
        if isinstance(a, str) or isinstance(b, str):
            raise ValueError("expected two sequences of sentences, not strings")
        if len(a) != len(b):
            raise ValueError(f"{len(a)} sentences cannot be paired with {len(b)}")
        vectors = self.encode([*a, *b], batch_size=batch_size)
        return vectors[: len(a)], vectors[len(a) :]

    def score_pairs(self, a: Sequence[str], b: Sequence[str], *, batch_size: int = 32) -> NDArray[np.float64]:
        """Cosine of each sentence of `a` with the one of `b` at its side.

        Parameters
        ----------
        a, b : sequence of str, length n
        batch_size : int
            Sentences a forward pass.

        Returns
        -------
        ndarray of float64, shape (n,)
            0..1; 0 if either sentence has no active term.

        Raises
        ------
        ValueError
            `a` and `b` differ in length, or are bare strings.
        """
        return pairwise_dot(*self.encode_pairs(a, b, batch_size=batch_size))
