"""The arithmetic of engines that are built on Lucene, in Lucene itself: what is sent, indexed and scored as they do it.

Elasticsearch and OpenSearch index ``FeatureField`` and ask its linear query; Solr indexes float payloads and asks
``PayloadScoreQuery``, times a constant. These are their classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from support import VOCABULARY, random_vectors, unit_vectors

from sparse_sts_index.data.filters import Filter
from sparse_sts_index.engines import remote_index
from sparse_sts_index.engines.backends.elasticsearch import Elasticsearch
from sparse_sts_index.engines.backends.feature_engine import document
from sparse_sts_index.engines.backends.opensearch import OpenSearch
from sparse_sts_index.engines.backends.packing import unpack
from sparse_sts_index.engines.backends.solr import Solr, document as solr_document, parameters
from sparse_sts_index.engines.backends.terms import FEATURE_ERROR, feature_weights
from sparse_sts_index.engines.base import Found, Metadata, Point, Vector, vectors_of
from sparse_sts_index.engines.remote_index import RemoteIndex
from sparse_sts_index.engines.target import Target
from sparse_sts_index.storage.lucene.jvm import java_cast, java_class, jvm_lock
from sparse_sts_index.vectors.vocabulary import DELIMITER

if TYPE_CHECKING:
    from sparse_sts_index.engines.backends.feature_engine import FeatureEngine
    from sparse_sts_index.engines.base import Engine

LUCENE = "org.apache.lucene."
ROWS = 250


class InLucene:
    """A Lucene index in memory."""

    def __init__(self, documents: Sequence[Sequence[Any]]) -> None:
        with jvm_lock:
            store = java_class(LUCENE + "store.ByteBuffersDirectory")()
            config = java_class(LUCENE + "index.IndexWriterConfig")(_payload_analyzer())
            writer = java_class(LUCENE + "index.IndexWriter")(store, config)
            for fields in documents:
                doc = java_class(LUCENE + "document.Document")()
                for field in fields:
                    doc.add(field)
                writer.addDocument(doc)
            writer.forceMerge(1)
            writer.close()
            reader = java_class(LUCENE + "index.DirectoryReader").open(store)
            self._searcher = java_class(LUCENE + "search.IndexSearcher")(
                reader, signature="(Lorg/apache/lucene/index/IndexReader;)V"
            )

    def search(self, clauses: Sequence[Any], limit: int = ROWS) -> dict[int, float]:
        """Scores by document, best first, of a disjunction."""
        with jvm_lock:
            builder = java_class(LUCENE + "search.BooleanQuery$Builder")()
            should = java_class(LUCENE + "search.BooleanClause$Occur").SHOULD
            for clause in clauses:
                builder.add(java_cast(LUCENE + "search.Query", clause), should)
            found = self._searcher.search(builder.build(), limit).scoreDocs
            return {hit.doc: hit.score for hit in found}


def _payload_analyzer() -> Any:
    options = java_class("java.util.HashMap")()
    options.put("delimiter", DELIMITER)
    options.put("encoder", "float")
    return (
        java_class(LUCENE + "analysis.custom.CustomAnalyzer")
        .builder()
        .withTokenizer("whitespace", java_class("java.util.HashMap")())
        .addTokenFilter("delimitedPayload", options)
        .build()
    )


def feature_fields(point: Point) -> list[Any]:
    """What Elasticsearch and OpenSearch make of a document."""
    features = document(point, VOCABULARY.terms)["terms"]
    field = java_class(LUCENE + "document.FeatureField")
    return [field("terms", name, weight) for name, weight in features.items()]


def feature_clauses(engine: type[FeatureEngine], query: Vector) -> list[Any]:
    """What they make of a query."""
    body = engine.query(query, VOCABULARY.terms)
    if engine is Elasticsearch:
        weights = body["sparse_vector"]["query_vector"]
    else:
        asked = [clause["rank_feature"] for clause in body["bool"]["should"]]
        assert all(clause["linear"] == {} and clause["field"].startswith("terms.") for clause in asked)
        weights = {clause["field"].removeprefix("terms."): clause["boost"] for clause in asked}
    linear = java_class(LUCENE + "document.FeatureField").newLinearQuery
    boost = java_class(LUCENE + "search.BoostQuery")
    return [boost(linear("terms", name, 1.0), weight) for name, weight in weights.items()]


def payload_fields(point: Point) -> list[Any]:
    """What Solr makes of a document."""
    text = solr_document(point, VOCABULARY.terms)["sts_terms"]
    store = java_class(LUCENE + "document.Field$Store").NO
    return [java_class(LUCENE + "document.TextField")("sts_terms", text, store)]


@functools.cache
def payload_decoder() -> Any:
    """As Solr's, for a field whose filter encodes floats. (What Lucene calls its float decoder is not it.)"""
    java_class(LUCENE + "queries.payloads.PayloadDecoder")
    import jnius

    helper = java_class(LUCENE + "analysis.payloads.PayloadHelper")

    class Decoder(jnius.PythonJavaClass):  # type: ignore[misc]
        __javainterfaces__ = ("org/apache/lucene/queries/payloads/PayloadDecoder",)
        __javacontext__ = "app"

        @jnius.java_method("(Lorg/apache/lucene/util/BytesRef;)F", name="computePayloadFactor")  # type: ignore[untyped-decorator]
        def decode(self, payload: Any) -> float:
            return float(helper.decodeFloat(payload.bytes, payload.offset))

    return Decoder()


