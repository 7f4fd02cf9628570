"""Sentences: build an index of them, ask it for the nearest ones, keep it up to date."""

from __future__ import annotations

import itertools
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.environment import package_versions
from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.data.documents import Chunk, Document, check_ids
from sparse_sts_index.data.fields import NO_FIELDS, FieldType, FieldValue, check_types
from sparse_sts_index.data.filters import Filter, Where, filter_for
from sparse_sts_index.encoding.bundled import NAMES
from sparse_sts_index.encoding.documents import encode_documents
from sparse_sts_index.encoding.matching import load_matching
from sparse_sts_index.errors import ModelMismatchError
from sparse_sts_index.search.certified import Mode, Neighbours, check_search, check_vectors
from sparse_sts_index.search.linkage import Linkage
from sparse_sts_index.search.results import Groups, Hit, Hits, Pair, scored
from sparse_sts_index.search.searcher import DEFAULT_MEMORY, Searcher
from sparse_sts_index.search.similarity_join import check_threshold, similar_rows, similar_rows_between
from sparse_sts_index.storage.builder import check_target
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.layout import is_collection
from sparse_sts_index.storage.lucene.jvm import start_jvm
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.storage.snapshot import Snapshot
from sparse_sts_index.storage.transaction import software
from sparse_sts_index.vectors.explanations import TermContribution, explain_pair
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.spec import Precision

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

_ENCODER = ("sentence-transformers", "transformers", "torch")


