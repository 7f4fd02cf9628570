"""Sentences in files that Spark reads, each with its place in the whole, whatever way Spark cuts the files.

The order is that of the files by name, and within a file that of its lines or rows. Spark hands them out in blocks of
files, in no order; what each block holds is counted first, so that every document can be told its number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sparse_sts_index.data.columns import Columns
from sparse_sts_index.data.documents import DOCUMENT_COLUMNS, Document, corpus_columns, document_of
from sparse_sts_index.data.fields import Field, check_fields
from sparse_sts_index.data.reading import file_format
from sparse_sts_index.data.records import Record
from sparse_sts_index.data.text_formats import read_lines
from sparse_sts_index.errors import DataError

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import SparkSession

_FORMATS = ("jsonl", "txt", "parquet")  # that can be read from the middle
_CUTS = ("spark.sql.files.minPartitionNum", "200")
_PRIME, _BASE = 2**127 - 1, 0x4F1BBCDCBFA53E0AF9CE60302E76E41B  # of a checksum, see Summary

#: A file, and where in it Spark has cut.
Block = tuple[str, int]
#: How many documents, and a checksum of them in their order: a polynomial of a digest of each, modulo a prime. That of
#: two runs of documents, one after the other, follows from those of both; so it does not matter where they were cut.
Summary = tuple[int, int]


class SparkCorpus:
    """The documents in files that Spark reads.

    Parameters
    ----------
    spark : SparkSession
    files : str
        A path or a glob, local or of any file system that Spark knows, such as ``hdfs://`` or ``s3a://``.
    format : {"jsonl", "txt", "parquet"}, optional
        Default: by the suffix; text may be compressed. Columns and errors are those of
        :func:`sparse_sts_index.data.documents.read_corpus`.
    columns : mapping of str to str or int, optional
        Names of the columns, as there.
    fields : sequence of Field
        What else to keep of a document, each with its type.

    Raises
    ------
    DataError
        No such file, a format that cannot be read in pieces, or parquet files that disagree on the type of a column.
    """

    def __init__(
        self,
        spark: SparkSession,
        files: str,
        format: str | None = None,
        columns: Mapping[str, str | int] | None = None,
        fields: Sequence[Field] = (),
    ) -> None:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions

        spark = _cutting_alike(spark)
        self._fields = check_fields(fields)
        self._columns = corpus_columns(columns, self._fields)
        try:
            self._format = format or _format_of(spark, files)
            if self._format not in _FORMATS:
                raise DataError(f"{files}: {self._format} cannot be read in pieces; give one of {', '.join(_FORMATS)}")
            if self._format == "parquet":
                frame = spark.read.option("mergeSchema", "true").parquet(files)
                self._columns.check(frame.columns, files)
                self._columns.check_more(frame.columns, files)
                known = self._columns.known
                content = functions.struct(*(frame[_quoted(name)] for name in frame.columns if name in known))
            else:
                frame = spark.read.option("lineSep", "\n").text(files)
                content = frame["value"].cast("binary")
        except AnalysisException as error:
            if error.getCondition() == "PATH_NOT_FOUND":
                raise DataError(f"no such file: {files}") from error
            raise
        except Py4JJavaError as error:
            if "CANNOT_MERGE_SCHEMAS" in str(error):
                raise DataError(f"{files}: a column is not of the same type in all files") from error
            raise
        self._files = files
        place = ("_metadata.file_path", "_metadata.file_block_start")
        self._rows = frame.select(*place, content.alias("content"))

    @cached_property
    def _lines(self) -> dict[Block, tuple[int, int]]:
        """Number of the first line or row of each block in its file, from 1, and how many the files before have."""
        counts = self._rows.groupBy("file_path", "file_block_start").count().collect()
        first: dict[Block, tuple[int, int]] = {}
        before = 0
        for _, blocks in itertools.groupby(sorted(tuple(count) for count in counts), key=lambda x: x[0]):
            number = 1
            for file, start, count in blocks:
                first[file, start] = number, before
                number += count
            before += number - 1
        return first

    def _documents(self) -> RDD[tuple[Block, Document]]:
        return self._rows.rdd.mapPartitions(
            partial(_parse, format=self._format, first=self._lines, columns=self._columns, fields=self._fields)
        )

    @cached_property
    def blocks(self) -> dict[Block, Summary]:
        """What is in each block that has documents; in order.

        Raises
        ------
        DataError
            A line or row that is no document, or none at all.
        """
        blocks = dict(sorted(self._documents().mapPartitions(_count).collect()))
        if not blocks:
            raise DataError(f"{self._files}: no documents in it")
        return blocks

    def __len__(self) -> int:
        return sum(count for count, _ in self.blocks.values())

    @property
    def checksum(self) -> int:
        """Of all documents in their order, however the files are cut."""
        return joined(self.blocks.values())[1]

    def numbered(self) -> RDD[tuple[int, Document]]:
        """The documents with their numbers, from 0; not in order. A job fails if they are not the same any more."""
        ends = itertools.accumulate(count for count, _ in self.blocks.values())
        first = {block: end - self.blocks[block][0] for block, end in zip(self.blocks, ends, strict=True)}
        return self._documents().mapPartitions(partial(_number, first=first, summaries=self.blocks))

    def check_ids(self) -> None:
        """Find an id that comes twice.

        Raises
        ------
        DataError
            There is one; the first that is a repetition is named.
        """
        places = self.numbered().map(_place_of_id).reduceByKey(_first_two)
        repeated = places.filter(_is_repeated).takeOrdered(1, key=_second_place)
        for doc_id, (_, (_, where)) in repeated:
            raise DataError(f"{where}: duplicate id {doc_id!r}")


def _quoted(name: str) -> str:
    """Return a column's name such that Spark does not take a dot in it for a field."""
    return f"`{name.replace('`', '``')}`"


