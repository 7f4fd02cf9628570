r"""What a serving engine has to do, and what the engines share.

Every engine here adds up products of query and document weights, all of them positive, in float32, and some round the
documents' weights first, each by a fraction :math:`\rho_s` of itself at most. Then all errors are relative ones, and
so is that of the sum: for a query of :math:`n` terms

.. math:: |s - \cos| \le \rho \cos, \qquad \rho = \rho_s + (n + 4) \, 2^{-24},

where a product and each partial sum of up to :math:`n` terms is rounded to 24 bits, as are the result and the query's
weights on their way. A document that the engine did not return has no higher a score than the last that it did, so its
cosine is at most :math:`s_{last} / (1 - \rho)`. That is what certifies a search; see :mod:`.engines.remote_index`.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final

from scipy.sparse import csr_array

from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.data.fields import NO_FIELDS, FieldType, check_types
from sparse_sts_index.data.filters import Filter, Operator
from sparse_sts_index.engines.target import Target
from sparse_sts_index.errors import DataError, EngineError, MissingExtraError
from sparse_sts_index.vectors.spec import VectorSpec

METADATA_KEY = "sparse_sts_index"  # under which an engine keeps the metadata of a collection
RETRYABLE = frozenset({429, 502, 503, 504})  # HTTP statuses of what may go well later
TIMEOUT = 60  # seconds for a request
#: Names that several engines give the bounds of a range, by operator.
BOUNDS: Final[dict[Operator, tuple[str, ...]]] = {
    "=": ("gte", "lte"),
    "<": ("lt",),
    "<=": ("lte",),
    ">": ("gt",),
    ">=": ("gte",),
}
_BROKEN = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)  # a connection that is lost under TLS
_UNDERFLOW = 1e-30  # more than a float32 sum can lose by products too small to hold


@dataclass(frozen=True, slots=True)
class Vector:
    """A sparse unit vector.

    Attributes
    ----------
    terms : list of int
        Term ids, ascending.
    weights : list of float
        Positive float32 values.
    """

    terms: list[int]
    weights: list[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A document as engines hold it.

    Attributes
    ----------
    id, text : str
    vector : Vector
    fields : mapping of str to object, optional
        By name: of the fields' types in a document to be written, as JSON has them in one that was found. None where
        documents have no fields.
    """

    id: str
    text: str
    vector: Vector
    fields: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A document that an engine has found, with the engine's own score."""

    point: Point
    score: float


@dataclass(frozen=True)
class Metadata(VectorSpec):
    """The spec of the vectors in a collection, and the fields of its documents.

    Attributes
    ----------
    created : str
        Different each time that a push creates the collection; empty if no push did. Not part of a comparison.
    fields : mapping of str to str
        Types by name.
    """

    created: str = dataclasses.field(default="", compare=False)
    fields: Mapping[str, FieldType] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, spec: VectorSpec, fields: Mapping[str, FieldType] = NO_FIELDS) -> Metadata:
        """Return the metadata of a collection that has yet to be created."""
        return cls(**spec.settings(), fields=dict(fields))

    def to_json(self) -> str:
        """As one line of JSON."""
        values = dataclasses.asdict(self)
        if not self.fields:  # earlier versions do not know of it
            del values["fields"]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: object, target: Target) -> Metadata:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        EngineError
            It did not: the collection is none of ours.
        """
        try:
            metadata = cls(**json.loads(text if isinstance(text, str) else ""))
            check_types(metadata.fields)
        except (ValueError, TypeError, AttributeError, DataError) as error:
            raise EngineError(f"{target} is there, but not made by sparse-sts: take another name") from error
        return metadata


class Busy(Exception):  # noqa: N818 - no error yet
    """What an engine could not do now, and may do later.

    Parameters
    ----------
    reason : str
    retry_after : float, optional
        Seconds that it wants to be left alone.
    left : sequence of Point, optional
        What is still to be written; default: all of it.
    """

    def __init__(self, reason: str, retry_after: float | None = None, left: Sequence[Point] | None = None) -> None:
        super().__init__(reason)
        self.retry_after, self.left = retry_after, left


def unreachable(message: str, error: BaseException) -> Busy | EngineError:
    """What to raise where there was no answer: an error if a later try meets it again, as where TLS fails, or Busy."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ssl.SSLError) and not isinstance(link, _BROKEN):
            return EngineError(message)
        link = link.__cause__ or link.__context__
    return Busy(message)


class Engine(ABC):
    """One collection of a serving engine. Made by :func:`~sparse_sts_index.engines.registry.connect`; for one thread.

    Every method may raise :class:`Busy`, for what may go well later, and ``EngineError``.

    Attributes
    ----------
    name, extra : str
        The engine's, and the extra of this package that brings its client.
    stored_error : float
        By what fraction of itself a document's weight may be rounded.
    max_hits : int
        A search can ask for so many.
    target : Target
    """

    name: ClassVar[str]
    stored_error: ClassVar[float] = 0.0
    max_hits: ClassVar[int]

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def metadata(self) -> Metadata | None:
        """Of the collection, or None where there is none; refuses one that is not ours."""

    def check(self, metadata: Metadata) -> None:  # noqa: B027 - not every engine has to
        """Refuse fields that the engine cannot hold, before anything is dropped for them."""

    @abstractmethod
    def create(self, metadata: Metadata) -> None:
        """Make the collection, which is not there."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection."""

    @abstractmethod
    def write(self, points: Sequence[Point], terms: Sequence[str]) -> None:
        """Add documents; each takes the place of one with its id.

        Parameters
        ----------
        points : sequence of Point
            None without a term.
        terms : sequence of str, length vocab
            Of the vocabulary, :attr:`.Vocabulary.terms`.
        """

    def flush(self) -> None:  # noqa: B027 - not every engine has to
        """Make what was written visible to searches."""

    @abstractmethod
    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        """Return the documents of the highest scores for each query, best first; all that were asked for, or it raises.

        Parameters
        ----------
        where : Filter, optional
            With values of the fields' types: only documents that pass.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and files."""

    def rounding(self, terms: int) -> float:
        """By what fraction of the cosine the score of a query with so many terms may be off."""
        return self.stored_error + (terms + 4) * 2.0**-24

    def unseen(self, score: float, terms: int) -> float:
        """The highest cosine of a document whose score is at most `score`; see this module's head."""
        return score / (1 - self.rounding(terms)) + _UNDERFLOW

    @classmethod
    def precision(cls) -> str:
        """How near the cosine the engine's own scores are, in words."""
        if not cls.stored_error:
            return "float32 weights and sums"
        return f"weights of 9 significant bits: scores within {cls.stored_error:.2%} of the cosine"


def load_client(module: str, package: str, extra: str) -> Any:
    """Import a client.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, extra) from error


def seconds_to_wait(header: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or until a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def vectors_of(matrix: csr_array) -> list[Vector]:
    """The rows of a csr_array of float32 with sorted indices; weights that are no normal numbers are left out."""
    matrix = matrix.copy()
    matrix.data[matrix.data < 2.0**-126] = 0
    matrix.eliminate_zeros()
    terms, weights, ends = matrix.indices.tolist(), matrix.data.tolist(), matrix.indptr.tolist()
    return [Vector(terms[a:b], weights[a:b]) for a, b in itertools.pairwise(ends)]


def points_of(chunk: Chunk, metadata: Metadata) -> Iterator[Point]:
    """Yield the documents of a chunk, for a collection."""
    for document, vector in zip(chunk.documents, vectors_of(chunk.vectors), strict=True):
        yield Point(document.id, document.text, vector, document.fields if metadata.fields else None)
