from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from support import random_vectors, store, unit_vectors

from sparse_sts_index.search import similarity_join
from sparse_sts_index.search.linkage import Linkage

if TYPE_CHECKING:
    from sparse_sts_index.storage.vector_files import VectorStore

THRESHOLDS = [1.0, 0.999, 0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1]
_FLOAT32 = 2e-6


def graph(opened: VectorStore, threshold: float) -> NDArray[np.float64]:
    """Cosines of all pairs that are similar at a threshold; 0 elsewhere."""
    cosines = np.zeros((len(opened), len(opened)))
    for first, second, values in similarity_join.similar_rows(opened, threshold):
        cosines[first, second] = cosines[second, first] = values
    return cosines


def components(adjacent: NDArray[np.bool_]) -> list[list[int]]:
    labels = connected_components(csr_array(adjacent), directed=False)[1]
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def holds_until(cosines: NDArray[np.float64], rows: list[int]) -> float:
    """The highest cosine from which on the pairs at least as similar still connect all the rows."""
    part = cosines[np.ix_(rows, rows)]
    values = np.unique(part[part > 0])
    low, high = 0, len(values) - 1  # connected at low; found by halving
    assert connected_components(csr_array(part >= values[0]), directed=False)[0] == 1
    while low < high:
        middle = (low + high + 1) // 2
        if connected_components(csr_array(part >= values[middle]), directed=False)[0] == 1:
            low = middle
        else:
            high = middle - 1
    return float(values[low])


def check(opened: VectorStore, linkage: Linkage, threshold: float) -> list[list[int]]:
    """A linkage's clusters against all pairs; gives the clusters."""
    cosines = graph(opened, threshold)
    wanted = components(cosines > 0)
    found = linkage.clusters(threshold)
    assert [rows.tolist() for rows, _ in found] == wanted
    for rows, weakest in found:
        # A float32 vector's cosine with itself may be a little more than 1.
        assert weakest == pytest.approx(holds_until(cosines, rows.tolist()), abs=5e-7)
        assert threshold - _FLOAT32 <= weakest <= 1
    return wanted


@pytest.mark.parametrize("waiting", [1, 7, 1 << 20])
@pytest.mark.parametrize("block", [7, 512])
@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_at_any_threshold_against_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int, block: int, seed: int
) -> None:
    """However few pairs wait for the forest, and however the join is cut into blocks; some rows deleted, some empty."""
    monkeypatch.setattr("sparse_sts_index.search.linkage._WAITING_PAIRS", waiting)
    monkeypatch.setattr(similarity_join, "_BLOCK", block)
    vectors = random_vectors(np.random.default_rng(seed), 150).toarray()
    vectors[[5, 77]] = 0
    dead = [0, 9, 100, 149]
    opened = store(tmp_path, csr_array(vectors), dead)
    done: list[int] = []
    linkage = Linkage(opened, THRESHOLDS[-1], progress=done.append)
    assert sum(done) == 146
    assert len(linkage._cosines) < 146
    several = 0
    for threshold in THRESHOLDS:
        groups = check(opened, linkage, threshold)
        several += len(groups) > 1
        assert not {0, 5, 9, 77, 100, 149} & {row for group in groups for row in group}
    assert several > 3


@pytest.mark.parametrize("waiting", [1, 7, 1 << 20])
def test_at_each_cosine_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    """At a merge's own cosine its clusters are one; a little above they are not."""
    monkeypatch.setattr("sparse_sts_index.search.linkage._WAITING_PAIRS", waiting)
    monkeypatch.setattr(similarity_join, "_BLOCK", 9)
    opened = store(tmp_path, random_vectors(np.random.default_rng(3), 40), [7])
    linkage = Linkage(opened, 0.05)
    assert 20 < len(linkage._cosines) < 39
    for cosine in linkage._cosines.tolist():
        for threshold in (cosine, cosine + 5e-6):
            check(opened, linkage, threshold)


@pytest.mark.parametrize("waiting", [1, 7, 1 << 20])
def test_many_exact_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr("sparse_sts_index.search.linkage._WAITING_PAIRS", waiting)
    monkeypatch.setattr(similarity_join, "_BLOCK", 50)
    rng = np.random.default_rng(0)
    kinds = unit_vectors([[3, 4, 0, 0], [4, 3, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]).toarray()
    chosen = rng.integers(4, size=120)
    opened = store(tmp_path, csr_array(kinds[chosen]), [2, 3])
    linkage = Linkage(opened, 0.5)
    assert len(linkage._cosines) == 118 - 2
    for threshold, count in ((1.0, 4), (0.97, 4), (0.96, 3), (0.71, 3), (0.7, 2), (0.5, 2)):
        assert len(check(opened, linkage, threshold)) == count
    assert sorted(weakest for _, weakest in linkage.clusters(0.5)) == pytest.approx([0.5**0.5, 0.96], abs=1e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    weights=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=12),
    dead=st.sets(st.integers(0, 11)),
    waiting=st.integers(0, 10),
    least=st.sampled_from([0.05, 0.5, 0.9]),
)
def test_small_collections_full_of_ties(
    tmp_path_factory: pytest.TempPathFactory, weights: list[list[int]], dead: set[int], waiting: int, least: float
) -> None:
    deleted = sorted(row for row in dead if row < len(weights))
    opened = store(tmp_path_factory.mktemp("ties"), unit_vectors(weights), deleted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_sts_index.search.linkage._WAITING_PAIRS", waiting)
        patch.setattr(similarity_join, "_BLOCK", 8)
        linkage = Linkage(opened, least)
    assert len(linkage._cosines) <= max(0, len(weights) - len(deleted) - 1)
    for threshold in (least, (least + 1) / 2, 0.95, 1.0):
        check(opened, linkage, threshold)


def test_a_chain_hangs_together_by_its_weakest_link(tmp_path: Path) -> None:
    """Neighbours are 20, 30 and 40 degrees apart; the ends are not similar."""
    angles = np.radians([0, 20, 50, 90])
    opened = store(tmp_path, unit_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1)), [])
    linkage = Linkage(opened, 0.5)
    ((rows, weakest),) = linkage.clusters(0.5)
    assert rows.tolist() == [0, 1, 2, 3]
    assert rows.dtype == np.int64
    assert weakest == pytest.approx(np.cos(np.radians(40)), abs=1e-6)
    ((rows, weakest),) = linkage.clusters(0.8)
    assert rows.tolist() == [0, 1, 2]
    assert weakest == pytest.approx(np.cos(np.radians(30)), abs=1e-6)
    assert linkage.clusters(0.95) == []


def test_a_threshold_that_it_does_not_know(tmp_path: Path) -> None:
    linkage = Linkage(store(tmp_path, random_vectors(np.random.default_rng(0), 20), []), 0.5)
    assert linkage.threshold == 0.5
    linkage.clusters(0.5)
    with pytest.raises(ValueError, match="threshold must be a finite number, at least 0.5, not 0.49"):
        linkage.clusters(0.49)


def test_nothing_similar(tmp_path: Path) -> None:
    assert Linkage(store(tmp_path / "apart", unit_vectors(np.eye(5)), []), 0.1).clusters(0.1) == []
    dead = store(tmp_path / "dead", random_vectors(np.random.default_rng(0), 2), [0, 1])
    assert Linkage(dead, 0.5).clusters(0.7) == []
    one = store(tmp_path / "one", unit_vectors([[1.0, 2.0]]), [])
    assert Linkage(one, 0.5).clusters(0.5) == []
