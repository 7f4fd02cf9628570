"""Search a serving engine's collection, with the answers of an index: float cosines, exact order, and a proof.

The engine's best, with their float vectors, are candidates; they are scored as an index scores them. A document that
the engine did not return has no higher a score than the last that it did, and so a cosine of at most what
:meth:`.Engine.unseen` says. When the k-th candidate's is above, the hits are what brute force would find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scipy.sparse import csr_array

from sparse_sts_index.data.fields import FieldValue, field_value
from sparse_sts_index.data.filters import Filter, Where, filter_for
from sparse_sts_index.encoding.matching import load_matching
from sparse_sts_index.engines.base import Engine, Found, Metadata, Point, Vector, vectors_of
from sparse_sts_index.engines.registry import connect
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.errors import EngineError
from sparse_sts_index.search.certified import Step, certify, check_search, check_vectors
from sparse_sts_index.search.results import Hit, Hits, scored
from sparse_sts_index.vectors.explanations import TermContribution, shared_terms
from sparse_sts_index.vectors.spec import Precision
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

_STEPS = (Step(0.0, 1, 20), Step(0.0, 8, 160))
_TOGETHER = 32  # queries a request


class RemoteIndex:
    """A collection in a serving engine together with the encoder that made it. Usable as a context manager.

    Parameters
    ----------
    engine : Engine
    model : SparseStsEncoder, str or Path, optional
        The encoder, or where to load it from. Default: where the collection says it was.
    precision : {"auto", "float32", "bfloat16"}, optional
        Of a model that is to be loaded. Default: what the documents were encoded in.
    back_off : BackOff, optional

    Raises
    ------
    EngineError
        There is no such collection, or none of ours.
    """

    def __init__(
        self,
        engine: Engine,
        model: SparseStsEncoder | str | Path | None = None,
        *,
        precision: Precision | None = None,
        back_off: BackOff | None = None,
    ) -> None:
        self._engine, self._model, self._precision = engine, model, precision
        self._back_off = back_off or BackOff()
        metadata = self._back_off.briefly().call(engine.metadata)
        if metadata is None:
            raise EngineError(f"{engine.target} is not there")
        self.metadata: Metadata = metadata

    @classmethod
    def open(
        cls,
        url: str,
        model: SparseStsEncoder | str | Path | None = None,
        *,
        token: str | None = None,
        precision: Precision | None = None,
        back_off: BackOff | None = None,
    ) -> Self:
        """Open the collection at a URL; parameters are those of the class and :func:`.engines.registry.connect`."""
        engine = connect(url, token)
        try:
            return cls(engine, model, precision=precision, back_off=back_off)
        except BaseException:
            engine.close()
            raise

    @cached_property
    def encoder(self) -> SparseStsEncoder:
        """The encoder, loaded on first use and checked against the collection.

        Raises
        ------
        ModelMismatchError
            It is not the model that the collection was made with.
        ModelError
            It does not load.
        """
        return load_matching(self.metadata, str(self._engine.target), self._model, precision=self._precision)

    def search(self, texts: Sequence[str], k: int = 10, *, explain: bool = False, where: Where = None) -> list[Hits]:
        """The nearest sentences of each text; see :meth:`.index.SparseStsIndex.search`.

        A filter is the engine's to apply, in its own form.

        Returns
        -------
        list of n Hits
            Hits that are not certified may lack one that the engine has rounded away, and say what it may have.

        Raises
        ------
        EngineError
            The engine fails, or does not give so many hits.
        ModelMismatchError, ModelError
            See :attr:`encoder`.
        DataError
            A filter that cannot be read, or does not fit the fields.
        """
        where = filter_for(where, self.metadata.fields)
        vectors = self.encoder.encode(texts)
        hits = self.search_vectors(vectors, self.encoder.vocabulary, k, explain=explain, where=where)
        calibration = self.encoder.calibration
        return hits if calibration is None else [scored(found, calibration) for found in hits]

    def search_vectors(
        self, vectors: csr_array, vocabulary: Vocabulary, k: int = 10, *, explain: bool = False, where: Where = None
    ) -> list[Hits]:
        """:meth:`search` for texts that are encoded already; no model is loaded, so hits have no score.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
        vocabulary : Vocabulary
            Of the model, which the columns belong to.
        """
        check_search(k, "exact")
        if k > self._engine.max_hits:
            raise EngineError(f"{self._engine.name} gives {self._engine.max_hits:,} hits at most")
        chosen = filter_for(where, self.metadata.fields)
        queries = vectors_of(check_vectors(vectors, len(vocabulary)))
        results = [Hits((), True, 0.0)] * len(queries)  # of queries without a term

        def find(step: Step, rows: list[int]) -> Iterator[Hits]:
            limit = min(step.candidates(k), self._engine.max_hits)
            for first in range(0, len(rows), _TOGETHER):
                asked = [queries[row] for row in rows[first : first + _TOGETHER]]
                for query, found in zip(asked, self._candidates(asked, limit, vocabulary, chosen), strict=True):
                    unseen = self._unseen(found, limit, query)
                    yield self._nearest(query, found, k, unseen, vocabulary if explain else None)

        certify(results, [row for row, query in enumerate(queries) if query.terms], _STEPS, find)
        return results

    def _candidates(
        self, queries: Sequence[Vector], limit: int, vocabulary: Vocabulary, where: Filter | None
    ) -> list[list[Found]]:
        return self._back_off.call(lambda: self._engine.search(queries, limit, vocabulary.terms, where))

    def _unseen(self, found: Sequence[Found], limit: int, query: Vector) -> float:
        """The highest cosine of a document that the engine has not returned."""
        if len(found) < limit:
            return 0.0
        return self._engine.unseen(min(candidate.score for candidate in found), len(query.terms))

    def _nearest(
        self, query: Vector, found: Sequence[Found], k: int, unseen: float, vocabulary: Vocabulary | None
    ) -> Hits:
        """The k best of some candidates, where none of the other documents has more than `unseen`."""
        weights = dict(zip(query.terms, query.weights, strict=True))
        scored = ((_cosine(weights, candidate.point.vector), candidate.point) for candidate in found)
        ranked = sorted(
            ((cosine, point) for cosine, point in scored if cosine > 0), key=lambda pair: (-pair[0], pair[1].id)
        )
        best = ranked[:k]
        hits = tuple(
            Hit(
                point.id,
                point.text,
                cosine,
                explanation=_explanation(vocabulary, weights, point.vector),
                fields=self._fields(point),
            )
            for cosine, point in best
        )
        beyond = ranked[k][0] if len(ranked) > k else 0.0
        proved = not unseen or (len(best) == k and best[-1][0] > unseen)
        return Hits(hits, proved, max(beyond, unseen))

    def _fields(self, point: Point) -> dict[str, FieldValue]:
        where, types = f"document {point.id!a:.40} of {self._engine.target}", self.metadata.fields
        values = {
            name: field_value(value, types[name], name, where)
            for name, value in (point.fields or {}).items()
            if name in types
        }
        return {name: value for name, value in values.items() if value is not None}

    def close(self) -> None:
        """Close the connection."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cosine(query: dict[int, float], document: Vector) -> float:
    """Summed in the order of the terms, as an index does, so that the last bit is the same."""
    cosine = 0.0
    for term, weight in zip(document.terms, document.weights, strict=True):
        cosine += query.get(term, 0.0) * weight
    return cosine


def _explanation(
    vocabulary: Vocabulary | None, query: dict[int, float], document: Vector
) -> tuple[TermContribution, ...] | None:
    if vocabulary is None:
        return None
    return shared_terms(vocabulary, document.terms, [query.get(term, 0.0) for term in document.terms], document.weights)
