"""Search in memory is brute force, to the last bit, whatever is left out by integers of 16 bits."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.sparse import csr_array, vstack
from support import brute_force, equal_weights, near_steps, random_vectors, store, unit_vectors

from sparse_sts_index import ImpactIndexError
from sparse_sts_index.search import memory_index
from sparse_sts_index.search.certified import best_first
from sparse_sts_index.search.memory_index import MemoryIndex
from sparse_sts_index.storage.shards import VectorShards
from sparse_sts_index.storage.vector_files import StoredVectors, VectorStore, VectorWriter

FOLDERS = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def new_store(folder: Path, vectors: csr_array, dead: Sequence[int] = ()) -> VectorStore:
    return store(folder / str(next(FOLDERS)), vectors, dead)


def appended(folder: Path, before: VectorStore, vectors: csr_array, dead: Sequence[int] = ()) -> VectorStore:
    """The store after more rows, and the death of some."""
    path = before._folder.parent
    writer = VectorWriter(path, before.extent)
    writer.add(vectors, [str(len(before) + row) for row in range(vectors.shape[0])])
    writer.kill(dead)
    extent = writer.extent(durable=False)
    writer.close()
    return VectorStore(path, extent, before.vocabulary)


def scratch_dtype(index: MemoryIndex, terms: int) -> np.dtype:
    with index._scratch(terms) as scratch:
        return scratch.accumulators.dtype


def assert_brute_force(index: MemoryIndex, stored: StoredVectors, queries: csr_array, ks: Sequence[int]) -> None:
    """Ids in order, cosines to the last bit, and as bound the best that is no hit."""
    live = np.flatnonzero(stored.live)
    vectors = stored.take(live)
    for k in ks:
        found = index.nearest(queries, k + 1)
        assert len(found) == queries.shape[0]
        for row, (rows, cosines) in enumerate(found):
            assert (rows.dtype, cosines.dtype) == (np.int64, np.float64)
            neighbours = best_first(stored, rows, cosines, k)
            expected = brute_force(stored.ids(live), vectors, queries[[row]], len(live))
            assert list(zip(neighbours.ids, neighbours.cosines, strict=True)) == expected[:k]
            assert stored.ids(np.array(neighbours.rows, np.int64)) == neighbours.ids
            assert (neighbours.certified, neighbours.bound) == (True, expected[k][1] if len(expected) > k else 0.0)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 300])
@pytest.mark.parametrize("width", [64, 128, memory_index.WIDTH])
def test_nearest_is_brute_force(folder: Path, count: int, width: int) -> None:
    rng = np.random.default_rng(count)
    stored = new_store(folder, random_vectors(rng, count), rng.choice(count, count // 9, replace=False).tolist())
    empty = csr_array((1, 40), dtype=np.float32)
    queries = csr_array(vstack([random_vectors(rng, 12), empty, random_vectors(rng, 3, terms=1)]))
    assert_brute_force(MemoryIndex(stored, width), stored, queries, [1, 3, 10, count, 10 * count])


weight = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 50, 1e-4, 3e-7, 1e-30])
vectors_of = st.lists(st.lists(weight, min_size=6, max_size=6), min_size=1, max_size=80)


@given(vectors_of, vectors_of, st.integers(1, 90), st.sampled_from([64, 128]), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ties_and_tiny_weights(
    folder: Path, rows: list[list[float]], queries: list[list[float]], k: int, width: int, data: st.DataObject
) -> None:
    vectors, asked = (unit_vectors([[*row, *[0] * 34] for row in some]) for some in (rows, queries[:5]))
    dead = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    stored = new_store(folder, vectors, dead)
    assert_brute_force(MemoryIndex(stored, width), stored, asked, [k])


@pytest.mark.parametrize("least", [0.0, 1e9])
def test_vectors_of_very_many_terms(folder: Path, monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    """Vectors of 600 equal weights are exact with accumulators of 16 bits, and with those of 32 bits."""
    monkeypatch.setattr(memory_index, "_LEAST_SCALE", least)
    rng = np.random.default_rng(1)
    vectors = csr_array(vstack([equal_weights([600, 599, 300, 41, 2, 1] * 20, 600, rng), near_steps(60, 600, rng)]))
    stored = new_store(folder, vectors, [3, 4])
    index = MemoryIndex(stored, 64)
    assert_brute_force(index, stored, vectors[::7], [1, 5, 20])
    assert scratch_dtype(index, 600) == (np.uint16 if least == 0 else np.uint32)


def test_accumulators_of_32_bits_where_16_are_too_few(folder: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = unit_vectors(rng.random((65, 70_000)) + 0.1)
    stored = new_store(folder, vectors)
    index = MemoryIndex(stored, 64)
    rows, cosines = index.nearest(vectors[[7]], 3)[0]
    assert scratch_dtype(index, 70_000) == np.uint32
    dense = vectors.toarray()[7].astype(np.float64)
    expected = stored.scores(np.arange(65), dense)
    assert (
        sorted(zip(cosines.tolist(), rows.tolist(), strict=True))
        == sorted(zip(expected.tolist(), range(65), strict=True))[-3:]
    )


def test_what_is_added_is_a_tail(folder: Path) -> None:
    """Complete windows are taken over, not made again; deletions count in them; ever more tails become one."""
    rng = np.random.default_rng(3)
    queries = random_vectors(rng, 5)
    stored = new_store(folder, random_vectors(rng, 200), [5])
    index, shared = MemoryIndex(stored, 64), 0
    for step in range(20):
        before, old = index, stored
        stored = appended(folder, stored, random_vectors(rng, 1 + 13 * (step % 7)), [10 * step, len(stored) - 1])
        index = MemoryIndex(stored, 64, before, len(old))
        assert_brute_force(index, stored, queries, [1, 7, 400])
        runs, earlier = index.parts[0].runs, before.parts[0].runs
        assert [run.start for run in runs] == np.cumsum([0, *(run.size for run in runs[:-1])]).tolist()
        assert len(runs) <= 6
        shared += len(runs) > 1 and np.shares_memory(runs[0].postings.places, earlier[0].postings.places)
    assert shared > 15


def test_rows_that_were_rolled_back_are_not_taken_over(folder: Path) -> None:
    rng = np.random.default_rng(4)
    first, queries = new_store(folder, random_vectors(rng, 70)), random_vectors(rng, 5)
    dropped = appended(folder, first, random_vectors(rng, 100))
    index = MemoryIndex(dropped, 64)
    stored = appended(folder, first, random_vectors(rng, 120))  # in the place of what was dropped
    assert_brute_force(MemoryIndex(stored, 64, index, 70), stored, queries, [3, 500])


def test_shards(folder: Path) -> None:
    rng = np.random.default_rng(5)
    parts = [new_store(folder, random_vectors(rng, count), dead) for count, dead in ((70, [0]), (1, []), (200, [199]))]
    stored = VectorShards(parts)
    for number, part in enumerate(parts):  # ids are the rows in each store: made different here
        part.ids = lambda rows, number=number, ids=part.ids: [f"{number}-{i}" for i in ids(rows)]  # type: ignore[method-assign]
    assert_brute_force(MemoryIndex(stored, 64), stored, random_vectors(rng, 9), [1, 4, 300])


def test_a_store_without_rows_and_one_without_terms(folder: Path) -> None:
    queries = random_vectors(np.random.default_rng(6), 3)
    for vectors, dead in ((csr_array((0, 40), dtype=np.float32), []), (csr_array((5, 40), dtype=np.float32), []),
                          (random_vectors(np.random.default_rng(6), 2), [0, 1])):  # fmt: skip
        found = MemoryIndex(new_store(folder, vectors, dead)).nearest(queries, 4)
        assert [len(rows) for rows, _ in found] == [0, 0, 0]


def test_threads_and_blocks_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    stored, queries = new_store(folder, random_vectors(rng, 500)), random_vectors(rng, 100)
    index = MemoryIndex(stored, 128)
    alone = [index.nearest(queries[[row]], 6)[0] for row in range(100)]
    monkeypatch.setattr(memory_index, "cores", lambda: 3)
    monkeypatch.setattr(memory_index, "_FEW", 3)
    results: list[list[memory_index.Rows]] = [[] for _ in range(4)]

    def ask(number: int) -> None:
        results[number] = index.nearest(queries, 6)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results:
        for (rows, cosines), (expected, values) in zip(found, alone, strict=True):
            assert rows.tolist() == expected.tolist()
            assert cosines.tolist() == values.tolist()


def assert_all_pairs(index: MemoryIndex, stored: StoredVectors, asked: StoredVectors, cosine: float) -> None:
    """The pairs of brute force, with cosines to the last bit, whether or not the rows asked for are its own."""
    own, count = asked is stored, len(asked)
    expected = []
    for row in np.flatnonzero(asked.live).tolist():
        dense = asked.take(np.array([row])).toarray()[0].astype(np.float64)
        values = stored.scores(np.arange(len(stored)), dense)
        rows = np.flatnonzero((values >= cosine) & stored.live & (not own or np.arange(len(stored)) > row))
        expected += [(row, other, float(values[other])) for other in rows.tolist()]
    vectors = asked.take(np.arange(count))
    found = index.partners(vectors, asked.live, cosine, 0 if own else None)
    assert [part.dtype for part in found] == [np.int64, np.int64, np.float64]
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


@pytest.mark.parametrize("enough", [0.0, 0.3, 0.6, 0.99, 1.0])
@pytest.mark.parametrize("cosine", [1 - 2e-6, 0.9, 0.6, 0.3, 0.01])
def test_partners_are_brute_force(folder: Path, monkeypatch: pytest.MonkeyPatch, enough: float, cosine: float) -> None:
    monkeypatch.setattr(memory_index, "_ENOUGH", enough)
    rng = np.random.default_rng(round(enough * 100))
    stored = new_store(folder, random_vectors(rng, 150), [3, 64, 149])
    other = new_store(folder, csr_array(vstack([random_vectors(rng, 30), csr_array((1, 40), dtype=np.float32)])), [7])
    index = MemoryIndex(stored, 64)
    assert_all_pairs(index, stored, stored, cosine)
    assert_all_pairs(index, stored, other, cosine)


@given(vectors_of, st.floats(1e-3, 1), st.floats(0, 1), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_partners_of_ties_and_tiny_weights(
    folder: Path, rows: list[list[float]], cosine: float, enough: float, data: st.DataObject
) -> None:
    dead = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    stored = new_store(folder, unit_vectors([[*row, *[0] * 34] for row in rows]), dead)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_index, "_ENOUGH", enough)
        assert_all_pairs(MemoryIndex(stored, 64), stored, stored, cosine)


@pytest.mark.parametrize("cosine", [0.95, 0.5])
def test_partners_of_vectors_that_are_not_of_unit_length(folder: Path, cosine: float) -> None:
    """An index of others may hold any: no pair is lost."""
    rng = np.random.default_rng(10)
    vectors = random_vectors(rng, 150)
    vectors.data *= np.repeat(rng.choice([0.2, 1, 1.7], 150), np.diff(vectors.indptr)).astype(np.float32)
    stored = new_store(folder, vectors)
    assert_all_pairs(MemoryIndex(stored, 64), stored, stored, cosine)


def test_partners_among_shards_and_tails(folder: Path) -> None:
    rng = np.random.default_rng(11)
    first = new_store(folder, random_vectors(rng, 130))
    longer = appended(folder, first, random_vectors(rng, 100), [129, 131])
    index = MemoryIndex(longer, 64, MemoryIndex(first, 64), 130)
    assert [run.start for run in index.parts[0].runs] == [0, 128]
    assert_all_pairs(index, longer, longer, 0.6)
    stored = VectorShards([longer, new_store(folder, random_vectors(rng, 70), [1]), first])
    index = MemoryIndex(stored, 64)
    vectors, live = stored.take(np.arange(len(stored))), stored.live
    expected = [
        (row, other)
        for row, values in enumerate(vectors.toarray().astype(np.float64) @ vectors.toarray().astype(np.float64).T)
        for other in np.flatnonzero(values >= 0.6).tolist()
        if other > row and live[row] and live[other]
    ]
    found = []
    for start, stop in ((0, 100), (100, 230), (230, 300), (300, 430)):
        rows, others, _ = index.partners(vectors[start:stop], live[start:stop], 0.6, start)
        found += list(zip((rows + start).tolist(), others.tolist(), strict=True))
    assert found == expected


@pytest.mark.parametrize(
    ("shares", "dense", "most"),
    [
        ([0.05] * 40, 0, 3),
        ([0.05] * 40 + [0.15], 1, 4),
        ([0.2] * 40, 0, 3),
        ([0.27] * 40, 40, 4),
        ([0.5] * 40, 40, 2.1),
    ],
)
def test_postings_take_few_bytes(folder: Path, shares: list[float], dense: int, most: float) -> None:
    """A term that an eighth of the rows has is dense, but not where such terms would take more than 4 bytes each."""
    rng = np.random.default_rng(8)
    weights = np.where(rng.random((10_000, len(shares))) < shares, rng.random((10_000, len(shares))), 0)
    vectors = csr_array(weights.astype(np.float32))
    postings = MemoryIndex(new_store(folder, vectors)).parts[0].runs[0].postings
    assert len(postings.dense_terms) == dense
    arrays = (postings.places, postings.impacts, postings.dense_impacts)
    assert sum(array.nbytes for array in arrays) <= most * vectors.nnz


def test_files_that_change_do_no_harm(folder: Path) -> None:
    """Wrong answers at worst: no reading beyond the arrays."""
    rng = np.random.default_rng(9)
    vectors = random_vectors(rng, 100)
    stored = new_store(folder, vectors)
    index = MemoryIndex(stored, 64)
    for name, dtype, place, values in (
        ("terms.i32", "<i4", 0, [2**31 - 1] * 50 + [-5] * 40 + [40] * 40),
        ("ends.i64", "<i8", 10, [-(2**60)] * 10 + [2**60] * 50),
    ):
        np.memmap(stored._folder / name, dtype, "r+")[place : place + len(values)] = values
    index.partners(vectors, np.ones(100, bool), 0.1, 0)
    index.nearest(vectors, 5)


@pytest.mark.parametrize("terms", [[3, 1, 5], [1, 3, 3]])
def test_rows_that_are_not_in_order_are_refused(folder: Path, terms: list[int]) -> None:
    """An index of others may hold a term twice: its accumulators would wrap."""
    vectors = csr_array((np.full(3, 3**-0.5, np.float32), np.array(terms, np.int32), [0, 3]), shape=(1, 40))
    with pytest.raises(ImpactIndexError, match="terms.i32: damaged"):
        MemoryIndex(new_store(folder, vectors))


def test_an_error_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a search that failed half way is not used again."""
    rng = np.random.default_rng(12)
    stored, queries = new_store(folder, random_vectors(rng, 100)), random_vectors(rng, 4)
    index = MemoryIndex(stored, 64)
    real = memory_index.nearest

    def failing(*arguments: Any) -> Any:
        arguments[-1].query[:], arguments[-1].scaled[:] = 1, 1
        raise MemoryError

    monkeypatch.setattr(memory_index, "nearest", failing)
    with pytest.raises(MemoryError):
        index.nearest(queries, 3)
    monkeypatch.setattr(memory_index, "nearest", real)
    assert_brute_force(index, stored, queries, [3])