def payload_clause(term: str) -> Any:
    span = java_class(LUCENE + "queries.spans.SpanTermQuery")(java_class(LUCENE + "index.Term")("sts_terms", term))
    total = java_class(LUCENE + "queries.payloads.SumPayloadFunction")()
    return java_class(LUCENE + "queries.payloads.PayloadScoreQuery")(
        java_cast(LUCENE + "queries.spans.SpanQuery", span), total, payload_decoder(), False
    )


def payload_clauses(query: Vector) -> list[Any]:
    """What Solr makes of a query: each ``{!boost b=WEIGHT}{!payload_score ...}``."""
    request = parameters(query, 10, VOCABULARY.terms)
    by_value = java_class(LUCENE + "queries.function.FunctionScoreQuery").boostByValue
    constant = java_class(LUCENE + "search.DoubleValuesSource").constant
    clauses = []
    for number in range(len(query.terms)):
        weight, payload = request[f"q{number}"].removeprefix("{!boost b=").split("}", 1)
        assert payload == f"{{!payload_score f=sts_terms func=sum includeSpanScore=false v=$t{number}}}"
        clauses.append(by_value(payload_clause(request[f"t{number}"]), constant(np.float32(weight).item())))
    return clauses


KINDS: dict[str, tuple[type, Callable[[Point], list[Any]], Callable[[Vector], list[Any]]]] = {
    "elasticsearch": (Elasticsearch, feature_fields, lambda query: feature_clauses(Elasticsearch, query)),
    "opensearch": (OpenSearch, feature_fields, lambda query: feature_clauses(OpenSearch, query)),
    "solr": (Solr, payload_fields, payload_clauses),
}


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_cosines_within_the_stated_rounding(name: str) -> None:
    engine, fields, clauses = KINDS[name]
    vectors = random_vectors(np.random.default_rng(7), ROWS, terms=12)
    points = [Point(str(row), "", vector) for row, vector in enumerate(vectors_of(vectors))]
    index = InLucene([fields(point) for point in points])
    queries = random_vectors(np.random.default_rng(8), 40, terms=12)
    worst, bound = 0.0, in_process(name, points)
    for query, asked in zip(queries, vectors_of(queries), strict=True):
        scores = index.search(clauses(asked))
        cosines = vectors.astype(np.float64) @ query.toarray().ravel().astype(np.float64)
        assert set(scores) == set(np.flatnonzero(cosines).tolist())
        allowed = bound.rounding(len(asked.terms))
        for row, score in scores.items():
            assert abs(score - cosines[row]) <= allowed * cosines[row]
            worst = max(worst, abs(score / cosines[row] - 1))
    if engine.stored_error:  # and the bound is not an idle one
        assert 0.5 * engine.stored_error < worst
    else:
        assert worst < 3e-7


