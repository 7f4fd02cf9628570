from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

from sparse_sts_index import Quantizer, load_pairs
from sparse_sts_index.vectors.quantizer import cosine_error_bound, keep_largest, l2_normalize, pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

weights = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 6), st.integers(1, 40)),
    elements=st.one_of(st.just(0.0), st.floats(2**-20, 50, width=32)),
)
bits = st.integers(2, 16)


@given(weights, bits)
def test_error_bounds_hold(dense: np.ndarray, bits: int) -> None:
    vectors, quantizer = l2_normalize(csr_array(dense)), Quantizer(bits)
    impacts = quantizer.quantize(vectors)
    assert impacts.dtype == np.int32
    assert impacts.nnz == 0 or (impacts.data.min() >= 1 and impacts.data.max() <= quantizer.scale)
    difference = (quantizer.dequantize(impacts) - vectors.astype(np.float64)).toarray()
    assert np.abs(difference).max() <= 0.5 / quantizer.scale + 1e-12
    errors = quantizer.errors(vectors)
    np.testing.assert_allclose(errors, np.linalg.norm(difference, axis=1), atol=1e-12)
    active = np.diff(vectors.indptr)
    assert (errors <= np.sqrt(active) / (2 * quantizer.scale) + 1e-12).all()
    bound = cosine_error_bound(vectors, quantizer, float(errors.max()))
    unit = dense.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    scores = (impacts.astype(np.float64) @ impacts.T.astype(np.float64)).toarray() / quantizer.scale**2
    assert (np.abs(scores - unit @ unit.T) <= bound[:, None]).all()


@given(weights, bits)
def test_requantizing_changes_nothing(dense: np.ndarray, bits: int) -> None:
    quantizer = Quantizer(bits)
    impacts = quantizer.quantize(l2_normalize(csr_array(dense)))
    again = quantizer.quantize(quantizer.dequantize(impacts))
    np.testing.assert_array_equal(again.toarray(), impacts.toarray())


def test_scores_fit_float32_up_to_eleven_bits() -> None:
    """Even with every one of 30,522 terms active and rounded up, a score stays below 2**24."""
    scale, terms = Quantizer(11).scale, 30_522
    assert (scale + np.sqrt(terms) / 2) ** 2 < 2**24


def test_empty_rows_stay_empty() -> None:
    vectors = l2_normalize(csr_array(np.array([[0.0, 0, 0], [3, 4, 0]])))
    np.testing.assert_allclose(vectors.toarray(), [[0, 0, 0], [0.6, 0.8, 0]], rtol=1e-6)
    assert Quantizer().quantize(vectors).toarray().tolist() == [[0, 0, 0], [153, 204, 0]]
    assert pairwise_dot(vectors, vectors).tolist() == pytest.approx([0, 1])
    stored_zero = l2_normalize(csr_array(([0.0, 2.0], [1, 0], [0, 1, 2]), shape=(2, 3)))
    assert stored_zero.toarray().tolist() == [[0, 0, 0], [1, 0, 0]]
    assert vectors.dtype == stored_zero.dtype == np.float32


@pytest.mark.parametrize("bits", [1, 17, 0, -8])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(ValueError, match=f"^bits must be a whole number, 2 to 16, not {bits}$"):
        Quantizer(bits)


def test_the_bound_is_attained() -> None:
    """By a vector whose rounding error lies along the other vector, which is exact; whichever is the query."""
    quantizer = Quantizer(2)
    along, across = np.sqrt(8) / 3, 1 / 3
    exact = csr_array(np.array([[2 / 3, 2 / 3, 1 / 3, 0]]))
    rounded = csr_array(np.array([[along * 2 / 3, along * 2 / 3, along / 3, across]]))
    assert quantizer.quantize(rounded).toarray().tolist() == [[2, 2, 1, 1]]
    assert quantizer.errors(rounded).tolist() == pytest.approx([1 - along])
    score = pairwise_dot(quantizer.quantize(rounded), quantizer.quantize(exact)) / quantizer.scale**2
    difference = np.abs(score - pairwise_dot(rounded, exact))
    assert difference.tolist() == pytest.approx([1 - along])
    for query, document in ((rounded, exact), (exact, rounded)):
        bound = cosine_error_bound(query, quantizer, float(quantizer.errors(document)[0]))
        assert (bound - difference).tolist() == pytest.approx([1e-6], rel=1e-3)


def test_the_bound_is_of_use_on_real_sentences(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "dev")
    first, second = tiny.encode(pairs.sentence1), tiny.encode(pairs.sentence2)
    quantizer = Quantizer()
    impacts = pairwise_dot(quantizer.quantize(first), quantizer.quantize(second)) / quantizer.scale**2
    distance = np.abs(impacts - pairwise_dot(first, second))
    bound = cosine_error_bound(first, quantizer, float(quantizer.errors(second).max()))
    assert (distance <= bound).all()
    assert bound.max() < 0.03


def test_the_largest_weights_are_kept() -> None:
    dense = np.array([[0.1, 0.5, 0.3, 0.5, 0.0], [0, 0, 0, 0, 0], [0.2, 0, 0, 0, 0.1]], dtype=np.float32)
    kept = keep_largest(csr_array(dense), 2)
    expected = np.array([[0, 0.5, 0, 0.5, 0], [0, 0, 0, 0, 0], [0.2, 0, 0, 0, 0.1]], dtype=np.float32)
    np.testing.assert_array_equal(kept.toarray(), expected)
    np.testing.assert_array_equal(keep_largest(csr_array(dense), 1).toarray()[0], [0, 0.5, 0, 0, 0])
    assert keep_largest(csr_array((3, 5), dtype=np.float32), 2).nnz == 0
