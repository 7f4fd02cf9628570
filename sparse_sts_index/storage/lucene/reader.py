"""Impacts in Lucene: search them, and read them back.

The only module that names Lucene's classes, but for :mod:`.storage.lucene.writer`, which writes. The index is
what Anserini itself would have built with ``-impact -pretokenized`` from the same vectors, so that any Pyserini or
Anserini reads it, and one field more:

* ``id``: the document id, stored, indexed and as doc values (by which Anserini breaks ties);
* ``contents``: the impacts, as term frequencies, without norms or positions;
* ``raw``: stored JSON with ``id`` and ``contents``, the sentence;
* ``row``: doc values, where the document's float vector is (see :mod:`sparse_sts_index.storage.vector_files`).

Unlike Anserini, which drops a document with no terms, such a document keeps its place here.

Anserini's ``ImpactSimilarity`` scores a term as ``boost * frequency``, so a query whose terms are boosted by its
weights gets the dot product of weights and impacts. ``DelimitedTermFrequencyTokenFilter`` takes frequencies from the
term list itself, which spares writing each term as often as it weighs.

A search is one call into Java: a query in the syntax of Lucene's classic query parser goes in, which parses it in some
20 microseconds, and numbers come out (see ``java/LuceneCalls.java``).
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.files import MOST_JSON, read_plain
from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.filters import Filter
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.layout import MANIFEST_FILE
from sparse_sts_index.storage.lucene.jvm import java_call, java_cast, java_class, java_exception, jvm_lock, start_jvm
from sparse_sts_index.storage.lucene.query import filter_text, id_query, impact_query, only

LUCENE = "org.apache.lucene."
# pyjnius picks among constructors by the number of arguments alone where it must choose; these name the one meant.
_READER = "(Lorg/apache/lucene/index/IndexReader;)V"
_READERS = "([Lorg/apache/lucene/index/IndexReader;Z)V"
_HITS_AT_A_TIME = 1_000_000  # in one string from Java
_NO_MORE_DOCS = 2**31 - 1  # DocIdSetIterator.NO_MORE_DOCS
# Words of Lucene for an index of a version that it does not read, or for a codec of a newer one.
_OTHER_LUCENE = re.compile("IndexFormatToo(New|Old)Exception|CreatedVersionMajor is in the future|Codec with name")
_NEWER_LUCENE = "use a newer Pyserini (Python 3.12 and Pyserini 2.4 bring Lucene 10)"
# The file system's own words follow.
_FILE_ERROR = re.compile(r"^(FileSystemException|IOException): ")
_PACKAGE = re.compile(r"^(?:\w+\.)+")


@dataclass(frozen=True, slots=True)
class Matches:
    """What a query matches, best first, equal scores by row.

    Attributes
    ----------
    rows, docids : ndarray of int64, shape (m,)
        Rows of the float vectors, and Lucene's document numbers.
    scores : ndarray of float64, shape (m,)
        Lucene's scores, in units of query weight times impact.
    """

    rows: NDArray[np.int64]
    docids: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


class ImpactReader:
    """The committed snapshot of an index at the time of opening; later commits do not disturb it.

    Attributes
    ----------
    directory : Path
    index_reader : IndexReader
        The Java object.

    Parameters
    ----------
    directory : Path
    reader : DirectoryReader, optional
        Of Lucene. Default: a new one, of the last commit.

    Raises
    ------
    ImpactIndexError
        There is no committed index, or Lucene cannot read it.
    """

    def __init__(self, directory: Path, reader: Any = None) -> None:
        self.directory = directory
        with crossing(directory):
            self._store = open_directory(directory) if reader is None else None
            if reader is None:
                reader = java_class(LUCENE + "index.DirectoryReader").open(self._store)
            self.index_reader = reader
            searcher_class = java_class(LUCENE + "search.IndexSearcher")
            searcher_class.setMaxClauseCount(_NO_MORE_DOCS)  # an untrained SPLADE has thousands of active terms
            self._searcher = searcher_class(self.index_reader, signature=_READER)
            self._searcher.setSimilarity(java_class("io.anserini.search.similarity.ImpactSimilarity")())
            self._search, self._raw = java_call("search", self._searcher), java_call("raw", self.index_reader)

    def close(self) -> None:
        """Release the files, which in a forked process are the parent's."""
        if JAVA.inherited:
            return
        with crossing(self.directory):
            self.index_reader.close()
            if self._store is not None:
                self._store.close()

    @property
    def user_data(self) -> dict[str, str]:
        """What the writer committed along with the documents."""
        with crossing(self.directory):
            entries = self.index_reader.getIndexCommit().getUserData().entrySet().toArray()
            return {entry.getKey(): entry.getValue() for entry in entries}

    @property
    def made_by_this_lucene(self) -> bool:
        """Compare the major version of Lucene that created the index with the one in use.

        Lucene reads and changes the indexes of the major version before its own, but merges none of them into its own.
        No change to an index changes who created it, and two major versions later it is refused.
        """
        with crossing(self.directory):
            infos = java_cast(LUCENE + "index.StandardDirectoryReader", self.index_reader).getSegmentInfos()
            major: int = infos.getIndexCreatedVersionMajor()
        return major == int(lucene_version().split(".")[0])

    def is_current(self) -> bool:
        """Whether nothing has been committed since."""
        with crossing(self.directory):
            current: bool = self.index_reader.isCurrent()
        return current

    def __len__(self) -> int:
        """The number of documents."""
        with crossing(self.directory):
            count: int = self.index_reader.numDocs()
        return count

    def check_integrity(self, before: ImpactReader | None = None) -> None:
        """Read every file, and compare with its checksum.

        Parameters
        ----------
        before : ImpactReader, optional
            That was checked. The files of segments that it had are not read again.

        Raises
        ------
        ImpactIndexError
            A file is not as it was written.
        """
        known = set() if before is None else set(before._segments())  # noqa: SLF001
        for segment, reader in self._segments().items():
            if segment not in known:
                with crossing(self.directory):
                    reader.checkIntegrity()

    def _segments(self) -> dict[str, Any]:
        """Reader of each segment, by the random id that Lucene has given it."""
        with crossing(self.directory):
            id_to_string = java_class(LUCENE + "util.StringHelper").idToString
            readers = [leaf.reader() for leaf in self.index_reader.leaves().toArray()]
            segments = [java_cast(LUCENE + "index.SegmentReader", reader) for reader in readers]
            commits = [segment.getSegmentInfo() for segment in segments]
            return {id_to_string(commit.info.getId()): s for commit, s in zip(commits, segments, strict=True)}

    def search_impacts(
        self,
        queries: Iterable[tuple[Iterable[str], Iterable[float]]],
        limit: int,
        *,
        ids: Iterable[str] | None = None,
        filter_: Filter | None = None,
    ) -> list[Matches]:
        """Return the documents with the highest ``sum(weight * impact)`` for each query.

        Parameters
        ----------
        queries : iterable of (terms, weights), length n
            Lucene terms and their weights, not negative. Several queries are spread over all cores.
        limit : int
            Number of documents per query, at least 1. Which of several documents with the lowest score are among them
            is left open.
        ids : iterable of str, length n, optional
            Look only at the document with this id. A query without terms then finds it with score 0.
        filter_ : Filter, optional
            Of :func:`~sparse_sts_index.data.filters.typed_filter`: look only at the documents that it lets through.

        Returns
        -------
        list of n Matches
            Documents that share no term with the query are not found, so there may be fewer than `limit`.
        """
        lines = list(itertools.starmap(impact_query, queries))
        lines = lines if ids is None else [only(*pair) for pair in zip(lines, ids, strict=True)]
        return self.search(lines, limit, "" if filter_ is None else filter_text(filter_))

    def search(self, queries: Sequence[str], limit: int, among: str = "") -> list[Matches]:
        """Run queries in Lucene's syntax, and with a filter in ours; see :meth:`search_impacts`."""
        return [self._matches(line) for line in self._lines(queries, limit, among)]

    def _lines(self, queries: Sequence[str], limit: int, among: str = "") -> Iterator[str]:
        """Score, row and document number of each hit, all separated by commas, a line for each query."""
        if not queries:
            return
        with crossing(self.directory):
            limit = min(limit, max(1, self.index_reader.maxDoc()))
        some = max(1, _HITS_AT_A_TIME // limit)
        for start in range(0, len(queries), some):
            with crossing(self.directory):
                lines = self._search(str(limit), among, "\n".join(queries[start : start + some]))
            yield from lines.split("\n")

    def _matches(self, line: str) -> Matches:
        fields = np.array(list(map(float, line.split(",") if line else [])))
        return Matches(fields[1::3].astype(np.int64), fields[2::3].astype(np.int64), fields[0::3])

    def texts(self, docids: Sequence[int]) -> list[str]:
        """Sentences of documents."""
        if not docids:
            return []
        with crossing(self.directory):
            lines = self._raw("\n".join(map(str, docids))).split("\n")
        try:
            texts = [json.loads(line)["contents"] for line in lines]
        except (ValueError, KeyError, TypeError, RecursionError):
            texts = []
        if len(texts) != len(docids) or not all(isinstance(text, str) for text in texts):
            raise ImpactIndexError(f"{self.directory}: a sentence that sparse-sts did not write")
        return texts

    def find(self, ids: Sequence[str]) -> list[tuple[int, int] | None]:
        """Row and Lucene's document number of each id, or None where there is no such document."""
        lines = list(self._lines([id_query(doc_id) for doc_id in ids], 1))
        found = self._matches(",".join(filter(None, lines)))
        places = iter(zip(found.rows.tolist(), found.docids.tolist(), strict=True))
        return [next(places) if line else None for line in lines]


class ImpactShards(ImpactReader):
    """Several readers as one, their rows and documents numbered on from one to the next (Lucene's ``MultiReader``).

    Parameters
    ----------
    directory : Path
        For messages.
    readers : sequence of ImpactReader
        At least one. Closed with this one.
    first_rows : sequence of int
        What is added to the rows of each.
    """

    def __init__(self, directory: Path, readers: Sequence[ImpactReader], first_rows: Sequence[int]) -> None:
        self._readers = readers
        self._first_rows = np.array(first_rows)
        with crossing(directory):
            parts = [reader.index_reader for reader in readers]
            multi = java_class(LUCENE + "index.MultiReader")(parts, False, signature=_READERS)
            sizes = [reader.index_reader.maxDoc() for reader in readers]
        self._ends = np.cumsum(sizes)
        super().__init__(directory, multi)

    @property
    def made_by_this_lucene(self) -> bool:
        """Compare the versions of all of them; see there."""
        return all(reader.made_by_this_lucene for reader in self._readers)

    def close(self) -> None:
        """Release the files."""
        super().close()
        for reader in self._readers:
            reader.close()

    def search(self, queries: Sequence[str], limit: int, among: str = "") -> list[Matches]:
        """As of one reader."""
        found = super().search(queries, limit, among)
        orders = [np.lexsort((matches.rows, -matches.scores)) for matches in found]
        return [
            Matches(matches.rows[order], matches.docids[order], matches.scores[order])
            for matches, order in zip(found, orders, strict=True)
        ]

    def _matches(self, line: str) -> Matches:
        matches = super()._matches(line)
        shards = np.searchsorted(self._ends, matches.docids, side="right")
        rows = matches.rows + self._first_rows[shards]
        if (matches.rows < 0).any() or (rows >= np.append(self._first_rows[1:], 1 << 62)[shards]).any():
            raise ImpactIndexError(f"{self.directory}: a shard asks for another row than it has")
        return Matches(rows, matches.docids, matches.scores)


def lucene_version() -> str:
    """Version of the Lucene in use, such as ``"9.9.1"``."""
    version: str = java_class(LUCENE + "util.Version").LATEST.toString()
    return version


def _other_lucene(directory: Path, *, old: bool) -> str:
    """Say who wrote an index that this Lucene cannot read, as far as the copy of its manifest says."""
    try:
        software = json.loads(read_plain(directory.parent / MANIFEST_FILE, MOST_JSON))["software"]
        writer = "Lucene {lucene:.20} (sparse-sts-index {sparse-sts-index:.20}, Python {python:.20})".format(**software)
        stale = software["lucene"] == lucene_version()  # of a writer that was killed after its commit
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        stale = True
    by = "another version of Lucene" if stale else printable(writer)
    remedy = "sparse-sts upgrade it with a Lucene between the two" if old else _NEWER_LUCENE
    return f"written by {by}, which Lucene {lucene_version()} does not read: {remedy}, or build it in another folder"


def open_directory(path: Path) -> Any:
    """Lucene's view of a folder, to be closed."""
    path = path.absolute()  # Java resolves relative paths from where the process was when Java started
    try:
        name = os.fsencode(path).decode("utf-8")  # whatever Python takes the names of files to be in
    except UnicodeDecodeError as error:
        raise ImpactIndexError(f"{printable(str(path))}: the path is not UTF-8, in which Java is given it") from error
    return java_class(LUCENE + "store.FSDirectory").open(java_class("java.nio.file.Paths").get(name))


@contextmanager
def crossing(directory: Path) -> Iterator[None]:
    """Calls into Java: one thread at a time, and what Lucene throws turned into one line that says what to do.

    The lock is for pyjnius, whose methods are not bound as Python's are: ``object.method`` stores the object in the
    method that all objects of the class share, so two threads (or an argument that calls the same method of another
    object) would mix up receivers. For the latter reason nothing here nests such calls. A thread that has called stays
    attached to the virtual machine until it calls ``jnius.detach()``: use few threads that live long.

    Raises
    ------
    ImpactIndexError
        Lucene threw an exception.
    JavaError
        Java does not start.
    ForkError
        Java was used before this process was forked.
    """
    start_jvm()
    try:
        with jvm_lock:
            yield
    except java_exception() as error:
        kind = str(getattr(error, "classname", "")).rsplit(".", 1)[-1]
        # Its cause, rather than that a writer is closed, or what could not be merged.
        trace = getattr(error, "stacktrace", None) or []
        causes = [text for before, text in itertools.pairwise(trace) if before == "Caused by:"]
        detail = str(getattr(error, "innermessage", "") or error)
        message = _PACKAGE.sub("", causes[-1]) if causes else f"{kind}: {detail}"
        if kind in ("IndexNotFoundException", "NoSuchFileException"):
            message = "no complete index (never built, or the build did not finish)"
        elif kind == "LockObtainFailedException":
            message = "another writer is at this index"
        elif kind == "AccessDeniedException":
            message = f"permission denied: {detail}"
        elif _FILE_ERROR.match(message):
            message = _FILE_ERROR.sub("", message)
        elif _OTHER_LUCENE.search(message):
            message = _other_lucene(directory, old="TooOld" in message)
        raise ImpactIndexError(f"{directory}: {message}") from error
