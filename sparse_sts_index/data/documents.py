"""Document collections: streamed sentences with their ids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, Unpack
from uuid import UUID

from scipy.sparse import csr_array

from sparse_sts_index._utils.text import check_unicode
from sparse_sts_index.data.columns import DEFAULT_NAMES, Columns
from sparse_sts_index.data.fields import Field, FieldGuess, FieldInput, FieldValue, check_fields, field_value
from sparse_sts_index.data.reading import STDIN, FileOptions, file_format, read_records
from sparse_sts_index.data.records import Record, kind
from sparse_sts_index.data.sample import SAMPLE, SAMPLE_COLLECTION
from sparse_sts_index.errors import DataError

#: Queries that are encoded together, where there are many.
QUERY_CHUNK = 256
#: The columns of a collection.
DOCUMENT_COLUMNS = Columns({role: DEFAULT_NAMES[role] for role in ("id", "text", "title")}, required=("id", "text"))
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
    fields : mapping of str to str, float, bool, datetime or tuple of str
        What else is kept of it, by name; what an index takes is in its manifest.

    Raises
    ------
    DataError
        The id is empty or longer than 32,766 bytes of UTF-8, or id or text holds an unpaired surrogate.
    ValueError
        Id or text is not a string.
    """

    id: str
    text: str
    where: str = field(default="", compare=False, repr=False)
    fields: Mapping[str, FieldInput] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if type(self.id) is type(self.text) is str and self.id.isascii() and self.text.isascii():
            length = len(self.id)
        else:
            length = self._check_strings()
        if length > _MAX_ID_BYTES:
            raise DataError(f"{self._place}: id is longer than {_MAX_ID_BYTES:,} bytes")
        if not self.id.strip():
            raise DataError(f"{self._place}: id is empty")

    @property
    def _place(self) -> str:
        return self.where or f"document {self.id!a:.40}"

    def _check_strings(self) -> int:
        """Return the number of bytes of the id."""
        for name, value in (("id", self.id), ("text", self.text)):
            if type(value) is not str:
                if not isinstance(value, str):
                    raise ValueError(f"{self._place}: {name} must be a string, not {type(value).__name__}")
                object.__setattr__(self, name, str(value))  # one of numpy's, which Java does not take
            check_unicode(value, name, self._place)
        return len(self.id.encode())


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