def joined(summaries: Iterable[Summary]) -> Summary:
    """Of runs of documents, what is so of them one after the other."""
    documents = checksum = 0
    for count, value in summaries:
        documents += count
        checksum = (checksum * pow(_BASE, count, _PRIME) + value) % _PRIME
    return documents, checksum


def _summary(document: Document) -> Summary:
    fields = repr(sorted(document.fields.items())) if document.fields else ""
    content = f"{len(document.id)} {document.id}{document.text}{fields}".encode()
    return 1, int.from_bytes(hashlib.blake2b(content, digest_size=16).digest()) % _PRIME


def _cutting_alike(spark: SparkSession) -> SparkSession:
    """A session with the same settings that cuts files alike however many cores there are, now or in a minute."""
    session = spark.newSession()
    known = session.conf.getAll
    for name, value in ({_CUTS[0]: _CUTS[1]} | spark.conf.getAll).items():
        if known.get(name) != value:
            session.conf.set(name, value)
    return session


def _format_of(spark: SparkSession, files: str) -> str:
    found = {file_format(unquote(urlsplit(file).path)) for file in spark.read.text(files).inputFiles()}
    if len(found) != 1 or None in found:
        raise DataError(f"{files}: formats unknown or mixed; say which with format=, --format")
    return str(found.pop())


def _parse(
    rows: Iterable[Any],
    format: str,
    first: dict[Block, tuple[int, int]],
    columns: Columns = DOCUMENT_COLUMNS,
    fields: Sequence[Field] = (),
) -> Iterator[tuple[Block, Document]]:
    """Yield the documents in rows of Spark's, block by block; the numbers of rows go on from file to file."""
    for block, some in itertools.groupby(rows, key=lambda row: (row[0], row[1])):
        if block not in first:
            raise _changed(block)
        line, before = first[block]
        for record in _records((row[2] for row in some), _name(block), format, line):
            number = before + record.number
            if format == "txt":
                record.values["id"] = str(number)
            yield block, document_of(dataclasses.replace(record, number=number), columns, fields)


def _name(block: Block) -> str:
    parts = urlsplit(block[0])
    return unquote(parts.path) if parts.scheme == "file" else block[0]


def _changed(block: Block) -> DataError:
    return DataError(f"{_name(block)}: has changed since it was first read")


def _records(contents: Iterable[Any], name: str, format: str, first: int) -> Iterator[Record]:
    if format != "parquet":
        yield from read_lines(contents, name, format, first)
        return
    for number, content in enumerate(contents, first):
        yield Record(f"{name}: row {number}", number, content.asDict())


def _count(documents: Iterable[tuple[Block, Document]]) -> Iterator[tuple[Block, Summary]]:
    for block, some in itertools.groupby(documents, key=lambda pair: pair[0]):
        yield block, joined(_summary(document) for _, document in some)


def _number(
    documents: Iterable[tuple[Block, Document]], first: dict[Block, int], summaries: dict[Block, Summary]
) -> Iterator[tuple[int, Document]]:
    for block, some in itertools.groupby(documents, key=lambda pair: pair[0]):
        found = 0, 0
        for number, (_, document) in enumerate(some, first.get(block, 0)):
            found = joined((found, _summary(document)))
            yield number, document
        if found != summaries.get(block):
            raise _changed(block)


_Places = tuple[tuple[int, str], ...]  # number and file of documents


def _place_of_id(numbered: tuple[int, Document]) -> tuple[str, _Places]:
    number, document = numbered
    return document.id, ((number, document.where),)


def _first_two(some: _Places, others: _Places) -> _Places:
    return tuple(sorted(some + others)[:2])


def _is_repeated(places: tuple[str, _Places]) -> bool:
    return len(places[1]) > 1


def _second_place(places: tuple[str, _Places]) -> tuple[int, str]:
    return places[1][1]