class SparseStsIndex:
    """A Lucene impact index of sentences together with the encoder that made it.

    Open one with :meth:`open`, or make one with :meth:`build`. Usable as a context manager. It shows one snapshot of
    the index until :meth:`refresh`; changes made through it show at once.

    Attributes
    ----------
    path : Path
    """

    def __init__(
        self,
        vectors: ImpactIndex,
        model: SparseStsEncoder | str | Path | None,
        precision: Precision | None,
        in_memory: bool | None = None,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self.path = vectors.path
        self._vectors = vectors
        self._in_memory, self._memory = in_memory, memory
        self._model = model
        self._precision = precision
        self._encoder: SparseStsEncoder | None = None
        self._loading = threading.Lock()  # one thread loads a model; the loaders are not for several at a time

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: SparseStsEncoder | str | Path | None = None,
        *,
        precision: Precision | None = None,
        writable: bool = False,
        in_memory: bool | None = None,
        memory: int | None = None,
        check: bool = True,
    ) -> Self:
        """Open an index.

        Parameters
        ----------
        path : str or Path
            What :meth:`build` was given.
        model : SparseStsEncoder, str or Path, optional
            The encoder, or where to load it from. Default: where the manifest says it was. Loaded when first needed.
        precision : {"auto", "float32", "bfloat16"}, optional
            Of a model that is to be loaded. Default: what the documents were encoded in.
        writable : bool
            To change it, which one process at a time may.
        in_memory : bool, optional
            Hold the impacts by term in memory, whatever they take, and search there, exactly in every mode; or search
            with Lucene. Exact search finds the same either way. Default: in memory where `memory` suffices, after the
            first 100 queries, or :meth:`prepare`.
        memory : int, optional
            Bytes that the impacts may take: at most 4 for each term of a sentence. Default: 1 GiB.
        check : bool
            Compare all files with their checksums first, and after :meth:`refresh` what is new, so that a damaged index
            is refused and gives no wrong answers. Reads everything, about 1 GB a second.

        Raises
        ------
        ImpactIndexError
            No index there, an unfinished or damaged one, one of another format, or (to write) another writer is at it.
        JavaError
            No Java to read it with.
        ValueError
            `memory` is not a whole number of at least 0.
        """
        memory = DEFAULT_MEMORY if memory is None else memory
        check_whole("memory", memory, 0, math.inf)
        vectors = ImpactIndex.open(path, writable=writable, check=check)
        return cls(vectors, model, precision, in_memory, memory)

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
        max_active_dims: int | None = None,
        fields: Mapping[str, FieldType] = NO_FIELDS,
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
            Of the impacts. Default: 8 bits.
        precision : {"auto", "float32", "bfloat16"}
            Of a model that is to be loaded; see :class:`~sparse_sts_index.encoding.encoder.SparseStsEncoder`.
        overwrite : bool
            Replace an index that is there.
        max_active_dims : int, optional
            Of a model that is to be loaded: keep this many terms of a sentence, those of most weight. Queries are
            treated alike.
        fields : mapping of str to {"keyword", "keywords", "number", "date", "boolean"}, optional
            What else of a document is kept, to be shown and filtered by.
        progress : callable, optional
            Called with the number of documents encoded since its last call.

        Raises
        ------
        DataError
            A duplicate or unusable id; a field that is not among `fields`, or not of its type; no documents.
        ModelError
            The model does not load, or gives unusable weights.
        ImpactIndexError
            `path` holds an index (and not `overwrite`) or something else, or cannot be written.
        JavaError
            No Java to write it with.
        """
        start = time.monotonic()
        quantizer, wanted, types = quantizer or Quantizer(), _as_documents(documents), check_types(fields)
        check_target(Path(path), overwrite)
        start_jvm()  # whether there is a Java is better known before hours of encoding
        if isinstance(model, str | os.PathLike):
            from sparse_sts_index.encoding.encoder import SparseStsEncoder  # imports torch

            encoder = SparseStsEncoder.load(model, precision=precision, max_active_dims=max_active_dims)
        else:
            if max_active_dims not in (None, model.max_active_dims):
                raise ValueError("max_active_dims is of a model that is to be loaded; give it to the encoder")
            encoder = model
        manifest = describe(encoder, quantizer).with_fields(types)
        chunks = encode_documents(wanted, encoder, quantizer, progress=progress)
        ImpactIndex.build(path, chunks, manifest, encoder.vocabulary, overwrite=overwrite, start=start)
        return cls.open(path, encoder)

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the current snapshot."""
        return self._vectors.manifest

    @property
    def encoder(self) -> SparseStsEncoder:
        """The encoder, loaded on first use and checked against the manifest.

        Raises
        ------
        ModelMismatchError
            It is not the model the index was built with.
        ModelError
            It does not load.
        ForkError
            This process was forked after the index was opened.
        """
        JAVA.check()  # before a model is loaded for an index that cannot be searched
        with self._loading:
            if self._encoder is None:
                owner = f"index {self.path}"
                remedy = "say where the model is now: --model, model="
                if not is_collection(self.path):
                    remedy += f", or for good: sparse-sts relocate {shlex.quote(str(self.path))} --model MODEL"
                self._encoder = load_matching(
                    self.manifest, owner, self._model, precision=self._precision, remedy=remedy
                )
            return self._encoder

    @property
    def quantizer(self) -> Quantizer:
        """The documents' quantizer."""
        return Quantizer(self.manifest.bits)

    def prepare(self) -> None:
        """Make now what the first searches would wait for: the model, and the impacts in memory where they may be.

        Raises
        ------
        ModelMismatchError, ModelError, ForkError
            See :attr:`encoder`.
        """
        _ = self.encoder
        with self._vectors.using() as snapshot:
            Searcher(snapshot, self._in_memory, self._memory).prepare()

    def search(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        mode: Mode = "exact",
        explain: bool = False,
        where: Where = None,
        min_cosine: float = 0.0,
        offset: int = 0,
        group_by: str | None = None,
    ) -> list[Hits]:
        """The nearest sentences of each text.

        Parameters
        ----------
        texts : sequence of str, length n
            Several at once are searched for on all cores.
        k : int
            Hits a text, at least 1.
        mode : {"exact", "two-step", "approximate"}
            ``exact`` gives what brute force over the float vectors would give, with a proof. ``two-step`` looks for
            candidates by the heaviest terms of the text, ``approximate`` by fewer still and among fewer; scores are
            the float cosines in all of them. See :mod:`sparse_sts_index.search.certified`.
        explain : bool
            Give each hit its shared terms.
        where : str, mapping or Filter, optional
            Look only among the documents whose fields pass this filter; see :mod:`sparse_sts_index.data.filters`. No
            score depends on it.
        min_cosine : float
            Leave out hits with less.
        offset : int
            Leave out as many of the nearest: the hits of the next page. Pages do not overlap while the index stays.
        group_by : str, optional
            Give the nearest document of each value of this field, for the `k` values that have the nearest ones.

        Returns
        -------
        list of n Hits
            Sentences that share no term with the text (cosine 0) are not found.

        Raises
        ------
        ModelMismatchError, ModelError
            See :attr:`encoder`.
        DataError
            A text holds an unpaired surrogate; a filter that cannot be read, or does not fit the fields.
        ValueError
            `k` below 1, no such `mode`, `min_cosine` not within 0 and 1, `offset` below 0, or `texts` is a bare string.
        """
        where = self._checked(k, mode, where, min_cosine, offset)
        vectors = self.encoder.encode(texts)
        paged: dict[str, Any] = {"where": where, "min_cosine": min_cosine, "offset": offset, "group_by": group_by}
        hits = self.search_vectors(vectors, k, mode=mode, explain=explain, **paged)
        calibration = self.encoder.calibration
        return hits if calibration is None else [scored(found, calibration) for found in hits]

    def _checked(self, k: int, mode: str, where: Where, min_cosine: float, offset: int) -> Filter | None:
        """Refuse what no search can be made with before a model is loaded; return the filter."""
        check_search(k, mode)
        check_real("min_cosine", min_cosine, 0, 1)
        check_whole("offset", offset, 0, math.inf)
        return self._filter(where)

    def search_vectors(
        self,
        vectors: csr_array,
        k: int = 10,
        *,
        mode: Mode = "exact",
        explain: bool = False,
        where: Where = None,
        min_cosine: float = 0.0,
        offset: int = 0,
        group_by: str | None = None,
    ) -> list[Hits]:
        """:meth:`search` for texts that are encoded already; no model is loaded, so hits have a cosine and no score.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised, as :meth:`~sparse_sts_index.encoding.encoder.SparseStsEncoder.encode` gives them.

        Raises
        ------
        ValueError
            Also if the vectors are not as wide as the vocabulary, or have weights that are negative or no numbers.
        """
        where = self._checked(k, mode, where, min_cosine, offset)
        vectors = check_vectors(vectors, self.manifest.vocabulary_size)
        with self._vectors.using() as snapshot:
            searcher = Searcher(snapshot, self._in_memory, self._memory)
            if group_by is None:
                near = searcher.search(vectors, k + offset, mode, where)
            else:
                near = searcher.search_groups(vectors, k + offset, group_by, mode, where)
            results = [found.part(offset, min_cosine) for found in near]
            rows = np.array([row for found in results for row in found.rows], np.int64)
            documents = iter(snapshot.documents(rows))
            if not explain:
                return [_hits(found, documents, itertools.repeat(None)) for found in results]
            return [
                _hits(found, documents, _explanations(snapshot, vectors[[row]], found))
                for row, found in enumerate(results)
            ]

    def counts(self, field: str, *, where: Where = None) -> dict[FieldValue, int]:
        """Count the documents with each value of a field of keywords or booleans, the most frequent value first.

        Parameters
        ----------
        field : str
        where : str, mapping or Filter, optional
            Count only the documents whose fields pass this filter.

        Raises
        ------
        DataError
            No such field, or one of numbers or dates; a filter that cannot be read, or does not fit the fields.
        """
        with self._vectors.using() as snapshot:
            return Searcher(snapshot).counts(field, filter_for(where, snapshot.manifest.fields))

    def score_pairs(self, a: Sequence[str], b: Sequence[str]) -> NDArray[np.float64]:
        """Float cosine of each sentence of `a` with the one of `b` at its side, from the model.

        See :meth:`sparse_sts_index.encoding.encoder.SparseStsEncoder.score_pairs`.
        """
        return self.encoder.score_pairs(a, b)

    def duplicates(
        self, threshold: float = 0.9, *, where: Where = None, progress: Callable[[int], None] | None = None
    ) -> Iterator[Pair]:
        """All pairs of sentences whose cosine is at least `threshold`, exactly, each once.

        See :mod:`sparse_sts_index.search.similarity_join`. Holds the impacts in memory, at most 4 bytes per posting.

        Parameters
        ----------
        threshold : float
            Above 0, at most 1. A cosine that lacks up to 2e-6 of it counts.
        where : str, mapping or Filter, optional
            Look only at the documents whose fields pass this filter.
        progress : callable, optional
            Called with the number of sentences done since its last call.

        Yields
        ------
        Pair
            As they are found, in the order of addition.

        Raises
        ------
        ValueError
            `threshold` out of range.
        """
        check_threshold(threshold)
        return self._duplicates(threshold, self._filter(where), progress)

    def _filter(self, where: Where) -> Filter | None:
        return filter_for(where, self.manifest.fields)

    def _duplicates(
        self, threshold: float, where: Filter | None, progress: Callable[[int], None] | None
    ) -> Iterator[Pair]:
        with self._vectors.using() as snapshot:
            among = Searcher(snapshot).passing(where)
            for first, second, cosines in similar_rows(snapshot.store, threshold, among=among, progress=progress):
                rows, places = np.unique(np.concatenate((first, second)), return_inverse=True)
                documents = snapshot.documents(rows)
                for a, b, cosine in zip(*places.reshape(2, -1).tolist(), cosines.tolist(), strict=True):
                    yield Pair(documents[a], documents[b], cosine)

    def join(
        self, other: SparseStsIndex, threshold: float = 0.9, *, progress: Callable[[int], None] | None = None
    ) -> Iterator[Pair]:
        """All pairs of a sentence here and one of another index whose cosine is at least `threshold`, exactly.

        Holds the impacts of the other index in memory, at most 4 bytes per posting.

        Parameters
        ----------
        other : SparseStsIndex
            Built with the same model.
        threshold : float
            Above 0, at most 1. A cosine that lacks up to 2e-6 of it counts.
        progress : callable, optional
            Called with the number of sentences here done since its last call.

        Yields
        ------
        Pair
            As they are found, in the order of addition here, then there.

        Raises
        ------
        ModelMismatchError
            The other index was built with another model.
        ValueError
            `threshold` out of range.
        """
        check_threshold(threshold)
        self._check_comparable(other)
        return self._joined(other, threshold, progress)

    def _check_comparable(self, other: SparseStsIndex) -> None:
        if not self.manifest.comparable(other.manifest):
            raise ModelMismatchError(
                f"{self.path} was built with {self.manifest.model} and {other.path} with {other.manifest.model}: "
                "no cosine of both means anything"
            )

    def _joined(
        self, other: SparseStsIndex, threshold: float, progress: Callable[[int], None] | None
    ) -> Iterator[Pair]:
        with self._vectors.using() as here, other._vectors.using() as there:
            for first, second, cosines in similar_rows_between(here.store, there.store, threshold, progress=progress):
                firsts, places = np.unique(first, return_inverse=True)
                seconds, others = np.unique(second, return_inverse=True)
                ours, theirs = here.documents(firsts), there.documents(seconds)
                for a, b, cosine in zip(places.tolist(), others.tolist(), cosines.tolist(), strict=True):
                    yield Pair(ours[a], theirs[b], cosine)

    def join_nearest(
        self,
        other: SparseStsIndex,
        k: int = 1,
        *,
        min_cosine: float = 0.0,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Pair]:
        """Each sentence here with its `k` nearest of another index, exactly; fewer where it shares a term with fewer.

        Parameters
        ----------
        other : SparseStsIndex
            Built with the same model.
        k : int
            At least 1.
        min_cosine : float
            Leave out pairs with less.
        progress : callable, optional
            Called with the number of sentences here done since its last call.

        Yields
        ------
        Pair
            In the order of addition here, the nearest first.

        Raises
        ------
        ModelMismatchError
            The other index was built with another model.
        ValueError
            `k` below 1, or `min_cosine` not within 0 and 1.
        """
        self._checked(k, "exact", None, min_cosine, 0)
        self._check_comparable(other)
        return self._joined_nearest(other, k, min_cosine, progress)

    def _joined_nearest(
        self, other: SparseStsIndex, k: int, min_cosine: float, progress: Callable[[int], None] | None
    ) -> Iterator[Pair]:
        with self._vectors.using() as here:
            for chunk in here.chunks():
                found = other.search_vectors(chunk.vectors, k, min_cosine=min_cosine)
                for document, hits in zip(chunk.documents, found, strict=True):
                    for hit in hits:
                        yield Pair(document, Document(hit.id, hit.text, fields=hit.fields), hit.cosine)
                if progress is not None:
                    progress(len(chunk.documents))

    def clusters(
        self, threshold: float = 0.9, *, where: Where = None, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Document]]:
        """Sentences that hang together by :meth:`duplicates` (single linkage), two or more at a time.

        Parameters and errors are those of :meth:`duplicates`.

        Yields
        ------
        list of Document
            The largest cluster first; each in the order of addition.
        """
        check_threshold(threshold)
        return self._clusters(threshold, self._filter(where), progress)

    def _clusters(
        self, threshold: float, where: Filter | None, progress: Callable[[int], None] | None
    ) -> Iterator[list[Document]]:
        with self._vectors.using() as snapshot:
            among = Searcher(snapshot).passing(where)
            linkage = Linkage(snapshot.store, threshold, among=among, progress=progress)
            for rows, _ in linkage.clusters(threshold):
                yield snapshot.documents(rows)

    def groups(
        self, threshold: float = 0.9, *, where: Where = None, progress: Callable[[int], None] | None = None
    ) -> Groups:
        """:meth:`clusters` for all thresholds from a least one on, out of one comparison of all with all.

        Parameters and errors are those of :meth:`duplicates`.
        """
        check_threshold(threshold)
        found = self._filter(where)
        with self._vectors.using() as snapshot:
            among = Searcher(snapshot).passing(found)
            linkage = Linkage(snapshot.store, threshold, among=among, progress=progress)
            rows = linkage.rows
            return Groups(linkage, dict(zip(rows.tolist(), snapshot.store.ids(rows), strict=True)))

    def add(
        self, documents: Iterable[Document], *, commit: bool = True, progress: Callable[[int], None] | None = None
    ) -> None:
        """Add documents under ids that are not in the index: all of them or, if anything fails, none.

        Parameters
        ----------
        documents : iterable of Document
        commit : bool
            Make it durable, and visible to others, at once. Otherwise it shows here alone until :meth:`commit`, and is
            lost if this index is closed before.
        progress : callable, optional
            Called with the number of documents encoded since its last call.

        Raises
        ------
        DataError
            An id is there already, or comes twice.
        ImpactIndexError
            The index was not opened with ``writable=True``, or cannot be written.
        ModelMismatchError, ModelError
            See :attr:`encoder`.
        """
        self._vectors.write(self._encoded(documents, progress), replace=False, commit=commit)

    def update(
        self, documents: Iterable[Document], *, commit: bool = True, progress: Callable[[int], None] | None = None
    ) -> int:
        """Put documents in the place of those with their ids; add those whose id is new.

        Parameters and errors are those of :meth:`add`, but for the ids.

        Returns
        -------
        int
            How many took the place of others.
        """
        return self._vectors.write(self._encoded(documents, progress), replace=True, commit=commit)

    def write_vectors(
        self, documents: Sequence[Document], vectors: csr_array, *, replace: bool = False, commit: bool = True
    ) -> int:
        """:meth:`add`, or with `replace` :meth:`update`, for documents that are encoded already; no model is loaded.

        Parameters
        ----------
        documents : sequence of Document, length n
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised, as :meth:`~.encoding.encoder.SparseStsEncoder.encode` of the index's model gives them.

        Returns
        -------
        int
            How many took the place of others.

        Raises
        ------
        DataError, ImpactIndexError
            See :meth:`add`.
        ValueError
            As :meth:`search_vectors`; or not as many vectors as documents.
        """
        documents = list(check_ids(_as_documents(documents, strings=False)))
        vectors = check_vectors(vectors, self.manifest.vocabulary_size)
        if vectors.shape[0] != len(documents):
            raise ValueError(f"{vectors.shape[0]} vectors for {len(documents)} documents")
        chunk = Chunk(documents, vectors, self.quantizer.quantize(vectors))
        return self._vectors.write([chunk], replace=replace, commit=commit)

    def _encoded(self, documents: Iterable[Document], progress: Callable[[int], None] | None) -> Iterator[Chunk]:
        self._vectors.check_writable()  # before the model is loaded
        documents = _as_documents(documents, strings=False)
        return encode_documents(documents, self.encoder, self.quantizer, progress=progress)

    def delete(self, ids: Iterable[str], *, commit: bool = True) -> int:
        """Delete documents by id. Ids that are not there are passed over.

        Returns
        -------
        int
            How many were there.

        Raises
        ------
        ImpactIndexError
            As :meth:`add`.
        """
        return self._vectors.delete(ids, commit=commit)

    def commit(self) -> None:
        """Make what was changed with ``commit=False`` durable, and visible to others."""
        self._vectors.commit()

    def relocate(self, model: str | Path) -> None:
        """Name the place where the model is now, and commit.

        Parameters
        ----------
        model : str or Path
            The same model, moved: a folder, a hub id or the name of one that pip brings. It is loaded and compared.

        Raises
        ------
        ImpactIndexError
            The index was not opened with ``writable=True``, or cannot be written.
        ModelMismatchError, ModelError
            It is another model, or does not load.
        """
        self._vectors.check_writable()  # before the model is loaded
        encoder = load_matching(self.manifest, f"index {self.path}", model, precision=self._precision)
        self._vectors.name_model(_location(str(model)))
        with self._loading:
            self._encoder = encoder

    def refresh(self) -> bool:
        """See what other processes have committed since; whether there was anything."""
        before = self.manifest.model_fingerprint
        changed = self._vectors.refresh()
        if self.manifest.model_fingerprint != before:  # built anew with another model, to be checked again
            with self._loading:
                self._encoder = None
        return changed

    def compact(self, *, progress: Callable[[int], None] | None = None) -> None:
        """Free the room of deleted and replaced documents; see :meth:`.storage.impact_index.ImpactIndex.compact`."""
        self._vectors.compact(progress=progress)

    def verify(self, *, progress: Callable[[int], None] | None = None) -> int:
        """Check the whole index against itself; see :meth:`.storage.impact_index.ImpactIndex.verify`."""
        return self._vectors.verify(progress=progress)

    def read(self, *, skip: int = 0) -> Iterator[Chunk]:
        """All documents with their vectors and impacts; see :meth:`.storage.impact_index.ImpactIndex.read`."""
        return self._vectors.read(skip=skip)

    def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        return self._vectors.get(doc_id)

    def get_many(self, ids: Sequence[str]) -> list[Document | None]:
        """The document with each id, or None where there is none."""
        return self._vectors.get_many(ids)

    def __len__(self) -> int:
        return len(self._vectors)

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            f"an open index cannot be pickled: send its path ({self.path}), and open it in the other process"
        )

    def close(self) -> None:
        """Release the index's files; drops changes that are not committed."""
        self._vectors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hits(
    found: Neighbours, documents: Iterator[Document], explanations: Iterable[tuple[TermContribution, ...] | None]
) -> Hits:
    hits = [
        Hit(document.id, document.text, cosine, None, explanation, cast("Mapping[str, FieldValue]", document.fields))
        for cosine, explanation, document in zip(found.cosines, explanations, documents)  # noqa: B905
    ]
    return Hits(tuple(hits), found.certified, found.bound)