def test_the_weights_that_are_sent_lose_nothing_in_a_feature_field() -> None:
    """Sent as they are, they would be cut off, by up to twice the error."""
    field = java_class(LUCENE + "document.FeatureField")
    weights = np.random.default_rng(3).uniform(0.01, 1, ROWS).astype(np.float32)
    rounded = feature_weights(weights)

    def stored(values: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        index = InLucene([[field("f", "a", value)] for value in values.tolist()])
        scores = index.search([field.newLinearQuery("f", "a", 1.0)])
        return np.array([scores[row] for row in range(len(values))])

    assert (stored(rounded) == rounded).all()
    exact = weights.astype(np.float64)
    assert 0.9 * FEATURE_ERROR < (abs(rounded - exact) / exact).max() <= FEATURE_ERROR
    cut = (exact - stored(weights)) / exact
    assert cut.min() >= 0
    assert 1.8 * FEATURE_ERROR < cut.max() < 2 * FEATURE_ERROR


def test_an_ordinary_boost_is_lost_on_a_payload_score() -> None:
    """Why the weights of a Solr query are functions."""
    (vector,) = vectors_of(unit_vectors([[1.0] + [0.0] * 39]))
    index = InLucene([payload_fields(Point("a", "", vector))])
    clause = payload_clause(VOCABULARY.terms[0])
    boosted = java_class(LUCENE + "search.BoostQuery")(java_cast(LUCENE + "search.Query", clause), 0.25)
    assert index.search([boosted]) == {0: 1.0}
    assert index.search(payload_clauses(Vector([0], [0.25]))) == {0: 0.25}


class InProcess:
    """An engine's requests, answered by Lucene in this process; all else is the engine's own."""

    kind: str

    def __init__(self, points: Sequence[Point]) -> None:
        _, fields, self._clauses = KINDS[self.kind]
        self.target = Target(self.kind, True, "memory", "x")
        self._points = points
        self._index = InLucene([fields(point) for point in points])
        self.limits: list[int] = []

    def metadata(self) -> Metadata:
        return Metadata("", "", VOCABULARY.sha256, len(VOCABULARY), "float32", 8, None)

    def search(
        self, queries: Sequence[Vector], limit: int, terms: Sequence[str], where: Filter | None = None
    ) -> list[list[Found]]:
        assert where is None
        self.limits.append(limit)
        found = []
        for query in queries:
            scores = self._index.search(self._clauses(query), limit)
            hits = [(document(self._points[row], terms), score) for row, score in scores.items()]
            found.append([Found(Point(d["id"], d["text"], unpack(d["vector"])), score) for d, score in hits])
        return found


def in_process(name: str, points: Sequence[Point]) -> Any:
    """An engine, its bound among the rest, with Lucene in the place of its client."""
    return type(name, (InProcess, KINDS[name][0]), {"kind": name})(points)


@pytest.mark.parametrize("name", KINDS)
def test_hits_are_those_of_brute_force_and_certified(name: str) -> None:
    """Rounded scores choose the candidates; what comes out is exact, with a bound that holds."""
    from support import brute_force

    vectors = random_vectors(np.random.default_rng(11), ROWS, terms=12)
    ids = [f"d{row:03}" for row in range(ROWS)]
    points = [Point(doc_id, doc_id, vector) for doc_id, vector in zip(ids, vectors_of(vectors), strict=True)]
    engine = in_process(name, points)
    remote = RemoteIndex(engine)
    queries = random_vectors(np.random.default_rng(12), 30, terms=12)
    for row, hits in enumerate(remote.search_vectors(queries, VOCABULARY, 5)):
        expected = brute_force(ids, vectors, queries[[row]], 6)
        assert hits.certified
        assert [(hit.id, hit.cosine) for hit in hits] == expected[:5]
        assert hits.bound >= expected[5][1]
    assert {25, 200} >= set(engine.limits)


def rounded_alike(engine: type[Engine]) -> list[Vector]:
    """Three documents that an engine gives one score: the lowest cosine, a hit's, and a higher one."""
    if engine.stored_error:
        step = 2.0**-9  # of weights from 0.5 to 1
        weights = [[0.6015625 + a * step, 0.6015625 + b * step] for a, b in ((0.6, -0.4), (1.2, 0.2), (1.45, 0.45))]
    else:
        weights = [[0.5, a * 2.0**-24] for a in (0.1, 0.2, 0.45)]
    return [Vector([0, 1], np.array(pair, np.float32).tolist()) for pair in weights]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("others", [20, 300])
def test_a_document_above_the_last_score_that_was_cut_off(
    monkeypatch: pytest.MonkeyPatch, name: str, others: int
) -> None:
    """The engine leaves out the nearest of all; the hit's cosine is above the last score, and that proves nothing."""
    # The query is not of unit length, for sums that float32 holds.
    monkeypatch.setattr(remote_index, "check_vectors", lambda vectors, _: vectors)
    low, hit, best = rounded_alike(KINDS[name][0])
    vectors = [hit, *[low] * others, best]  # Lucene takes the first of equal scores
    points = [Point(f"d{number:03}", "", vector) for number, vector in enumerate(vectors)]
    engine = in_process(name, points)
    query = csr_array(np.array([[1.0, 1.0] + [0.0] * 38], np.float32))
    ((*found, last),) = engine.search(vectors_of(query), 21, VOCABULARY.terms)
    cosine, highest = sum(hit.weights), sum(best.weights)
    assert found[0].point.id == "d000"
    assert last.score < cosine < highest <= engine.unseen(last.score, 2)
    engine.limits.clear()
    (hits,) = RemoteIndex(engine).search_vectors(query, VOCABULARY, 1)
    assert engine.limits == [21, 168]
    assert hits.bound >= (cosine if others == 20 else highest)
    assert (hits.certified, hits[0].id) == ((True, "d021") if others == 20 else (False, "d000"))


def test_more_ties_than_candidates_are_not_certified() -> None:
    row = [[1.0, 1.0] + [0.0] * 38]
    (vector,) = vectors_of(unit_vectors(row))
    points = [Point(f"d{number:03}", "", vector) for number in range(ROWS)]
    remote = RemoteIndex(in_process("elasticsearch", points))
    (hits,) = remote.search_vectors(unit_vectors(row), VOCABULARY, 3)
    assert not hits.certified
    assert hits.bound >= hits[0].cosine
    assert len(hits) == 3


def test_no_terms_no_hits() -> None:
    points = [Point("a", "", Vector([1], [1.0]))]
    remote = RemoteIndex(in_process("opensearch", points))
    empty, other = remote.search_vectors(unit_vectors([[0.0] * 40, [1.0] + [0.0] * 39]), VOCABULARY, 3)
    for hits in (empty, other):
        assert (len(hits), hits.certified, hits.bound) == (0, True, 0.0)
