"""Write impacts into Lucene; the form of the index is told in :mod:`sparse_sts_index.storage.lucene.reader`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.storage.layout import CONTENTS, ID, RAW, ROW
from sparse_sts_index.storage.lucene.jvm import java_call, java_class
from sparse_sts_index.storage.lucene.query import fields_text
from sparse_sts_index.storage.lucene.reader import LUCENE, ImpactReader, crossing, open_directory
from sparse_sts_index.vectors.vocabulary import DELIMITER

_WRITE_BUFFER_MB = 128.0
# pyjnius picks among constructors by the number of arguments alone where it must choose; this names the one meant.
_TEXT_FIELD = "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"


class ImpactWriter:
    """Changes an index; what it changes is visible to others once it is committed.

    What readers see changes in Lucene's own commit, a single atomic rename. Until then, and if this process dies at
    any point, a directory that held an index still holds the old one, whole; an empty one still holds none.

    Parameters
    ----------
    directory : Path
        Where the Lucene files go.
    create : bool
        Begin with no documents: the commit replaces an index that is there. Otherwise there has to be one.

    Raises
    ------
    ImpactIndexError
        Another process is writing there, or the directory cannot be written.
    """

    def __init__(self, directory: Path, *, create: bool = True) -> None:
        self._directory = directory
        with crossing(directory):
            self._store = open_directory(directory)
            config = java_class(LUCENE + "index.IndexWriterConfig")(_impact_analyzer())
            modes = java_class(LUCENE + "index.IndexWriterConfig$OpenMode")
            config.setOpenMode(modes.CREATE if create else modes.APPEND)
            config.setSimilarity(java_class("io.anserini.search.similarity.ImpactSimilarity")())
            config.setRAMBufferSizeMB(_WRITE_BUFFER_MB)
            config.setCommitOnClose(False)
            self._writer = java_call("openWriter")(self._store, config)
        try:
            with crossing(directory):
                self._make_document()
        except BaseException:
            self.close()
            raise

    def _make_document(self) -> None:
        """One Lucene document, its fields set anew for each of ours: a few calls into Java instead of a dozen."""
        self._id = java_class(LUCENE + "document.StringField")(ID, "", _store_yes())
        self._id_values = java_class(LUCENE + "document.BinaryDocValuesField")(
            ID, java_class(LUCENE + "util.BytesRef")()
        )
        self._raw = java_class(LUCENE + "document.StoredField")(RAW, "")
        self._contents = java_class(LUCENE + "document.Field")(
            CONTENTS, java_class("java.lang.String")(""), _impact_field_type(), signature=_TEXT_FIELD
        )
        self._row = java_class(LUCENE + "document.NumericDocValuesField")(ROW, 0)
        self._document = java_class(LUCENE + "document.Document")()
        for field in (self._id, self._id_values, self._raw, self._contents, self._row):
            self._document.add(field)
        self._set_fields = java_call("setFields", self._document)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop whatever is not committed, and release the directory, which in a forked process is the parent's."""
        if JAVA.inherited:
            return
        with crossing(self._directory):
            self._writer.rollback()
            self._store.close()

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        impacts: csr_array,
        terms: Sequence[str],
        first_row: int = 0,
        *,
        replace: bool = False,
        fields: Sequence[Mapping[str, FieldValue]] = (),
    ) -> None:
        """Append documents, in order.

        Parameters
        ----------
        ids, texts : sequence of str, length n
        impacts : csr_array of int, shape (n, vocab)
            Positive impacts. A row without any makes an empty document.
        terms : sequence of str, length vocab
            The Lucene term of each column; see :class:`~sparse_sts_index.vectors.vocabulary.Vocabulary`.
        first_row : int
            Row of the first document's float vector; the others follow it.
        replace : bool
            Each takes the place of the document that has its id, if there is one.
        fields : sequence of mapping of str to str, float, bool, datetime or tuple of str, length n, optional
            Their fields, as stock fields of Lucene: ``KeywordField``, ``DoubleField``, and for dates ``LongField`` with
            microseconds since 1970.
        """
        indptr, indices, data = impacts.indptr.tolist(), impacts.indices.tolist(), impacts.data.tolist()
        term_class = java_class(LUCENE + "index.Term")
        with crossing(self._directory):
            for number, (doc_id, text) in enumerate(zip(ids, texts, strict=True)):
                entries = range(indptr[number], indptr[number + 1])
                self._id.setStringValue(doc_id)
                self._id_values.setBytesValue(doc_id.encode())
                self._raw.setStringValue(json.dumps({"id": doc_id, "contents": text}, ensure_ascii=False))
                self._contents.setStringValue(" ".join(f"{terms[indices[i]]}{DELIMITER}{data[i]}" for i in entries))
                self._row.setLongValue(first_row + number)
                if fields:
                    self._set_fields(fields_text(fields[number]))
                if replace:
                    self._writer.updateDocument(term_class(ID, doc_id), self._document)
                else:
                    self._writer.addDocument(self._document)

    def add_reader(self, reader: ImpactReader) -> None:
        """Append the documents of a reader that are not deleted; their rows stay as they are."""
        with crossing(self._directory):
            java_call("addIndexes")(self._writer, reader.index_reader)

    def number(self, ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Say anew which rows the documents with these ids have."""
        term_class = java_class(LUCENE + "index.Term")
        with crossing(self._directory):
            for doc_id, row in zip(ids, rows.tolist(), strict=True):
                self._writer.updateNumericDocValue(term_class(ID, doc_id), ROW, row)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete the documents with these ids, where there are any."""
        term_class, query_class = java_class(LUCENE + "index.Term"), java_class(LUCENE + "search.TermQuery")
        with crossing(self._directory):
            for doc_id in ids:
                self._writer.deleteDocuments(query_class(term_class(ID, doc_id)))

    def clear(self) -> None:
        """Delete all documents."""
        with crossing(self._directory):
            self._writer.deleteAll()

    def merge(self) -> None:
        """Merge to one segment: the bulk of the work that is left to do before a commit, and the best to search."""
        with crossing(self._directory):
            self._writer.forceMerge(1)

    def commit(self, user_data: Mapping[str, str]) -> None:
        """Make the changes visible, together with `user_data`, in one atomic step."""
        with crossing(self._directory):
            java_map = java_class("java.util.HashMap")()
            for key, value in user_data.items():
                java_map.put(key, value)
            entries = java_map.entrySet()
            self._writer.setLiveCommitData(entries)
            self._writer.commit()

    def reader(self) -> ImpactReader:
        """The index as it is now, uncommitted changes included (Lucene calls this near-real-time)."""
        with crossing(self._directory):
            reader = java_class(LUCENE + "index.DirectoryReader").open(self._writer)
        return ImpactReader(self._directory, reader)


def _impact_analyzer() -> Any:
    options = java_class("java.util.HashMap")()
    options.put("delimiter", DELIMITER)
    return (
        java_class(LUCENE + "analysis.custom.CustomAnalyzer")
        .builder()
        .withTokenizer("whitespace", java_class("java.util.HashMap")())
        .addTokenFilter("delimitedTermFrequency", options)
        .build()
    )


def _impact_field_type() -> Any:
    field_type = java_class(LUCENE + "document.FieldType")()
    field_type.setIndexOptions(java_class(LUCENE + "index.IndexOptions").DOCS_AND_FREQS)
    field_type.setTokenized(True)
    field_type.setOmitNorms(True)
    field_type.freeze()
    return field_type


def _store_yes() -> Any:
    return java_class(LUCENE + "document.Field$Store").YES
