"""Exact search is brute force, proved; the other modes say truly what they may have missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.sparse import csr_array
from support import brute_force, build, random_vectors, store, unit_vectors

from sparse_sts_index import DataError, Quantizer, SparseStsIndex, load_pairs, read_corpus
from sparse_sts_index.search import certified
from sparse_sts_index.search.certified import STEPS, Step
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene.reader import ImpactReader

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.storage.vector_files import VectorStore


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("k", [1, 3, 10, 500])
@pytest.mark.parametrize("in_memory", [False, True])
def test_every_mode_against_brute_force(tmp_path: Path, bits: int, k: int, in_memory: bool) -> None:
    """Ids in order, cosines to the last bit; and no document that is not a hit is above the stated bound."""
    rng = np.random.default_rng(bits * 1000 + k)
    vectors, queries = random_vectors(rng, 400), random_vectors(rng, 40)
    ids = [f"d{number}" for number in rng.permutation(400)]
    build(tmp_path / "index", ids, vectors, bits)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        for mode in STEPS:
            for row, found in enumerate(Searcher(state, in_memory).search(queries, k, mode)):
                everything = brute_force(ids, vectors, queries[[row]], 400)
                hits = list(zip(found.ids, found.cosines, strict=True))
                assert found.certified or mode != "exact"
                if found.certified:
                    assert hits == everything[:k]
                cosines = dict(everything)
                assert [cosines[doc_id] for doc_id in found.ids] == found.cosines  # true ones, found or not
                others = [cosine for doc_id, cosine in everything if doc_id not in found.ids]
                assert max(others, default=0.0) <= found.bound
                assert state.documents(np.array(found.rows, np.int64)) == [index.get(i) for i in found.ids]


weight = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 50])
rows = st.lists(st.lists(weight, min_size=6, max_size=6), min_size=1, max_size=12)


@given(rows, rows, st.integers(1, 14), st.sampled_from([2, 8]), st.floats(0, 0.9), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_certificate_is_false(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[float]],
    queries: list[list[float]],
    k: int,
    bits: int,
    rest: float,
    in_memory: bool,
) -> None:
    """Ties upon ties, empty rows and queries, any share of the terms left out, and as few candidates as k."""
    vectors, asked = (unit_vectors([[*row, *[0] * 34] for row in rows]) for rows in (documents, queries))
    ids = [str(number) for number in range(len(documents))][::-1]
    path = tmp_path_factory.mktemp("index")
    build(path, ids, vectors, bits)
    steps = {"exact": (Step(rest, 1, 0),), "two-step": (Step(rest, 1, 0),)}
    with (
        pytest.MonkeyPatch.context() as patch,
        ImpactIndex.open(path) as index,
        index.using() as state,
    ):
        patch.setattr(certified, "STEPS", steps)
        for mode in steps:
            for row, found in enumerate(Searcher(state, in_memory).search(asked, k, mode)):
                expected = brute_force(ids, vectors, asked[[row]], len(ids))
                if found.certified or mode == "exact":
                    assert list(zip(found.ids, found.cosines, strict=True)) == expected[:k]
                    assert found.certified
                others = [cosine for doc_id, cosine in expected if doc_id not in found.ids]
                assert max(others, default=0.0) <= found.bound


nonzero = st.lists(st.floats(2**-8, 1, width=32), min_size=1, max_size=9)
share = st.floats(0, 1)
ALLOWED = 1.9e-6  # of the 2e-6 that the bound has for float32


def query_of(weights: list[float] | np.ndarray) -> certified._Query:
    return certified._Query(csr_array(np.asarray([weights], np.float32)), 0)


@given(nonzero, share, st.floats(0.3, 3), share, st.sampled_from(["exact", "by length", "by weight"]))
@settings(deadline=None)
def test_the_bound_holds_and_is_attained(
    weights: list[float], searched: float, length: float, height: float, rounding: str
) -> None:
    """The worst document there can be, for queries of any length, has just the bound's cosine.

    It is in the plane of what Lucene is asked for and the rest, is rounded as badly as documents may be, and its
    float32 is off as far as is allowed for.
    """
    unit = np.sort(np.array(weights) / np.linalg.norm(weights))[::-1]
    query = query_of(length * unit)
    asked = 1 + int(searched * (len(weights) - 1))
    head = np.array(query.weights[:asked])
    tail = np.array(query.weights[asked:])
    head_length, tail_length = np.linalg.norm(head), np.linalg.norm(tail)
    across = height if len(tail) else 1.0  # the document's part in the terms that were asked for
    highest = across * head_length
    cosine = highest + tail_length * np.sqrt(1 - across**2)
    if across >= head_length / query.length:  # a document with a lower part there has more
        cosine = query.length
    scale, error = 255, 1.0
    score = highest
    if rounding == "exact":
        error = 0.0
    elif rounding == "by length":
        error = 0.1 * head.sum() / (2 * scale) / head_length  # less than what half a step of each weight would make
        score -= head_length * error
    else:
        score -= (head / (2 * scale)).sum()
    assert query.bound(score - ALLOWED, asked, scale, error) >= cosine + ALLOWED
    bound = query.bound(score, asked, scale, error)
    slope = query.length / head_length  # what is allowed for in the score weighs no more than this in the sum
    assert bound <= cosine + 5e-6 + 2e-6 * slope


@given(rows, rows, st.sampled_from([2, 4, 8, 16]), share)
def test_no_document_is_above_the_bound_of_its_score(
    documents: list[list[float]], queries: list[list[float]], bits: int, searched: float
) -> None:
    quantizer = Quantizer(bits)
    vectors, asked = unit_vectors(documents), unit_vectors(queries)
    impacts, error = quantizer.quantize(vectors).toarray(), float(quantizer.errors(vectors).max())
    for row in np.flatnonzero(np.diff(asked.indptr)).tolist():
        query = certified._Query(asked, row)
        count = max(1, int(searched * len(query.weights)))
        scores = impacts[:, query.terms[:count]] @ query.weights[:count] / quantizer.scale
        for score, cosine in zip(scores.tolist(), (vectors @ asked[[row]].T).toarray().ravel().tolist(), strict=True):
            assert cosine <= query.bound(score, count, quantizer.scale, error)


@given(nonzero, st.floats(0, 1.1))
def test_the_lightest_terms_are_left_out_as_many_as_may_be(weights: list[float], rest: float) -> None:
    query = query_of(weights)
    assert query.weights == sorted(query.weights, reverse=True)
    kept = query.heaviest(Step(rest, 1, 0))
    assert 1 <= kept <= len(weights)
    assert np.linalg.norm(query.weights[kept:]) <= rest + 1e-9
    assert kept == 1 or np.linalg.norm(query.weights[kept - 1 :]) > rest - 1e-9


def test_terms_of_just_the_length_are_left_out() -> None:
    query = query_of([0.5, 0.5, 0.5, 0.5])
    assert [query.heaviest(Step(rest, 1, 0)) for rest in (0, 0.49, 0.5, 0.51, 2)] == [4, 4, 3, 3, 1]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> VectorStore:
    """A dozen documents and 300 more, of which three do not count."""
    vectors = random_vectors(np.random.default_rng(3), 312)
    return store(tmp_path_factory.mktemp("store"), vectors, [2, 7, 311])


level = st.sampled_from([0.0, 1e-9, 0.25, 0.5, 0.75])


@given(st.permutations(range(12)), st.lists(level, max_size=12), st.integers(1, 14), level)
def test_the_best_of_some_candidates(
    stored: VectorStore, rows: list[int], cosines: list[float], k: int, unseen: float
) -> None:
    """Certified is what no other document reaches, tie or not; the bound is the highest that was left."""
    rows = rows[: len(cosines)]
    found = certified._nearest(stored, np.array(rows, np.int64), np.array(cosines), k, unseen)
    ranked = sorted((-cosine, str(row), row) for cosine, row in zip(cosines, rows, strict=True) if cosine > 0)
    assert list(zip(found.ids, found.rows, found.cosines, strict=True)) == [(i, row, -c) for c, i, row in ranked[:k]]
    assert found.certified == (len(ranked) >= k and -ranked[k - 1][0] > unseen)
    assert found.bound == max(unseen, -ranked[k][0] if len(ranked) > k else 0.0)


@pytest.mark.parametrize("k", [1, 5, 310, 311, 312, 400])
@pytest.mark.parametrize("terms", [[], [0], [3, 0, 17, 39], [39, 38, 5, 4, 3, 2, 1, 0]])
def test_all_documents_compared(stored: VectorStore, terms: list[int], k: int) -> None:
    """The last step: to the last bit; documents that do not count have no cosine, and the bound is the next one's."""
    weights = np.random.default_rng(4).random(len(terms)).astype(np.float32).astype(np.float64).tolist()
    dense = np.zeros(40)
    dense[terms] = weights
    expected = stored.scores(np.arange(312), dense)
    assert (expected > 0).any() == bool(terms)
    expected[[2, 7, 311]] = 0
    cosines = certified._all_cosines(stored, dense, stored.live)
    assert cosines.tolist() == expected.tolist()
    ranked = sorted((-cosine, str(row)) for row, cosine in enumerate(expected.tolist()) if cosine > 0)
    found = certified._best_of_all(stored, cosines, k)
    assert [(-cosine, doc_id) for doc_id, cosine in zip(found.ids, found.cosines, strict=True)] == ranked[:k]
    assert found.rows == [int(doc_id) for doc_id in found.ids]
    assert (found.certified, found.bound) == (True, -ranked[k][0] if len(ranked) > k else 0.0)


