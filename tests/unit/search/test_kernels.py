"""The claims that the head of the module proves, one function at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from support import equal_weights, near_steps, random_vectors, store, unit_vectors

from sparse_sts_index.search import kernels
from sparse_sts_index.search.memory_index import MemoryIndex

VOCABULARY = 600
COUNTS = [*range(1, 60), 100, 200, 333, 500, 600]
KINDS: dict[str, Callable[[np.random.Generator], csr_array]] = {
    "equal": lambda rng: equal_weights(COUNTS, VOCABULARY, rng),
    "steps": lambda rng: near_steps(64, VOCABULARY, rng),
    "random": lambda rng: random_vectors(rng, 64, 50, VOCABULARY),
    "skewed": lambda rng: unit_vectors(np.exp(-rng.gamma(2, 3, (64, VOCABULARY)))),
    "one term": lambda rng: equal_weights([1] * 64, VOCABULARY, rng),
    "light": lambda rng: equal_weights([1] * 64, VOCABULARY, rng) * np.float32(1e-3),
    "short": lambda rng: random_vectors(rng, 64, 50, VOCABULARY) * np.float32(0.3),
}


def postings_of(folder: Path, vectors: csr_array) -> kernels.Postings:
    """Those of at most 64 rows, which are one window."""
    (run,) = MemoryIndex(store(folder, vectors, ())).parts[0].runs
    return run.postings


def impacts_of(vectors: csr_array) -> NDArray[np.int64]:
    weights = vectors.toarray().astype(np.float64)
    return np.clip(np.rint(weights * 255), weights > 0, 255).astype(np.int64)


@pytest.mark.parametrize("kind", KINDS)
def test_fill_states_the_errors_of_its_rows(tmp_path: Path, kind: str) -> None:
    vectors = KINDS[kind](np.random.default_rng(0))
    postings, impacts = postings_of(tmp_path, vectors), impacts_of(vectors)
    weights = vectors.toarray().astype(np.float64)
    errors = np.linalg.norm(255 * weights - impacts, axis=1)
    assert (postings.row_errors >= errors).all()
    assert postings.row_errors == pytest.approx(errors, rel=2e-6)
    expected = [errors.max(), *(np.linalg.norm(each, axis=1).max() for each in (impacts, weights))]
    assert postings.bounds[0] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ([0, 1, 0, 2], True),
        ([0, 1, 2, 1], False),  # not in order
        ([0, 1, 0, 0], False),  # one twice
        ([0, 1, 0, 3], False),  # beyond the vocabulary
        ([-1, 0, 0, 1], False),
        ([0, 1, 1, 2], False),  # more postings of a term than were counted
        ([0, 1, 0], False),  # fewer
    ],
)
def test_fill_refuses_rows_that_are_not_as_counted(tmp_path: Path, terms: list[int], kept: bool) -> None:
    vectors = csr_array((np.full(4, 0.5, np.float32), np.array([0, 1, 0, 2], np.int32), [0, 2, 4]), shape=(2, 3))
    width = 64
    postings = kernels.Postings(
        starts=np.array([[0, 2], [2, 3], [3, 4]], np.uint32),
        places=np.zeros(4, np.uint16),
        impacts=np.zeros(4, np.uint8),
        dense_ends=np.zeros(1, np.int64),
        dense_terms=np.zeros(0, np.int32),
        dense_impacts=np.zeros((0, width), np.uint8),
        row_errors=np.zeros(2, np.float32),
        bounds=np.zeros((1, 3)),
    )
    ends, dense = vectors.indptr[1:].astype(np.int64), np.full(3, -1)
    assert kernels.fill(np.array(terms, np.int32), vectors.data, ends, dense, 0, 0, postings) is kept


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("kind", KINDS)
def test_accumulators_are_exact_and_near_the_cosine(tmp_path: Path, kind: str, dtype: type) -> None:
    """Nothing wraps, and nothing is further from the cosine than the margin."""
    rng = np.random.default_rng(0)
    vectors = KINDS[kind](rng)
    postings, impacts = postings_of(tmp_path, vectors), impacts_of(vectors)
    accumulators, scaled = np.zeros(64, dtype), np.zeros(VOCABULARY, dtype)
    most = np.iinfo(dtype).max
    for row in range(64):
        query = vectors[[row]] * np.float32(rng.choice([0.3, 1, 3]))
        weights = query.data.astype(np.float64)
        norm = np.linalg.norm(weights)
        scale, length, error = kernels.scale_query(query.data, query.indices, postings, scaled, float(most))
        assert scale == pytest.approx((most / postings.bounds[:, 1].max() - np.sqrt(len(weights))) / norm)
        rounded = np.maximum(np.rint(weights * scale), 1)
        assert scaled[query.indices].tolist() == rounded.tolist()
        assert (length, error) == pytest.approx((scale * norm, np.linalg.norm(weights * scale - rounded)))

        kernels.accumulate(postings, 0, query.indices, accumulators, scaled)
        expected = impacts @ scaled.astype(int)
        assert expected.max() <= most
        assert accumulators.tolist() == expected.tolist()
        exact = (vectors.toarray().astype(np.float64) @ query.toarray().astype(np.float64).T)[:, 0]
        assert (accumulators > 0).tolist() == (exact > 0).tolist()
        margin = length * postings.bounds[0, 0] + error * postings.bounds[0, 1]
        assert np.abs(255 * scale * exact - expected).max() <= margin * (1 + 1e-9) + 1e-5
        scaled[:] = 0


@given(st.integers(1, 40), st.lists(st.integers(1, 50), max_size=200))
def test_replace_least_keeps_the_highest(size: int, values: list[int]) -> None:
    heap = np.zeros(size, np.int64)
    for value in values:
        if value > heap[0]:
            kernels.replace_least(heap, value)
    assert sorted(heap.tolist()) == sorted([0] * size + values)[-size:]


@pytest.mark.parametrize("cosine", [0.9, 0.5, 0.01, 50.0])
@pytest.mark.parametrize("spread", [1, 6])
def test_heads_contribute_what_the_proof_says(cosine: float, spread: int) -> None:
    """Computed by its angles here, and for as few terms as are enough, the cheapest for their weight first."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 12))
        weights = np.exp(rng.normal(0, spread, count)).astype(np.float32)
        costs, longest, enough = rng.integers(0, 4, 20), rng.choice([0.3, 1.0, 7.0]), rng.random()
        terms = rng.choice(20, count, replace=False).astype(np.int32)
        squares = weights.astype(np.float64) ** 2
        length = math.sqrt(math.fsum(squares))
        order = np.argsort(costs[terms] / squares, kind="stable")
        ratio = min(1.0, cosine / (length * longest))
        for kept in range(1, count + 1):
            head, rest = (math.sqrt(math.fsum(squares[some])) for some in (order[:kept], order[kept:]))
            exact = longest * head * math.cos(math.atan2(rest, head) + math.acos(ratio))
            left, beside = math.hypot(rest, 1e-5 * length), math.hypot(math.sin(math.acos(ratio)), 1e-5)
            expected = longest * head * (head * ratio - left * beside) / length
            if expected >= enough:
                break
        else:
            expected = exact = cosine
        chosen, least = kernels.heads(terms, weights, costs, cosine, longest, enough)
        assert chosen.tolist() == order[:kept].tolist()
        assert least == pytest.approx(expected, abs=1e-9 * longest * length)
        assert least <= exact + 1e-14 * longest * length