def test_huge_weights_hide_no_row(folder: Path) -> None:
    """Weights far beyond unit length occur only in an index that another program wrote."""
    vectors = random_vectors(np.random.default_rng(13), 100)
    vectors.data[5] = 1e30
    stored = new_store(folder, vectors)
    assert_brute_force(MemoryIndex(stored, 64), stored, random_vectors(np.random.default_rng(14), 5), [3, 100])


def test_partners_of_rows_of_very_different_length(folder: Path) -> None:
    """The rest of a row is no less for being light beside the other terms."""
    vectors = csr_array(np.array([[2, 1e-8], [0, 1e6], [950, 3e-6], [0, 900]] + [[0, 0]] * 60, np.float32))
    stored = new_store(folder, csr_array(vectors))
    assert_all_pairs(MemoryIndex(stored, 64), stored, stored, 0.001)


def test_rows_of_one_term_tie_to_the_last_bit(folder: Path) -> None:
    """Their accumulators are exact, so that nothing but the allowance for rounding keeps a row that ties."""
    vectors = csr_array(np.eye(2, 40, dtype=np.float32)[np.arange(30) % 2])
    stored = new_store(folder, vectors)
    index = MemoryIndex(stored, 64)
    assert_brute_force(index, stored, vectors[:2], [1, 3, 40])
    assert_all_pairs(index, stored, stored, 1.0)


