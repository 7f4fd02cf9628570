"""Rows that stay for those that are similar to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support import random_vectors, store, unit_vectors

from sparse_sts_index.search.representatives import representatives


@settings(deadline=None)  # the first call compiles
@given(
    rows=st.integers(1, 300),
    terms=st.integers(1, 6),
    threshold=st.sampled_from([0.3, 0.7, 0.95]),
    seed=st.integers(0, 1 << 16),
)
def test_representatives_are_those_of_a_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: int, terms: int, threshold: float, seed: int
) -> None:
    vectors = random_vectors(np.random.default_rng(seed), rows, terms, vocabulary=12)
    standing, cosines = representatives(store(tmp_path_factory.mktemp("store"), vectors, []), threshold)

    products = (vectors.astype(np.float64) @ vectors.astype(np.float64).T).toarray()
    stays: list[int] = []
    for row in range(rows):
        if all(products[row, other] < threshold for other in stays):
            stays.append(row)
    np.testing.assert_array_equal(np.flatnonzero(standing == np.arange(rows)), stays)
    np.testing.assert_allclose(cosines[stays], 1)
    for row in set(range(rows)) - set(stays):
        earlier = [other for other in stays if other < row]
        np.testing.assert_allclose(cosines[row], products[row, earlier].max(), atol=1e-6)
        np.testing.assert_allclose(cosines[row], products[row, standing[row]], atol=1e-6)


def test_rows_that_go_are_asked_for_no_pairs(tmp_path: Path) -> None:
    vectors = unit_vectors(np.ones((50_000, 3)))  # 1,250 million pairs
    standing, cosines = representatives(store(tmp_path, vectors, []), 0.9)
    assert not standing.any()
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
