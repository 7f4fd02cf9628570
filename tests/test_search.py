"""Exact search is brute force, proved; the other modes say truly what they may have missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from support import brute_force, build, random_vectors, unit_vectors

from sparse_sts_index import DataError, SparseStsEncoder, SparseStsIndex, load_pairs, read_corpus
from sparse_sts_index import search as search_module
from sparse_sts_index.impact_index import ImpactIndex
from sparse_sts_index.search import STEPS, Step


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("k", [1, 3, 10, 500])
@pytest.mark.parametrize("in_memory", [False, True])
def test_every_mode_against_brute_force(tmp_path: Path, bits: int, k: int, in_memory: bool) -> None:
    """Ids in order, cosines to the last bit; and no document that is not a hit is above the stated bound."""
    rng = np.random.default_rng(bits * 1000 + k)
    vectors, queries = random_vectors(rng, 400), random_vectors(rng, 40)
    ids = [f"d{number}" for number in rng.permutation(400)]
    build(tmp_path / "index", ids, vectors, bits)
    with ImpactIndex.open(tmp_path / "index", in_memory=in_memory) as index, index.using() as state:
        for mode in STEPS:
            for row, found in enumerate(index.search(state, queries, k, mode)):
                everything = brute_force(ids, vectors, queries[[row]], 400)
                hits = list(zip(found.ids, found.cosines, strict=True))
                assert found.certified or mode != "exact"
                if found.certified:
                    assert hits == everything[:k]
                cosines = dict(everything)
                assert [cosines[doc_id] for doc_id in found.ids] == found.cosines  # true ones, found or not
                others = [cosine for doc_id, cosine in everything if doc_id not in found.ids]
                assert max(others, default=0.0) <= found.bound
                assert index.documents(state, np.array(found.rows, np.int64)) == [index.get(i) for i in found.ids]


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
        ImpactIndex.open(path, in_memory=in_memory) as index,
        index.using() as state,
    ):
        patch.setattr(search_module, "STEPS", steps)
        for mode in steps:
            for row, found in enumerate(index.search(state, asked, k, mode)):
                expected = brute_force(ids, vectors, asked[[row]], len(ids))
                if found.certified or mode == "exact":
                    assert list(zip(found.ids, found.cosines, strict=True)) == expected[:k]
                    assert found.certified
                others = [cosine for doc_id, cosine in expected if doc_id not in found.ids]
                assert max(others, default=0.0) <= found.bound


def test_documents_that_lucene_cannot_find_are_found(tmp_path: Path) -> None:
    """All that they share with the query was rounded to nothing."""
    vectors = unit_vectors([[1, 0.001, *[0] * 38], [0, 1, *[0] * 38]])
    query = unit_vectors([[0, 1, 1, *[0] * 37]])
    build(tmp_path / "index", ["faint", "clear"], vectors)
    with ImpactIndex.open(tmp_path / "index") as index, index.using() as state:
        assert len(state.reader.search(['"t1"^1'], 5)[0]) == 1
        (found,) = index.search(state, query, 5)
        assert found.ids == ["clear", "faint"]
        assert found.certified


def test_many_queries_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors, queries = random_vectors(rng, 300), random_vectors(rng, 64)
    queries = csr_array(np.vstack([queries.toarray(), np.zeros((1, 40), np.float32)]))  # and one without a term
    build(tmp_path / "index", [str(n) for n in range(300)], vectors)
    opened = ImpactIndex.open(tmp_path / "index", in_memory=False)
    with opened as index, index.using() as state:
        together = index.search(state, queries, 5)
        assert together == [index.search(state, queries[[row]], 5)[0] for row in range(65)]
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
        (["cat"], {"k": 0}, "at least 1"),
        (["cat"], {"mode": "fast"}, "one of exact, two"),
    ],
)
def test_misuse(sample_index: SparseStsIndex, texts: list[str], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_index.search(texts, **arguments)
    with pytest.raises(DataError, match="unpaired surrogate"):
        sample_index.search(["\ud800"])


def test_vectors_that_no_bound_holds_for(sample_index: SparseStsIndex) -> None:
    good = sample_index.encoder.encode(["A cat."])
    (expected,) = sample_index.search(["A cat."], 3)
    backwards = csr_array((good.data[::-1].copy(), good.indices[::-1].copy(), good.indptr), shape=good.shape)
    assert sample_index.search_vectors(backwards, 3) == [expected]
    for bad, message in ((good[:, :99], "columns"), (-good, "not negative"), (good * np.nan, "numbers")):
        with pytest.raises(ValueError, match=message):
            sample_index.search_vectors(csr_array(bad), 3)
