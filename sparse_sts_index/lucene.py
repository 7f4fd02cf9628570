"""Impacts in Lucene: write them, search them, read them back.

The only module that names Java classes. The index is what Anserini itself would have built with ``-impact
-pretokenized`` from the same vectors, so that any Pyserini or Anserini reads it:

* ``id``: the document id, stored, indexed and as doc values (which break ties between scores);
* ``contents``: the impacts, as term frequencies, without norms or positions;
* ``raw``: stored JSON with ``id`` and ``contents``, the sentence.

Unlike Anserini, which drops a document with no terms, such a document keeps its place here.

Anserini's ``ImpactSimilarity`` scores a term as ``boost * frequency``, so a query boosted by integer weights gets the
integer dot product. ``DelimitedTermFrequencyTokenFilter`` takes frequencies from the term list itself, which spares
writing each term as often as it weighs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array

from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.jvm import java_class, java_exception, jvm_lock
from sparse_sts_index.vocabulary import DELIMITER

ID, CONTENTS, RAW = "id", "contents", "raw"
_LUCENE = "org.apache.lucene."
_WRITE_BUFFER_MB = 128.0
# pyjnius picks among constructors by the number of arguments alone where it must choose; these name the one meant.
_TEXT_FIELD = "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
_READER = "(Lorg/apache/lucene/index/IndexReader;)V"
_NO_MORE_DOCS = 2**31 - 1  # DocIdSetIterator.NO_MORE_DOCS


class ImpactWriter:
    """Builds an index in one go, visible only once it is committed.

    What readers see changes in Lucene's own commit, a single atomic rename. Until then, and if this process dies at
    any point, a directory that held an index still holds the old one, whole; an empty one still holds none.

    Parameters
    ----------
    directory : Path
        Where the Lucene files go. An index already there is replaced by the commit.

    Raises
    ------
    ImpactIndexError
        Another process is writing there, or the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with _crossing(directory):
            self._store = _open_directory(directory)
            config = java_class(_LUCENE + "index.IndexWriterConfig")(_impact_analyzer())
            config.setOpenMode(java_class(_LUCENE + "index.IndexWriterConfig$OpenMode").CREATE)
            config.setSimilarity(java_class("io.anserini.search.similarity.ImpactSimilarity")())
            config.setRAMBufferSizeMB(_WRITE_BUFFER_MB)
            config.setCommitOnClose(False)
            self._writer = java_class(_LUCENE + "index.IndexWriter")(self._store, config)
        try:
            with _crossing(directory):
                self._make_document()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _make_document(self) -> None:
        """One Lucene document, its fields set anew for each of ours: three calls into Java instead of a dozen."""
        self._id = java_class(_LUCENE + "document.StringField")(ID, "", _store_yes())
        self._id_values = java_class(_LUCENE + "document.BinaryDocValuesField")(
            ID, java_class(_LUCENE + "util.BytesRef")()
        )
        self._raw = java_class(_LUCENE + "document.StoredField")(RAW, "")
        self._contents = java_class(_LUCENE + "document.Field")(
            CONTENTS, java_class("java.lang.String")(""), _impact_field_type(), signature=_TEXT_FIELD
        )
        self._document = java_class(_LUCENE + "document.Document")()
        for field in (self._id, self._id_values, self._raw, self._contents):
            self._document.add(field)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop whatever is not committed, and release the directory."""
        with _crossing(self._directory):
            self._writer.rollback()
            self._store.close()

    def add(self, ids: Sequence[str], texts: Sequence[str], impacts: csr_array, terms: Sequence[str]) -> None:
        """Append documents, in order.

        Parameters
        ----------
        ids, texts : sequence of str, length n
        impacts : csr_array of int, shape (n, vocab)
            Positive impacts. A row without any makes an empty document.
        terms : sequence of str, length vocab
            The Lucene term of each column; see :class:`~sparse_sts_index.vocabulary.Vocabulary`.
        """
        indptr, indices, data = impacts.indptr.tolist(), impacts.indices.tolist(), impacts.data.tolist()
        with _crossing(self._directory):
            for row, (doc_id, text) in enumerate(zip(ids, texts, strict=True)):
                entries = range(indptr[row], indptr[row + 1])
                self._id.setStringValue(doc_id)
                self._id_values.setBytesValue(doc_id.encode())
                self._raw.setStringValue(json.dumps({"id": doc_id, "contents": text}, ensure_ascii=False))
                self._contents.setStringValue(" ".join(f"{terms[indices[i]]}{DELIMITER}{data[i]}" for i in entries))
                self._writer.addDocument(self._document)

    def merge(self) -> None:
        """Merge to one segment: the bulk of the work that is left to do before a commit, and the best to search."""
        with _crossing(self._directory):
            self._writer.forceMerge(1)

    def commit(self, user_data: Mapping[str, str]) -> None:
        """Make the index visible, together with `user_data`, in one atomic step."""
        with _crossing(self._directory):
            java_map = java_class("java.util.HashMap")()
            for key, value in user_data.items():
                java_map.put(key, value)
            entries = java_map.entrySet()
            self._writer.setLiveCommitData(entries)
            self._writer.commit()


class ImpactReader:
    """The committed state of an index at the time of opening; later commits do not disturb it.

    Raises
    ------
    ImpactIndexError
        There is no committed index, or Lucene cannot read it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with _crossing(directory):
            self._store = _open_directory(directory)
            self._reader = java_class(_LUCENE + "index.DirectoryReader").open(self._store)
            searcher_class = java_class(_LUCENE + "search.IndexSearcher")
            searcher_class.setMaxClauseCount(_NO_MORE_DOCS)  # an untrained SPLADE has thousands of active terms
            self._searcher = searcher_class(self._reader, signature=_READER)
            self._searcher.setSimilarity(java_class("io.anserini.search.similarity.ImpactSimilarity")())
            self._stored = self._reader.storedFields()
            self._leaves = [leaf.reader() for leaf in self._reader.leaves().toArray()]
            self._order = _score_then_id()

    def close(self) -> None:
        """Release the files."""
        with _crossing(self._directory):
            self._reader.close()
            self._store.close()

    @property
    def user_data(self) -> dict[str, str]:
        """What the writer committed along with the documents."""
        with _crossing(self._directory):
            entries = self._reader.getIndexCommit().getUserData().entrySet().toArray()
            return {entry.getKey(): entry.getValue() for entry in entries}

    def __len__(self) -> int:
        """The number of documents."""
        with _crossing(self._directory):
            count: int = self._reader.numDocs()
        return count

    def search(self, terms: Sequence[str], weights: Sequence[int], k: int) -> list[tuple[int, float]]:
        """The documents with the highest scores ``sum(weight * impact)``.

        Parameters
        ----------
        terms : sequence of str
            Lucene terms of the query.
        weights : sequence of int
            Their weights, positive.
        k : int
            How many, at least 1.

        Returns
        -------
        list of (int, float)
            Lucene document number and score, by score descending, ties by id ascending. Documents that share no term
            with the query are not found, so there may be fewer than `k`.
        """
        with _crossing(self._directory):
            query = _impact_query(terms, weights)
            limit = min(k, max(1, self._reader.maxDoc()))
            top = self._searcher.search(query, limit, self._order, True)
            return [(hit.doc, hit.score) for hit in top.scoreDocs]

    def score(self, terms: Sequence[str], weights: Sequence[int], doc_id: str) -> float:
        """What :meth:`search` gives the document with this id, as Lucene's scorer computes it; 0 for no shared term."""
        occur = java_class(_LUCENE + "search.BooleanClause$Occur")
        with _crossing(self._directory):
            query, only = _impact_query(terms, weights), _id_query(doc_id)
            builder = java_class(_LUCENE + "search.BooleanQuery$Builder")()
            builder.add(query, occur.MUST)
            builder.add(only, occur.FILTER)
            hits = self._searcher.search(builder.build(), 1).scoreDocs
        return hits[0].score if hits else 0.0

    def impacts(self, docid: int, terms: Sequence[str]) -> list[int]:
        """A document's impacts of `terms`, from the postings; 0 for a term it does not have."""
        term_class = java_class(_LUCENE + "index.Term")
        with _crossing(self._directory):
            leaf, base = self._leaf_of(docid)
            found = []
            for term in terms:
                postings = leaf.postings(term_class(CONTENTS, term))
                hit = postings is not None and postings.advance(docid - base) == docid - base
                found.append(postings.freq() if hit else 0)
            return found

    def stored(self, docid: int) -> tuple[str, str]:
        """Id and sentence of a document."""
        with _crossing(self._directory):
            raw = json.loads(self._stored.document(docid).get(RAW))
        return raw["id"], raw["contents"]

    def docid(self, doc_id: str) -> int | None:
        """Lucene document number of an id, or None."""
        with _crossing(self._directory):
            query = _id_query(doc_id)
            hits = self._searcher.search(query, 1).scoreDocs
        return hits[0].doc if hits else None

    def _leaf_of(self, docid: int) -> tuple[Any, int]:
        base = 0
        for leaf in self._leaves:
            if docid < base + leaf.maxDoc():
                return leaf, base
            base += leaf.maxDoc()
        raise ValueError(f"no document number {docid}")