def _explanations(snapshot: Snapshot, query: csr_array, found: Neighbours) -> Iterator[tuple[TermContribution, ...]]:
    vectors, vocabulary = snapshot.store.take(np.array(found.rows, np.int64)), snapshot.vocabulary
    return (explain_pair(vocabulary, query, vectors[[row]]) for row in range(len(found.rows)))


def describe(encoder: SparseStsEncoder, quantizer: Quantizer) -> Manifest:
    """The manifest of an index that is to be built with them; starts Java."""
    settings = encoder.spec(quantizer.bits).settings() | {"model": _location(encoder.name)}
    return Manifest(**settings, software=package_versions(_ENCODER) | software())


def _as_documents(documents: Iterable[Document | str], strings: bool = True) -> Iterator[Document]:
    """Yield documents; bare strings with their ordinal, from 1, as id, if `strings` are allowed.

    Raises
    ------
    ValueError
        `documents` is one string or document, or a table; or one of them is neither.
    """
    if isinstance(documents, str | Document) or not isinstance(documents, Iterable):
        hint = "; read_corpus reads a file" if isinstance(documents, str) else ""
        raise ValueError(f"expected a sequence of documents, not one {type(documents).__name__}{hint}")
    if isinstance(documents, Mapping) or getattr(documents, "ndim", 1) != 1:
        raise ValueError("expected a sequence of documents, not a table; make a Document of each row")
    return _each_as_document(documents, strings)


def _each_as_document(documents: Iterable[Document | str], strings: bool) -> Iterator[Document]:
    for ordinal, document in enumerate(documents, 1):
        if isinstance(document, Document):
            yield document
        elif strings and isinstance(document, str):
            yield Document(str(ordinal), document)
        else:
            kinds = "a Document or a string" if strings else "a Document"
            raise ValueError(f"document {ordinal} must be {kinds}, not {type(document).__name__}")


def _location(model: str) -> str:
    """A model's name such that it is found from any working directory."""
    return str(Path(model).resolve()) if model not in NAMES and Path(model).is_dir() else model