def test_what_lucene_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/search.md has it; and only what a step has not proved goes on to the next."""
    calls: list[tuple[int, list[int]]] = []
    ask = ImpactReader.search

    def spy(reader: ImpactReader, lines: list[str], limit: int, among: str = "") -> object:
        calls.append((limit, [line.count("^") for line in lines]))
        return ask(reader, lines, limit, among)

    weights = [0.8, 0.5, 0.3, 0.2, 0.1, 0.004]
    groups, others = np.zeros((4, 40)), np.zeros((10, 40))
    for group in range(4):
        groups[group, 6 * group : 6 * group + 6] = weights
    others[:, 0], others[:, 30] = 0.2, 1  # found for the first query, and far behind
    vectors = unit_vectors(np.vstack([np.repeat(groups, [24, 100, 300, 300], axis=0), others]))
    ids = [f"d{row:03}" for row in range(734)]
    build(tmp_path / "index", ids, vectors)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        monkeypatch.setattr(ImpactReader, "search", spy)
        found = Searcher(state, in_memory=False).search(unit_vectors(groups), 5)
        # 24 that tie, and one behind them, are proved by the first step, 100 by the second, 300 by comparison with all
        assert calls == [(25, [5, 5, 5, 5]), (200, [6, 6, 6])]
        assert [neighbours.ids for neighbours in found] == [ids[first : first + 5] for first in (0, 24, 124, 424)]
        assert all(neighbours.certified for neighbours in found)
        assert [neighbours.bound == neighbours.cosines[-1] for neighbours in found] == [True] * 4
        for mode, expected in (("two-step", (30, [3])), ("approximate", (10, [2]))):
            calls.clear()
            (neighbours,) = Searcher(state, in_memory=False).search(unit_vectors(groups[3:]), 5, mode)
            assert calls == [expected]
            assert not neighbours.certified
            assert neighbours.bound >= 1


def test_fewer_than_lucene_was_asked_for_are_all(tmp_path: Path) -> None:
    """Nothing is behind the last of them that could be nearer."""
    vectors = unit_vectors([[1, 0, *[0] * 38], [3, 4, *[0] * 38], [0, 1, *[0] * 38]])
    build(tmp_path / "index", ["same", "near", "other"], vectors)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        for mode in ("two-step", "approximate"):
            (found,) = Searcher(state, in_memory=False).search(unit_vectors([[1, *[0] * 39]]), 2, mode)
            assert found.ids == ["same", "near"]
            assert found.certified
            assert found.bound < 0.01


def test_documents_that_lucene_cannot_find_are_found(tmp_path: Path) -> None:
    """All that they share with the query was rounded to nothing."""
    vectors = unit_vectors([[1, 0.001, *[0] * 38], [0, 1, *[0] * 38]])
    query = unit_vectors([[0, 1, 1, *[0] * 37]])
    build(tmp_path / "index", ["faint", "clear"], vectors)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        assert len(state.reader.search_impacts([(["t1"], [1])], 5)[0]) == 1
        (found,) = Searcher(state).search(query, 5)
        assert found.ids == ["clear", "faint"]
        assert found.certified


def test_many_queries_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors, queries = random_vectors(rng, 300), random_vectors(rng, 64)
    queries = csr_array(np.vstack([queries.toarray(), np.zeros((1, 40), np.float32)]))  # and one without a term
    build(tmp_path / "index", [str(n) for n in range(300)], vectors)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        searcher = Searcher(state, in_memory=False)
        together = searcher.search(queries, 5)
        assert together == [searcher.search(queries[[row]], 5)[0] for row in range(65)]
        assert (together[-1].ids, together[-1].certified, together[-1].bound) == ([], True, 0)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_real_model_on_the_sample(sample_index: SparseStsIndex, tiny: SparseStsEncoder, in_memory: bool) -> None:
    index = SparseStsIndex.open(sample_index.path, tiny, in_memory=in_memory)
    documents = list(read_corpus("sample"))
    vectors = index.encoder.encode([document.text for document in documents])
    queries = load_pairs("sample", "test").sentence1
    asked = index.encoder.encode(queries)
    ids = [document.id for document in documents]
    for row, hits in enumerate(index.search(queries, 10)):
        assert hits.certified
        assert [(hit.id, hit.cosine) for hit in hits] == brute_force(ids, vectors, asked[[row]], 10)
    quick = [hit.id for hits in index.search(queries, 10, mode="two-step") for hit in hits]
    exact = [hit.id for hits in index.search(queries, 10) for hit in hits]
    assert len(set(quick) & set(exact)) / len(set(exact)) > 0.95
    index.close()


@pytest.mark.parametrize(
    ("texts", "arguments", "message"),
    [
        ("cat", {}, "not one string"),
        (["cat"], {"k": 0}, "^k must be a whole number, at least 1, not 0$"),
        (["cat"], {"mode": "fast"}, "^mode must be one of exact, two-step, approximate, not 'fast'$"),
    ],
)
def test_misuse(sample_index: SparseStsIndex, texts: list[str], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_index.search(texts, **arguments)
    with pytest.raises(DataError, match="unpaired surrogate"):
        sample_index.search(["\ud800"])


def test_what_can_be_asked() -> None:
    for mode in STEPS:
        certified.check_search(1, mode)
        certified.check_search(2**70, mode)  # all of them
    for arguments, message in (
        ((0, "exact"), "k must be a whole number, at least 1, not 0"),
        ((1, "fast"), "mode must be one of exact, two-step, approximate, not 'fast'"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            certified.check_search(*arguments)


def test_vectors_that_can_be_asked_for() -> None:
    good = csr_array(np.array([[0, 0.6, 0.8], [0, 0, 0]]))
    checked = certified.check_vectors(good, 3)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked.toarray(), good.toarray().astype(np.float32))
    assert certified.check_vectors(csr_array((2, 3)), 3).nnz == 0
    twice = csr_array((np.float32([0.3, 0.8, 0.3]), [1, 2, 1], [0, 3]), shape=(1, 3))
    np.testing.assert_allclose(certified.check_vectors(twice, 3).toarray(), [[0, 0.6, 0.8]], atol=1e-6)
    assert certified.check_vectors(twice, 3).indices.tolist() == [1, 2]
    assert twice.nnz == 3
    for indices, indptr in (([0, 3], [0, 2]), ([-1, 1], [0, 2]), ([0, 1], [0, 3])):
        invalid = csr_array(good[[0]])
        invalid.data, invalid.indices, invalid.indptr = np.float32([0.6, 0.8]), np.array(indices), np.array(indptr)
        with pytest.raises(ValueError, match="no valid csr_array"):
            certified.check_vectors(invalid, 3)
    stored_zero = csr_array(([0.0], [1], [0, 1, 1]), shape=(2, 3))
    assert certified.check_vectors(stored_zero, 3).nnz == 1
    backwards = csr_array((np.float32([0.8, 0.6]), [2, 1], [0, 2, 2]), shape=(2, 3))
    checked = certified.check_vectors(backwards, 3)
    assert (checked.has_sorted_indices, checked.indices.tolist()) == (True, [1, 2])
    np.testing.assert_array_equal(checked.toarray(), good.toarray().astype(np.float32))
    for width in (2, 4):
        with pytest.raises(ValueError, match=rf"^vectors must have {width} columns, not the shape \(2, 3\)$"):
            certified.check_vectors(good, width)
    for factor in (0.99, 1.01, 5):
        with pytest.raises(ValueError, match="^vectors must be L2-normalised .*; row 0 has length "):
            certified.check_vectors(good * factor, 3)
    with pytest.raises(ValueError, match="^vectors must be a csr_array, not ndarray$"):
        certified.check_vectors(good.toarray(), 3)  # type: ignore[arg-type]
    for bad in (-good, good * np.nan, good * np.inf):
        with pytest.raises(ValueError, match="^weights must be numbers, and not negative$"):
            certified.check_vectors(csr_array(bad), 3)


def test_vectors_that_no_bound_holds_for(sample_index: SparseStsIndex) -> None:
    good = sample_index.encoder.encode(["A cat."])
    (expected,) = sample_index.search(["A cat."], 3)
    backwards = csr_array((good.data[::-1].copy(), good.indices[::-1].copy(), good.indptr), shape=good.shape)
    assert sample_index.search_vectors(backwards, 3) == [expected]
    for bad, message in ((good[:, :99], "columns"), (-good, "not negative"), (good * np.nan, "numbers")):
        with pytest.raises(ValueError, match=message):
            sample_index.search_vectors(csr_array(bad), 3)
