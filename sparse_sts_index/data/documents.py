"""Document collections: streamed sentences with their ids."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scipy.sparse import csr_array

from sparse_sts_index._utils.text import check_unicode
from sparse_sts_index.data.reading import read_records
from sparse_sts_index.data.records import Columns, Record, kind, missing_column, required_text
from sparse_sts_index.data.sample import SAMPLE, SAMPLE_COLLECTION
from sparse_sts_index.errors import DataError

#: Queries that are encoded together, where there are many.
QUERY_CHUNK = 256
_ID_NAMES = ("_id", "id", "docid")
_TEXT_NAMES = ("text", "contents", "sentence")
COLUMN_NAMES = (*_ID_NAMES, *_TEXT_NAMES, "title")
_COLUMNS = Columns(frozenset(COLUMN_NAMES))
_MAX_ID_BYTES = 32_766  # Lucene's longest indexed term, IndexWriter.MAX_TERM_LENGTH


@dataclass(frozen=True, slots=True)
class Document:
    """One sentence of a collection.

    Attributes
    ----------
    id : str
        Unique within the collection.
    text : str
        The sentence; may be empty.
    where : str
        Where it was read, for error messages (``"corpus.jsonl:17"``); empty if it did not come from a file.

    Raises
    ------
    DataError
        The id is empty or longer than 32,766 bytes of UTF-8, or id or text holds an unpaired surrogate.
    """

    id: str
    text: str
    where: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        where = self.where or f"document {self.id!a:.40}"
        check_unicode(self.id, "id", where)
        check_unicode(self.text, "text", where)
        if not self.id.strip():
            raise DataError(f"{where}: id is empty")
        if len(self.id.encode()) > _MAX_ID_BYTES:
            raise DataError(f"{where}: id is longer than {_MAX_ID_BYTES:,} bytes")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive documents, encoded.

    Attributes
    ----------
    documents : list of Document, length n
    vectors : csr_array of float32, shape (n, vocab)
        L2-normalised.
    impacts : csr_array of int32, shape (n, vocab)
        The vectors, quantized.
    """

    documents: list[Document]
    vectors: csr_array
    impacts: csr_array


def read_corpus(source: str | Path, format: str | None = None) -> Iterator[Document]:
    """Yield the documents of a collection, in order, holding one at a time.

    Parameters
    ----------
    source : str or Path
        A file, ``"-"`` for standard input, or ``"sample"`` (the 1,000 sentences embedded in this package). Formats:
        jsonl with ``_id``, ``title`` (optional) and ``text`` as in BEIR, ``id`` and ``contents`` as in Pyserini, or
        ``id`` and ``text``; csv, tsv and parquet with columns of these names; txt with one sentence a line, whose
        id is its line number (blank lines are passed over but counted). ``.gz`` of each but parquet. A title is put
        before the text, with a space, as BEIR does.
    format : {"jsonl", "csv", "tsv", "txt", "parquet"}, optional
        Default: by the suffix; standard input is jsonl if it begins with ``{``, else txt.

    Raises
    ------
    DataError
        Missing or malformed file, missing column, an id that is no string or integer, or what :class:`Document`
        refuses. Duplicate ids are for :func:`check_ids` to find.
    """
    if str(source) == SAMPLE:
        source = SAMPLE_COLLECTION
    for record in read_records(source, _COLUMNS, format):
        yield document_of(record)


def document_of(record: Record) -> Document:
    """What a row holds; errors are those of :func:`read_corpus`."""
    return Document(_document_id(record), _document_text(record), record.where)


def check_ids(documents: Iterable[Document]) -> Iterator[Document]:
    """Pass `documents` through, remembering their ids (and nothing else).

    Raises
    ------
    DataError
        An id comes a second time.
    """
    seen: set[str] = set()
    for ordinal, document in enumerate(documents, 1):
        if document.id in seen:
            raise DataError(f"{document.where or f'document {ordinal}'}: duplicate id {document.id!r:.80}")
        seen.add(document.id)
        yield document


def chunks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Consecutive documents, `size` at a time, the last time perhaps fewer; read as needed."""
    iterator = iter(documents)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def count_documents(source: str | Path, format: str | None = None) -> int:
    """Read a whole collection once, so that every error in it is found before any work is done on it.

    Returns
    -------
    int
        The number of documents.

    Raises
    ------
    DataError
        As :func:`read_corpus` and :func:`check_ids`, and if there is no document at all.
    """
    count = sum(1 for _ in check_ids(read_corpus(source, format)))
    if not count:
        raise DataError(f"{source}: no documents in it")
    return count


def _document_id(record: Record) -> str:
    for name in _ID_NAMES:
        if name in record.values:
            value = record.values[name]
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            if not isinstance(value, str):
                raise DataError(f"{record.where}: {name} must be a string or an integer, found {kind(value)}")
            return value
    raise missing_column(record, *_ID_NAMES)


def _document_text(record: Record) -> str:
    text = required_text(record, *_TEXT_NAMES)
    title = record.values.get("title")
    if not title:
        return text
    return f"{required_text(record, 'title')} {text}".strip()
