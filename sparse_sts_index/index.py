"""Build an index of sentences, open it, and ask it for the nearest ones."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index.convert import Chunk, encode_documents
from sparse_sts_index.corpus import Document
from sparse_sts_index.encoder import SparseStsEncoder
from sparse_sts_index.errors import DataError, ImpactIndexError, ModelError, ModelMismatchError
from sparse_sts_index.explain import TermContribution, shared_terms
from sparse_sts_index.files import atomic_writer
from sparse_sts_index.jvm import detach_thread, java_version
from sparse_sts_index.lucene import ImpactReader, ImpactWriter, lucene_version, query_terms
from sparse_sts_index.manifest import Manifest
from sparse_sts_index.models import TINY
from sparse_sts_index.overlap import overlap
from sparse_sts_index.precision import Precision
from sparse_sts_index.quantizer import Quantizer, cosine_error_bound

LUCENE_FOLDER, MANIFEST_FILE = "lucene", "manifest.json"
_MANIFEST_KEY = "sparse-sts-manifest"
_PACKAGES = ("sparse-sts-index", "sentence-transformers", "transformers", "torch", "pyserini")


@dataclass(frozen=True, slots=True)
class Hit:
    """A sentence found.

    Attributes
    ----------
    id, text : str
        The document.
    score : float
        Cosine with the query, from the quantized impacts: Lucene's integer score over the two scales. Rounding can
        lift it a little above 1.
    error : float
        The float cosine lies within ``score - error .. score + error``.
    explanation : tuple of TermContribution, or None
        The shared terms, whose contributions sum to the score, if they were asked for.
    """

    id: str
    text: str
    score: float
    error: float
    explanation: tuple[TermContribution, ...] | None = None


class SparseStsIndex:
    """A Lucene impact index of sentences together with the encoder that made it.

    Open one with :meth:`open`, or make one with :meth:`build`. Usable as a context manager.
    """

    def __init__(
        self,
        path: Path,
        reader: ImpactReader,
        manifest: Manifest,
        model: SparseStsEncoder | str,
        precision: Precision,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._reader = reader
        self._model = model
        self._precision = precision

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: SparseStsEncoder | str | Path | None = None,
        *,
        precision: Precision | None = None,
    ) -> Self:
        """Open an index for searching.

        Parameters
        ----------
        path : str or Path
            What :meth:`build` was given.
        model : SparseStsEncoder, str or Path, optional
            The encoder, or where to load it from. Default: where the manifest says it was. Loaded when first needed.
        precision : {"auto", "float32", "bfloat16"}, optional
            Of a model that is to be loaded. Default: what the documents were encoded in.

        Raises
        ------
        ImpactIndexError
            No index there, an unfinished one, or one of another format.
        JavaError
            No Java to read it with.
        """
        path = Path(path)
        if not path.exists():
            raise ImpactIndexError(f"no index at {path}")
        if not (path / LUCENE_FOLDER).is_dir():
            raise ImpactIndexError(f"not an index: {path} has no folder {LUCENE_FOLDER}")
        reader = ImpactReader(path / LUCENE_FOLDER)
        try:
            text = reader.user_data.get(_MANIFEST_KEY)
            if text is None:
                raise ImpactIndexError(f"{path} holds a Lucene index that sparse-sts did not build")
            manifest = Manifest.from_json(text)
        except BaseException:
            reader.close()
            raise
        if model is None:
            model = manifest.model
        encoder = model if isinstance(model, SparseStsEncoder) else str(model)
        return cls(path, reader, manifest, encoder, precision or manifest.precision)

    @classmethod
    def build(
        cls,
        path: str | Path,
        documents: Iterable[Document | str],
        model: SparseStsEncoder | str | Path,
        *,
        quantizer: Quantizer | None = None,
        precision: Precision = "auto",
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Self:
        """Encode, quantize and index documents, a chunk at a time, and open the result.

        The index appears, or replaces the one before it, in one atomic step at the end. If the build fails, or the
        process is killed, a reader finds what was there before: the old index, or none.

        Parameters
        ----------
        path : str or Path
            Folder to hold the index.
        documents : iterable of Document or str
            Bare strings get their ordinal, from 1, as id. Only their ids are kept in memory.
        model : SparseStsEncoder, str or Path
            The encoder, or where to load it from.
        quantizer : Quantizer, optional
            For documents and queries. Default: 8 bits.
        precision : {"auto", "float32", "bfloat16"}
            Of a model that is to be loaded; see :class:`~sparse_sts_index.encoder.SparseStsEncoder`.
        overwrite : bool
            Replace an index that is there.
        progress : callable, optional
            Called with the number of documents encoded since its last call.

        Raises
        ------
        DataError
            A duplicate or unusable id; no documents.
        ModelError
            The model does not load, or gives unusable weights.
        ImpactIndexError
            `path` holds an index (and not `overwrite`) or something else, or cannot be written.
        JavaError
            No Java to write it with.
        """
        start = time.monotonic()
        path = Path(path)
        quantizer = quantizer or Quantizer()
        _check_target(path, overwrite)
        software = _software()  # starts Java: whether there is one is better known before hours of encoding
        encoder = model if isinstance(model, SparseStsEncoder) else SparseStsEncoder.load(model, precision=precision)
        terms = encoder.vocabulary.terms
        counts = _Counts()
        ours = not _holds_index(path)  # then whatever comes into the folder is of this build
        made = [folder for folder in (path / LUCENE_FOLDER, path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            try:
                writer = ImpactWriter(path / LUCENE_FOLDER)
            except ImpactIndexError:
                ours = False  # it may be of another build, which has the lock
                raise

            def write(chunk: Chunk) -> None:
                ids, texts = zip(*((document.id, document.text) for document in chunk.documents), strict=True)
                try:
                    writer.add(ids, texts, chunk.impacts, terms)
                finally:
                    detach_thread()
                counts.add(chunk.impacts, quantizer.errors(chunk.vectors))

            with writer:
                for _ in overlap(
                    write, encode_documents(_as_documents(documents), encoder, quantizer, progress=progress)
                ):
                    pass
                if not counts.documents:
                    raise DataError("no documents to index")
                writer.merge()
                manifest = Manifest(
                    model=_location(encoder.name),
                    model_fingerprint=encoder.fingerprint,
                    vocabulary_sha256=encoder.vocabulary.sha256,
                    precision=encoder.precision,
                    document_bits=quantizer.bits,
                    query_bits=quantizer.bits,
                    max_document_error=counts.max_error,
                    documents=counts.documents,
                    empty_documents=counts.empty,
                    postings=counts.postings,
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                    build_seconds=round(time.monotonic() - start, 3),
                    software=software,
                )
                writer.commit({_MANIFEST_KEY: manifest.to_json()})
            with atomic_writer(path / MANIFEST_FILE) as file:
                file.write(manifest.to_json() + "\n")
        except BaseException as error:
            _undo(path, made, files=ours)
            if isinstance(error, OSError):
                raise ImpactIndexError(f"cannot write {path}: {error.strerror or error}") from error
            raise
        return cls.open(path, encoder)

    @cached_property
    def encoder(self) -> SparseStsEncoder:
        """The encoder, loaded on first use and checked against the manifest.

        Raises
        ------
        ModelMismatchError
            It is not the model the index was built with.
        ModelError
            It does not load.
        """
        manifest = self.manifest
        if isinstance(self._model, SparseStsEncoder):
            encoder = self._model
        else:
            try:
                encoder = SparseStsEncoder.load(self._model, precision=self._precision)
            except ModelError as error:
                if self._model != manifest.model:
                    raise
                raise ModelError(
                    f"{error} (the index {self.path} was built with it; say where the model is now: model=, --model)"
                ) from error
        if encoder.fingerprint != manifest.model_fingerprint:
            raise ModelMismatchError(
                f"index {self.path} was built with model {manifest.model} ({manifest.model_fingerprint[:12]}), "
                f"not with {encoder.name} ({encoder.fingerprint[:12]})"
            )
        return encoder

    @property
    def quantizer(self) -> Quantizer:
        """The queries' quantizer."""
        return Quantizer(self.manifest.query_bits)

    def search(self, texts: Sequence[str], k: int = 10, *, explain: bool = False) -> list[list[Hit]]:
        """The nearest sentences of each text.

        Parameters
        ----------
        texts : sequence of str, length n
        k : int
            Hits a text, at least 1.
        explain : bool
            Give each hit its shared terms.

        Returns
        -------
        list of n lists of up to k Hit
            By score descending, ties by id. Sentences that share no term with the text (cosine 0) are not found.

        Raises
        ------
        ModelMismatchError, ModelError
            See :attr:`encoder`.
        DataError
            A text holds an unpaired surrogate.
        ValueError
            `k` below 1, or `texts` is a bare string.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        vectors = self.encoder.encode(texts)
        impacts = self.quantizer.quantize(vectors)
        errors = cosine_error_bound(vectors, self.quantizer, self.manifest.max_document_error)
        terms = self.encoder.vocabulary.terms
        results = []
        for row, error in enumerate(errors.tolist()):
            query = query_terms(impacts, row, terms)
            hits = []
            for docid, score in self._reader.search(*query, k) if query[0] else []:
                doc_id, text = self._reader.stored(docid)
                explanation = self._explain(*query, docid) if explain else None
                hits.append(Hit(doc_id, text, score / self.manifest.score_scale, error, explanation))
            results.append(hits)
        return results

    def _explain(self, terms: list[str], weights: list[int], docid: int) -> tuple[TermContribution, ...]:
        manifest, vocabulary = self.manifest, self.encoder.vocabulary
        query_scale = self.quantizer.scale
        document_scale = manifest.score_scale // query_scale
        return shared_terms(
            vocabulary,
            vocabulary.term_ids(terms),
            [weight / query_scale for weight in weights],
            [impact / document_scale for impact in self._reader.impacts(docid, terms)],
        )

    def score_pairs(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """Float cosine of each sentence of `a` with the one of `b` at its side, from the model.

        See :meth:`sparse_sts_index.encoder.SparseStsEncoder.score_pairs`.
        """
        return self.encoder.score_pairs(a, b)

    def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        docid = self._reader.docid(doc_id)
        return None if docid is None else Document(*self._reader.stored(docid))

    def __len__(self) -> int:
        return len(self._reader)

    def close(self) -> None:
        """Release the index's files."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclasses.dataclass