def test_partners_that_share_next_to_nothing(folder: Path) -> None:
    """The accumulator of such a pair is 1."""
    stored = new_store(folder, csr_array(np.array([[1, 0, 0.004], [0, 1, 0.004]], np.float32)))
    assert_all_pairs(MemoryIndex(stored, 64), stored, stored, 1e-5)


def test_rows_without_terms_come_first(folder: Path) -> None:
    rng = np.random.default_rng(15)
    vectors = csr_array(vstack([csr_array((3, 40), dtype=np.float32), random_vectors(rng, 20)]))
    stored = new_store(folder, vectors)
    assert_brute_force(MemoryIndex(stored, 64), stored, vectors[3:8], [1, 30])


def test_stored_weights_may_be_zero_or_negative(folder: Path) -> None:
    """Only an index of others has such weights: a row that shares a term may have a cosine of 0, or below."""
    rng = np.random.default_rng(16)
    vectors, queries = random_vectors(rng, 100), random_vectors(rng, 8)
    vectors.data *= rng.choice([-1, 0, 0, 1], vectors.nnz).astype(np.float32)
    stored = new_store(folder, vectors)
    assert_brute_force(MemoryIndex(stored, 64), stored, queries, [1, 5, 200])


@pytest.mark.parametrize(
    "call",
    [
        lambda index, vectors: index.nearest(vectors[:9], 3),  # by this thread
        lambda index, vectors: index.partners(vectors, np.ones(100, bool), 0.5, 0),
    ],
)
def test_scratch_is_zero_between_calls(folder: Path, call: Callable[[MemoryIndex, csr_array], Any]) -> None:
    vectors = random_vectors(np.random.default_rng(17), 100)
    index = MemoryIndex(new_store(folder, vectors), 64)
    call(index, vectors)
    with index._scratch(8) as scratch:
        assert not scratch.scaled.any()
        assert not scratch.query.any()


