from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from support import random_vectors, store

from sparse_sts_index import Document, SparseStsIndex
from sparse_sts_index.search import similarity_join
from sparse_sts_index.search.linkage import Linkage

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


@pytest.mark.parametrize("threshold", [1.0, 0.95, 0.8, 0.5, 0.2, 0.01])
@pytest.mark.parametrize("block", [512, 7])
def test_pairs_and_clusters_against_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, block: int
) -> None:
    """All pairs, their order, their cosines; however many rows at a time; dead and empty rows are out."""
    monkeypatch.setattr(similarity_join, "_BLOCK", block)
    vectors = random_vectors(np.random.default_rng(round(threshold * 100)), 300).toarray()
    vectors[[5, 77]] = 0
    dead = [0, 9, 150, 299]
    opened = store(tmp_path, csr_array(vectors), dead)
    dense = vectors.astype(np.float64)
    dense[dead] = 0
    cosines = dense @ dense.T
    wanted = np.argwhere(np.triu(cosines >= threshold - 2e-6, 1)).tolist()
    done: list[int] = []
    found = list(similarity_join.similar_rows(opened, threshold, progress=done.append))
    assert [
        [a, b] for first, second, _ in found for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ] == wanted
    for first, second, values in found:
        np.testing.assert_allclose(values, cosines[first, second], rtol=1e-14)
    assert sum(done) == 296
    labels = connected_components(csr_array(cosines >= threshold - 2e-6), directed=False)[1]
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    groups = [group for group in groups if len(group) > 1]
    found_groups = Linkage(opened, threshold).clusters(threshold)
    assert [rows.tolist() for rows, _ in found_groups] == sorted(groups, key=lambda g: (-len(g), g[0]))


def test_an_empty_collection_has_none(tmp_path: Path) -> None:
    opened = store(tmp_path, random_vectors(np.random.default_rng(0), 2), [0, 1])
    assert list(similarity_join.similar_rows(opened, 0.5)) == []
    assert Linkage(opened, 0.5).clusters(0.5) == []


def test_sentences(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    sentences = ["A cat sleeps.", "Stocks fell.", "A cat sleeps.", "", "A cat sleeps!"]
    with SparseStsIndex.build(tmp_path / "index", sentences, tiny) as index:
        pairs = [(pair.first.id, pair.second.id) for pair in index.duplicates(1.0)]
        assert pairs == [("1", "3")]
        assert {("1", "3"), ("1", "5"), ("3", "5")} == {(p.first.id, p.second.id) for p in index.duplicates(0.9)}
        assert list(index.clusters(0.9)) == [[Document(i, sentences[int(i) - 1]) for i in ("1", "3", "5")]]
        for threshold in (0, -1, 1.01):
            with pytest.raises(ValueError, match="threshold must be a finite number, above 0"):
                index.duplicates(threshold)