class _Counts:
    documents: int = 0
    empty: int = 0
    postings: int = 0
    max_error: float = 0.0

    def add(self, impacts: csr_array, errors: NDArray[np.float64]) -> None:
        self.documents += impacts.shape[0]
        self.empty += int((np.diff(impacts.indptr) == 0).sum())
        self.postings += impacts.nnz
        self.max_error = max(self.max_error, float(errors.max()))


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse to build over an index that may not be replaced, or over anything that is not an index."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ImpactIndexError(f"{path} is a file, not a folder for an index")
    for entry in sorted(path.iterdir()):
        # A build that was killed may have left its partial copy of the manifest.
        if entry.name not in (LUCENE_FOLDER, MANIFEST_FILE) and not entry.match(f".{MANIFEST_FILE}.*.partial"):
            raise ImpactIndexError(f"{path} is not an index and not empty (it holds {entry.name})")
    if _holds_index(path) and not overwrite:
        raise ImpactIndexError(f"{path} already holds an index; replace it with overwrite=True, --overwrite")


def _holds_index(path: Path) -> bool:
    """Whether a build has ever been committed there, by the file that every Lucene commit leaves."""
    return any((path / LUCENE_FOLDER).glob("segments_*"))


def _undo(path: Path, made: list[Path], files: bool) -> None:
    """Remove what a failed build leaves: `files` if they are its own, and the folders it `made`, innermost first."""
    if files:
        shutil.rmtree(path / LUCENE_FOLDER, ignore_errors=True)
        (path / MANIFEST_FILE).unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):  # it was not made after all, or something is in it
            folder.rmdir()


def _as_documents(documents: Iterable[Document | str]) -> Iterator[Document]:
    for ordinal, document in enumerate(documents, 1):
        yield Document(str(ordinal), document) if isinstance(document, str) else document


def _location(model: str) -> str:
    """A model's name such that it is found from any working directory."""
    return str(Path(model).resolve()) if model != TINY and Path(model).is_dir() else model


def _software() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in _PACKAGES}
    python = ".".join(map(str, sys.version_info[:3]))
    return {**versions, "python": python, "lucene": lucene_version(), "java": java_version()}