@pytest.mark.parametrize(
    ("rows", "query", "k", "cosine"),
    [
        ([[1e-3]] * 5, [1], 3, 1e-7),
        ([[300, 300], [300, 300], [1e5, 0]], [0.7, 0.714], 1, 0.9),
        ([[0.1], [50]], [1], 1, 0.9),
        ([[1e9], [0.002]], [1], 1, 0.9),
        ([[1e30], [1e30], *[[1]] * 64], [1], 1, 0.9),
        ([[1e-20], *[[1]] * 64], [1], 1, 0.9),
    ],
)
def test_lengths_far_from_one(folder: Path, rows: list[list[float]], query: list[float], k: int, cosine: float) -> None:
    """Accumulators near the largest, or near 0 for most rows: nothing is lost by either."""
    stored = new_store(folder, csr_array(np.array(rows, np.float32)))
    index = MemoryIndex(stored, 64)
    assert_brute_force(index, stored, csr_array(np.array([query], np.float32)), [k])
    assert_all_pairs(index, stored, stored, cosine)


def test_partners_of_rows_whose_weights_are_all_zero(folder: Path) -> None:
    """Their bounds are not numbers; only an index of others has such rows."""
    weights, terms = np.array([0, 0, 1, 1], np.float32), np.array([0, 1, 0, 1], np.int32)
    stored = new_store(folder, csr_array((weights, terms, [0, 2, 3, 4]), shape=(3, 40)))
    assert_all_pairs(MemoryIndex(stored, 64), stored, stored, 0.5)


def test_partners_at_the_threshold_with_accumulators_of_32_bits(folder: Path) -> None:
    """A step of such an accumulator is less than what cancels in a difference of squares."""
    steps, light = [190, 127, 63, 63, 31, 31, 31, 31, 31, 7], 66_049
    weights = np.zeros((3, 100 + light), np.float32)
    weights[:2, : len(steps)] = np.array(steps) / 255
    weights[0, 4] = np.nextafter(weights[0, 4], np.float32(0))
    weights[2, 100:] = 0.99995 / 257
    stored = new_store(folder, csr_array(weights))
    query = weights[0].astype(np.float64)
    assert_all_pairs(MemoryIndex(stored), stored, stored, float(stored.scores(np.array([1]), query)[0]))
