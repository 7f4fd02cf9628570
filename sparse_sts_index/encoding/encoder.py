"""Sentences to L2-normalised sparse vectors over the vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparse_sts_index._utils.environment import cores
from sparse_sts_index._utils.fork_guard import TORCH
from sparse_sts_index._utils.numbers import check_whole
from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index._utils.text import check_strings
from sparse_sts_index.encoding.bundled import NAMES, splade_path
from sparse_sts_index.encoding.calibration import Calibration
from sparse_sts_index.encoding.inference_model import InferenceModel
from sparse_sts_index.encoding.precision import encoding_precision
from sparse_sts_index.encoding.term_weights import TermWeights
from sparse_sts_index.encoding.tokenization import Batch, TokenizedSentences
from sparse_sts_index.encoding.workers import torch_workers
from sparse_sts_index.errors import ModelError
from sparse_sts_index.vectors.quantizer import keep_largest, l2_normalize, pairwise_dot
from sparse_sts_index.vectors.spec import Precision, VectorSpec
from sparse_sts_index.vectors.trace import Span, Trace, words_of_tokens
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

    from sparse_sts_index.encoding.stock_model import StockModel

#: Sentences that the fingerprint's tokenizer probe is taken from: case, accents, CJK, digits, punctuation, subwords.
_PROBE = ("Héllo WORLD's naïve café—12.5%", "東京 playing 3,000 C++ e-mails :-)", "unaffordability's Straße\u00a0№7 😀")


class SparseStsEncoder:
    """A SPLADE model seen as a function from sentences to unit vectors.

    Query and document are encoded alike: similarity is symmetric.

    Parameters
    ----------
    model : sentence_transformers.SparseEncoder
        A model with a masked-language-model head and ``SpladePooling``. It gets the fused head, in place; see
        :func:`sparse_sts_index.encoding.fused_encoder.fuse`.
    name : str
        What to call it in manifests and messages.
    precision : {"auto", "float32", "bfloat16"}
        What the transformer's layers compute in; see :func:`~.encoding.precision.encoding_precision`. The fused
        head computes in float32 either way. For a model that it does not know, ``"auto"`` is float32.
    batch_tokens : int, optional
        Tokens a forward pass, padding included. Default: 1,024 on a CPU, 16,384 elsewhere.
    max_active_dims : int, optional
        Keep this many of a sentence's terms, those of most weight; set in the model itself. Default: as the model
        says, which is mostly all.

    Raises
    ------
    ModelError
        The model encodes queries and documents differently; see :func:`.encoding.models.check_symmetric`.

    Attributes
    ----------
    calibration : Calibration or None
        From cosine to a scale of scores, where the model's folder has one, and all its terms are kept.
    """

    def __init__(
        self,
        model: SparseEncoder | InferenceModel,
        name: str,
        *,
        precision: Precision = "auto",
        batch_tokens: int | None = None,
        max_active_dims: int | None = None,
    ) -> None:
        self.name = name
        self._used = model if isinstance(model, InferenceModel) else _stock(model, name)
        self.calibration: Calibration | None = None
        if max_active_dims is not None:
            check_whole("max_active_dims", max_active_dims, 1)
            self._used.max_active_dims = max_active_dims
        if precision == "auto" and not self._used.fused:
            precision = "float32"
        self.precision = encoding_precision(precision, self.device)
        if batch_tokens is not None:
            check_whole("batch_tokens", batch_tokens, 1)
        self.batch_tokens = batch_tokens or (1024 if self.device.type == "cpu" else 16384)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | None = None,
        precision: Precision = "auto",
        max_active_dims: int | None = None,
    ) -> SparseStsEncoder:
        """Load a model, and its calibration, by folder, hub id or the name of one that pip brings.

        A folder with a BERT in float32 is read without sentence-transformers, for the CPU; see
        :mod:`sparse_sts_index.encoding.inference_model`.

        Raises
        ------
        ModelError, HubUnreachableError
            See :func:`.encoding.models.load_splade`; or the calibration in the folder is another model's.
        """
        TORCH.check()
        path = splade_path(name)
        model: SparseEncoder | InferenceModel | None = None
        if path.is_dir() and (device == "cpu" or (device is None and not torch.accelerator.is_available())):
            TORCH.enter()
            model = InferenceModel.read(path, _PROBE)
        if model is None:
            from sparse_sts_index.encoding.models import load_splade  # imports sentence-transformers

            model = load_splade(name, device=device)
        encoder = cls(model, str(name), precision=precision)
        calibration = None if str(name) in NAMES else Calibration.of_folder(name)
        if calibration is not None and calibration.model_fingerprint != encoder.fingerprint:
            raise ModelError(f"the calibration in {name} is of another model; calibrate it again")
        if max_active_dims is not None:  # which changes the cosines: the calibration is not of these
            return cls(model, encoder.name, precision=precision, max_active_dims=max_active_dims)
        encoder.calibration = calibration
        return encoder

    @property
    def model(self) -> SparseEncoder:
        """The ``SparseEncoder``, loaded by sentence-transformers when first asked for; changes to it take effect.

        Raises
        ------
        ModelError
            The files are no longer those of the model.
        """
        used = self._used
        if isinstance(used, InferenceModel):
            from sparse_sts_index.encoding.models import load_splade

            stock = _stock(load_splade(used.path, device="cpu"), self.name)
            if used.max_active_dims is not None:
                stock.max_active_dims = used.max_active_dims
            if _fingerprint(stock, self.vocabulary) != self.fingerprint:
                raise ModelError(f"the model in {used.path} has changed since it was loaded")
            self._used = used = stock
            self.__dict__.pop("_fingerprint", None)  # the model may be changed from now on
        return used.model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._used.device

    @property
    def max_active_dims(self) -> int | None:
        """Most terms of a sentence, or None for all."""
        return self._used.max_active_dims

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The terms of the vector dimensions."""
        return Vocabulary.from_mapping(*self._used.vocabulary)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a vector: weights, pooling, tokenization, maximum length.

        Equal for copies of one model wherever they are saved, different after any training step.
        """
        TORCH.enter()  # before the lock of cached_property
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return _fingerprint(self._used, self.vocabulary)

    def spec(self, bits: int) -> VectorSpec:
        """Return what a collection of this encoder's vectors, quantized to `bits` bits, says of them."""
        return VectorSpec(
            model=self.name,
            model_fingerprint=self.fingerprint,
            vocabulary_sha256=self.vocabulary.sha256,
            vocabulary_size=len(self.vocabulary),
            precision=self.precision,
            bits=bits,
            max_active_dims=self.max_active_dims,
        )

    def encode(self, sentences: Sequence[str], *, progress: Callable[[int], None] | None = None) -> csr_array:
        """Encode sentences.

        Parameters
        ----------
        sentences : iterable of str, length n
        progress : callable, optional
            Called after each batch with the number of sentences in it.

        Returns
        -------
        csr_array of float32, shape (n, vocab)
            Non-negative term weights, each row of unit length, or empty where no term is active, as for a blank
            sentence. Indices sorted.

        Raises
        ------
        DataError
            A sentence holds an unpaired surrogate.
        ModelError
            The model gives weights that are not finite or below zero.
        ValueError
            `sentences` is one string or a table, or holds something that is not a string.
        """
        return self.encode_tokens(self.tokenize(sentences), progress=progress)

    def tokenize(self, sentences: Sequence[str]) -> TokenizedSentences:
        """The first half of :meth:`encode`; it runs no model, so that it can go on beside the second half of another.

        Sentences are batched with others of their length, as many as :attr:`batch_tokens` allows.

        Raises
        ------
        DataError, ValueError
            See :meth:`encode`.
        """
        TORCH.check()
        sentences = check_strings(sentences, "sentence")
        return self._used.tokenize(sentences, self.batch_tokens, self._threads)

    def encode_tokens(
        self, sentences: TokenizedSentences, *, progress: Callable[[int], None] | None = None
    ) -> csr_array:
        """The second half of :meth:`encode`, from what :meth:`tokenize` gives.

        Raises
        ------
        ModelError
            See :meth:`encode`.
        """
        values = [np.empty(0, dtype=np.float32)]
        rows, terms = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        TORCH.enter()
        if progress is not None and (blank := sentences.count - sum(len(rows) for rows, _ in sentences.batches)):
            progress(blank)
        with closing(self._weighted(sentences.batches)) as weighted:
            for positions, weights in weighted:
                values.append(_array(weights.values))
                rows.append(positions[_array(weights.rows)])
                terms.append(_array(weights.terms))
                if progress is not None:
                    progress(len(positions))
        shape = sentences.count, len(self.vocabulary)
        return self._unit_vectors(np.concatenate(values), np.concatenate(rows), np.concatenate(terms), shape)

    @property
    def _threads(self) -> int:
        """Number of threads to compute in: torch's, or fewer where a quota does not allow as many."""
        return min(torch.get_num_threads(), cores()) if self.device.type == "cpu" else 1

    def _weighted(
        self, batches: Iterable[tuple[NDArray[np.int64], Batch]]
    ) -> Generator[tuple[NDArray[np.int64], TermWeights]]:
        """Yield the term weights of batches.

        Several batches are computed side by side, each in one thread: threads that share each step of a batch wait for
        one another at its end, for long where other processes want the cores.
        """
        batches, threads = list(batches), self._threads
        with self._computing():
            side_by_side = self._used.start() and min(threads, len(batches)) > 1

        def compute(batch: tuple[NDArray[np.int64], Batch]) -> tuple[NDArray[np.int64], TermWeights]:
            return batch[0], self._used.term_weights(batch[1])

        def compute_there(batch: tuple[NDArray[np.int64], Batch]) -> tuple[NDArray[np.int64], TermWeights]:
            with self._computing():
                return compute(batch)

        if side_by_side:
            yield from overlap(compute_there, batches, ahead=threads, executor=torch_workers(threads, 1))
        elif self.device.type == "cpu" and threads < torch.get_num_threads():  # a quota
            yield from overlap(compute_there, batches, executor=torch_workers(1, threads))
        else:
            with self._computing():  # one autocast for all: it keeps the modules' weights in bfloat16 while it lasts
                yield from map(compute, batches)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            yield

    def _unit_vectors(
        self, values: NDArray[np.float32], rows: NDArray[np.int64], terms: NDArray[np.int64], shape: tuple[int, int]
    ) -> csr_array:
        if not np.isfinite(values).all() or (values < 0).any():
            raise ModelError(f"model {self.name} gives term weights that are negative or not finite")
        vectors = csr_array((values, (rows, terms)), shape=shape)
        vectors.sort_indices()
        if self.max_active_dims is not None:
            vectors = keep_largest(vectors, self.max_active_dims)
        return l2_normalize(vectors)

    def trace(self, sentences: Sequence[str]) -> list[Trace]:
        """Encode sentences, and find the word that each term comes from; see :mod:`sparse_sts_index.vectors.trace`.

        Meant for the few sentences that somebody looks at: for a model that the fused head does not know, all logits
        of one sentence at a time are held.

        Parameters
        ----------
        sentences : sequence of str, length n

        Returns
        -------
        list of n Trace

        Raises
        ------
        DataError, ModelError, ValueError
            See :meth:`encode`.
        """
        sentences = check_strings(sentences, "sentence")
        none = np.empty(0, dtype=np.int64)
        found: list[tuple[NDArray[Any], ...]] = [(none, none, none, np.empty(0, dtype=np.float32))]
        TORCH.enter()
        used = self._used
        batches: Iterable[tuple[NDArray[np.int64], Batch]]
        if used.fused:
            batches = self.tokenize(sentences).batches
        else:
            filled = np.flatnonzero(~used.tokenizer.are_blank(sentences))
            batches = ((np.array([row]), sentences[row]) for row in filled.tolist())
        with closing(self._weighted(batches)) as weighted:
            for rows, weights in weighted:
                assert weights.positions is not None
                found.append(
                    (rows[_array(weights.rows)], *map(_array, (weights.terms, weights.positions, weights.values)))
                )
        if not sentences:
            return []
        of_rows, terms, positions, values = map(np.concatenate, zip(*found, strict=True))
        vectors = self._unit_vectors(values.astype(np.float32), of_rows, terms, (len(sentences), len(self.vocabulary)))
        tokens = dict(zip(zip(of_rows.tolist(), terms.tolist(), strict=True), positions.tolist(), strict=True))
        tokenizer = used.tokenizer
        encodings = tokenizer.encodings(sentences)
        tokenized = tokenizer.token_ids(sentences) if encodings is None else [found.ids for found in encodings]
        traces = []
        for row, ids in enumerate(tokenized):
            words: tuple[Span, ...] = ()
            of_tokens: list[int | None] = [None] * len(ids)
            if encodings is not None:
                words, of_tokens = words_of_tokens(encodings[row], len(tokenizer.prompt), sentences[row])
            vector = vectors[[row]]
            sources = {term: of_tokens[tokens[row, term]] for term in vector.indices.tolist()}
            traces.append(Trace(vector, words, sources, frozenset(ids)))
        return traces

    def encode_pairs(self, a: Sequence[str], b: Sequence[str]) -> tuple[csr_array, csr_array]:
        """Encode both sides of sentence pairs, as :meth:`encode` does.

        Parameters
        ----------
        a, b : sequence of str, length n

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
        a, b = check_strings(a, "sentence"), check_strings(b, "sentence")
        if len(a) != len(b):
            raise ValueError(f"{len(a)} sentences cannot be paired with {len(b)}")
        vectors = self.encode([*a, *b])
        return vectors[: len(a)], vectors[len(a) :]

    def score_pairs(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """Cosine of each sentence of `a` with the one of `b` at its side.

        Parameters
        ----------
        a, b : sequence of str, length n

        Returns
        -------
        ndarray of float64, shape (n,)
            0..1; 0 if either sentence has no active term.

        Raises
        ------
        ValueError
            `a` and `b` differ in length, or are bare strings.
        """
        return pairwise_dot(*self.encode_pairs(a, b))


def _stock(model: SparseEncoder, name: str) -> StockModel:
    from sparse_sts_index.encoding.stock_model import StockModel  # imports sentence-transformers

    return StockModel(model, name)


def _fingerprint(model: StockModel | InferenceModel, vocabulary: Vocabulary) -> str:
    settings = {
        **model.settings(),
        "max_active_dims": model.max_active_dims,
        "max_length": model.tokenizer.max_length,
        "prompt": model.tokenizer.prompt,
        "vocabulary": vocabulary.sha256,
        "probe": [model.probe(text) for text in _PROBE],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    add_weights(digest, model.state())
    return digest.hexdigest()


def add_weights(digest: hashlib._Hash, state: Mapping[str, torch.Tensor]) -> None:
    """Add the weights of a model to a checksum.

    Parameters
    ----------
    digest
        A hash object of :mod:`hashlib`.
    state : mapping of str to Tensor
    """
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array
