"""When an index is searched in memory."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from support import build, chunk, random_vectors

from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.impact_index import ImpactIndex

VECTORS = random_vectors(np.random.default_rng(0), 300)
IDS = [f"d{row}" for row in range(300)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build(tmp_path / "index", IDS[:200], VECTORS[:200])
    return tmp_path / "index"


def test_after_a_hundred_queries(path: Path) -> None:
    with ImpactIndex.open(path) as index, index.using() as state:
        for count in (1, 98):
            Searcher(state).search(VECTORS[:count], 3)
            assert "memory_index" not in state.derived
        Searcher(state, in_memory=False).search(VECTORS, 3)
        assert "memory_index" not in state.derived
        Searcher(state).search(VECTORS[:1], 3)
        assert "memory_index" in state.derived


@pytest.mark.parametrize(("share", "held"), [(0.99, False), (1, True)])
def test_within_a_budget(path: Path, share: float, held: bool) -> None:
    with ImpactIndex.open(path) as index, index.using() as state:
        memory = int(share * 4 * (VECTORS[:200].nnz + 200))
        Searcher(state, memory=memory).prepare()
        Searcher(state, memory=memory).search(VECTORS, 3)
        assert ("memory_index" in state.derived) == held


def test_what_was_in_memory_stays_there(path: Path) -> None:
    """A change makes a new state: its first query is searched in memory, with what both states share."""
    with ImpactIndex.open(path, writable=True) as index:
        with index.using() as before:
            Searcher(before).prepare()
        index.write([chunk(IDS[200:], VECTORS[200:])], replace=False, commit=True)
        index.delete(["d7"])
        with index.using() as state:
            assert "memory_index" not in state.derived
            (found,) = Searcher(state).search(VECTORS[[250]], 300)
            assert "memory_index" in state.derived
            assert state.earlier is None
            assert "d250" in found.ids
            assert "d7" not in found.ids
            assert found == Searcher(state, in_memory=False).search(VECTORS[[250]], 300)[0]
        index.compact()
        with index.using() as state:
            assert state.earlier is None


def test_a_budget_that_is_exceeded_frees_what_was_held(path: Path) -> None:
    with ImpactIndex.open(path, writable=True) as index:
        memory = 4 * (VECTORS[:200].nnz + 200)
        with index.using() as state:
            Searcher(state, memory=memory).prepare()
            held = weakref.ref(state.derived["memory_index"])
        del state
        index.write([chunk(IDS[200:], VECTORS[200:])], replace=False, commit=True)
        with index.using() as state:
            assert state.earlier is not None
            assert Searcher(state, memory=memory).search(VECTORS[:1], 3)
            assert "memory_index" not in state.derived
        assert held() is None


def test_an_index_that_takes_the_place_of_another(path: Path, tmp_path: Path) -> None:
    """Its files have the same names, and other rows."""
    build(tmp_path / "other", IDS[:200], VECTORS[100:])
    with ImpactIndex.open(tmp_path / "other", writable=True) as other:
        other.write([chunk(IDS[200:], VECTORS[:100])], replace=False, commit=True)
    with ImpactIndex.open(path) as index:
        with index.using() as state:
            Searcher(state).prepare()
        shutil.rmtree(path)
        (tmp_path / "other").rename(path)
        assert index.refresh()
        with index.using() as state:
            assert state.earlier is None
            expected = Searcher(state, in_memory=False).search(VECTORS[:30], 5)
            assert Searcher(state, in_memory=True).search(VECTORS[:30], 5) == expected


def test_rows_that_were_not_committed_are_not_taken_over(path: Path) -> None:
    with ImpactIndex.open(path, writable=True) as index:
        index.write([chunk(IDS[200:], VECTORS[200:])], replace=False, commit=False)
        with index.using() as state:
            Searcher(state).prepare()
        index.delete(["d3"], commit=False)
        with index.using() as state:
            assert state.earlier is not None
            assert state.earlier[1] == 200
        index.commit()
        with index.using() as state:
            assert state.earlier is not None
            assert state.earlier[1] == 200