def lucene_version() -> str:
    """Version of the Lucene in use, such as ``"9.9.1"``."""
    version: str = java_class(_LUCENE + "util.Version").LATEST.toString()
    return version


def query_terms(impacts: csr_array, row: int, terms: Sequence[str]) -> tuple[list[str], list[int]]:
    """Lucene terms and weights of one row of a csr_array of int, shape (n, vocab)."""
    entries = slice(impacts.indptr[row], impacts.indptr[row + 1])
    return [terms[i] for i in impacts.indices[entries].tolist()], impacts.data[entries].astype(np.int64).tolist()


def _open_directory(path: Path) -> Any:
    path = path.absolute()  # Java resolves relative paths from where the process was when Java started
    return java_class(_LUCENE + "store.FSDirectory").open(java_class("java.nio.file.Paths").get(str(path)))


def _impact_query(terms: Sequence[str], weights: Sequence[int]) -> Any:
    term_class = java_class(_LUCENE + "index.Term")
    term_query = java_class(_LUCENE + "search.TermQuery")
    boost_query = java_class(_LUCENE + "search.BoostQuery")
    should = java_class(_LUCENE + "search.BooleanClause$Occur").SHOULD
    builder = java_class(_LUCENE + "search.BooleanQuery$Builder")()
    for term, weight in zip(terms, weights, strict=True):
        builder.add(boost_query(term_query(term_class(CONTENTS, term)), float(weight)), should)
    return builder.build()