def read_corpus(
    source: str | Path,
    format: str | None = None,
    *,
    columns: Mapping[str, str | int] | None = None,
    delimiter: str | None = None,
    fields: Sequence[Field] | None = None,
) -> Iterator[Document]:
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
    columns : mapping of str to str or int, optional
        Names of the columns for ``id``, ``text`` and ``title``, such as ``{"id": "qid", "text": "question"}``; numbers
        from 1 for csv and tsv without a header, such as ``{"id": 1, "text": 2}``. The id ``"#"`` is the number of
        the line or row. Where the text is named, a title is read only if it is named, too.
    delimiter : str, optional
        What separates columns, such as ``"tab"`` or ``";"``; see :func:`~.data.reading.read_records`.
    fields : sequence of Field, optional
        What else to keep of a document, each with its type; see :func:`examine_corpus` for those of unknown types. csv,
        tsv and parquet need their columns; a row of jsonl may lack one.

    Raises
    ------
    DataError
        Missing or malformed file, missing column, an id that is no string or integer, or what :class:`Document`
        refuses. Duplicate ids are for :func:`check_ids` to find.
    """
    kept = check_fields(fields or ())
    wanted = corpus_columns(columns, kept)
    for record in read_records(corpus_path(source), wanted, format, delimiter):
        yield document_of(record, wanted, kept)


def corpus_path(source: str | Path) -> Path:
    """Return the file of a collection: that of the embedded sample for its name."""
    return SAMPLE_COLLECTION if str(source) == SAMPLE else Path(source)


def is_read_once(source: str | Path) -> bool:
    """Return whether a collection cannot be read a second time: standard input, a pipe."""
    path = corpus_path(source)
    return str(source) == STDIN or path.is_fifo() or path.is_char_device()


def corpus_columns(columns: Mapping[str, str | int] | None, fields: Sequence[Field] | Literal["all"]) -> Columns:
    """Return the columns of a collection, as a user names them, and those of fields; see :func:`read_corpus`."""
    more = None if fields == "all" else tuple(field.column for field in fields)
    return dataclasses.replace(DOCUMENT_COLUMNS.choose(columns), more=more)


def document_of(record: Record, columns: Columns = DOCUMENT_COLUMNS, fields: Sequence[Field] = ()) -> Document:
    """Return the document in a row; errors are those of :func:`read_corpus`."""
    kept: dict[str, FieldValue] = {}
    for field_ in fields:
        if field_.type is None:
            raise ValueError(f"field {field_.name} has no type; examine_corpus finds one")
        value = field_value(record.values.get(field_.column), field_.type, field_.name, record.where)
        if value is not None:
            kept[field_.name] = value
    return Document(_document_id(record, columns), document_text(record, columns), record.where, kept)


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


def examine_corpus(
    source: str | Path,
    fields: Sequence[Field] | Literal["all"] = (),
    *,
    needed: bool = True,
    **options: Unpack[FileOptions],
) -> tuple[int, tuple[Field, ...]]:
    """Read a whole collection once, so that every error in it is found before any work is done on it.

    Parameters
    ----------
    source : str or Path
    fields : sequence of Field, or "all"
        Those to keep; what has no type gets that which all values can have, text as last resort. ``"all"``: every
        column that has a value and is not the id, the text or the title.
    needed : bool
        Refuse a field that no document has a value of: its name may be a mistake.
    **options
        Of :func:`read_corpus`.

    Returns
    -------
    int
        The number of documents.
    tuple of Field
        Each with its type.

    Raises
    ------
    DataError
        As :func:`read_corpus` and :func:`check_ids`, and if there is no document at all, or no value of a field.
    """
    wanted = corpus_columns(options.get("columns"), fields)
    typed = options.get("delimiter") is None and (options.get("format") or file_format(source)) in ("jsonl", "parquet")
    guesses = {} if fields == "all" else {field.column: FieldGuess(field, typed) for field in check_fields(fields)}
    own = {name for names in wanted.roles.values() for name in names}

    def documents() -> Iterator[Document]:
        for record in read_records(corpus_path(source), wanted, options.get("format"), options.get("delimiter")):
            if fields == "all":
                for column in record.values:
                    if column not in guesses and column not in own and column.strip():
                        guesses[column] = FieldGuess(Field.of_column(column), typed)
            for column, guess in guesses.items():
                guess.see(record.values.get(column), record.where)
            yield document_of(record, wanted)

    count = sum(1 for _ in check_ids(documents()))
    if not count:
        raise DataError(f"{source}: no documents in it")
    found = [guess.field(needed=needed) for guess in guesses.values() if guess.seen or fields != "all"]
    return count, check_fields(found)


def columns_of_fields(source: str | Path, **options: Unpack[FileOptions]) -> dict[str, str]:
    """Return the columns in a collection's first row by the names that their fields get; nothing of what is read once.

    Raises
    ------
    DataError
        As :func:`read_corpus`.
    """
    if is_read_once(source):
        return {}
    wanted = corpus_columns(options.get("columns"), "all")
    records = read_records(corpus_path(source), wanted, options.get("format"), options.get("delimiter"))
    own = {name for names in wanted.roles.values() for name in names}
    names = [name for name in next((record.values for record in records), {}) if name.strip() and name not in own]
    return {Field.of_column(name).name: name for name in names} | {name: name for name in names}


def _document_id(record: Record, columns: Columns) -> str:
    value = columns.value(record, "id")
    if isinstance(value, str | bytes | bytearray):
        return columns.text(record, "id")
    whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    if whole or isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(int(value) if whole else value)
    hint = "; save such ids as integers or text" if isinstance(value, float) else ""
    name = columns.name_of("id", record.values)
    raise DataError(f"{record.where}: {name} must be a string or an integer, found {kind(value)}{hint}")


def document_text(record: Record, columns: Columns) -> str:
    """Return the text in a row, behind its title if it has one; errors are those of :func:`read_corpus`."""
    text = columns.text(record, "text")
    name = columns.name_of("title", record.values)
    if name is None or not record.values[name]:
        return text
    return f"{columns.text(record, 'title')} {text}".strip()