def _id_query(doc_id: str) -> Any:
    return java_class(_LUCENE + "search.TermQuery")(java_class(_LUCENE + "index.Term")(ID, doc_id))


def _impact_analyzer() -> Any:
    options = java_class("java.util.HashMap")()
    options.put("delimiter", DELIMITER)
    return (
        java_class(_LUCENE + "analysis.custom.CustomAnalyzer")
        .builder()
        .withTokenizer("whitespace", java_class("java.util.HashMap")())
        .addTokenFilter("delimitedTermFrequency", options)
        .build()
    )


def _impact_field_type() -> Any:
    field_type = java_class(_LUCENE + "document.FieldType")()
    field_type.setIndexOptions(java_class(_LUCENE + "index.IndexOptions").DOCS_AND_FREQS)
    field_type.setTokenized(True)
    field_type.setOmitNorms(True)
    field_type.freeze()
    return field_type


def _score_then_id() -> Any:
    sort_field = java_class(_LUCENE + "search.SortField")
    by_id = sort_field(ID, java_class(_LUCENE + "search.SortField$Type").STRING_VAL)
    return java_class(_LUCENE + "search.Sort")(sort_field.FIELD_SCORE, by_id)


def _store_yes() -> Any:
    return java_class(_LUCENE + "document.Field$Store").YES


@contextmanager
def _crossing(directory: Path) -> Iterator[None]:
    """Calls into Java: one thread at a time, and what Lucene throws turned into one line that says what to do.

    The lock is for pyjnius, whose methods are not bound as Python's are: ``object.method`` stores the object in the
    method that all objects of the class share, so two threads (or an argument that calls the same method of another
    object) would mix up receivers. For the latter reason nothing here nests such calls. A thread that has called stays
    attached to the virtual machine until it calls ``jnius.detach()``: use few threads that live long.
    """
    try:
        with jvm_lock:
            yield
    except java_exception() as error:
        kind = str(getattr(error, "classname", "")).rsplit(".", 1)[-1]
        detail = str(getattr(error, "innermessage", "") or error)
        if kind in ("IndexNotFoundException", "NoSuchFileException"):
            message = "no complete index (never built, or the build did not finish)"
        elif kind == "LockObtainFailedException":
            message = "another process is writing to this index"
        elif kind in ("IndexFormatTooNewException", "IndexFormatTooOldException"):
            message = f"written by another version of Lucene than {lucene_version()}: {detail}"
        else:
            message = f"{kind}: {detail}"
        raise ImpactIndexError(f"{directory}: {message}") from error
