from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack
from support import random_vectors

from sparse_sts_index import ImpactIndexError
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [random_vectors(rng, n) for n in (7, 1, 30)] + [csr_array((2, 40), dtype=np.float32)]
    whole, ids = csr_array(vstack(parts)), [f"é{'x' * (n % 5)}{n}" for n in range(40)]
    writer, first = VectorWriter(tmp_path, Extent.empty("v")), 0
    for part in parts:
        assert writer.rows == first
        writer.add(part, ids[first : first + part.shape[0]])
        first += part.shape[0]
    writer.kill([3, 39])
    extent = writer.extent(durable=True)
    writer.close()
    store = VectorStore(tmp_path, extent, 40)
    assert (len(store), extent.rows, extent.live) == (40, 40, 38)
    assert np.flatnonzero(~store.live).tolist() == [3, 39]
    rows = np.array([39, 0, 5, 5, 38])
    assert store.ids(rows) == [ids[row] for row in rows]
    np.testing.assert_array_equal(store.take(rows).toarray(), whole[rows].toarray())
    np.testing.assert_array_equal(store.block(5, 20).toarray(), whole[5:20].toarray())
    np.testing.assert_array_equal(np.vstack([b.toarray() for _, b in store.blocks(7)]), whole.toarray())
    query = whole[[2]].toarray()[0].astype(np.float64)
    np.testing.assert_allclose(store.scores(np.arange(40), query), whole.astype(np.float64) @ query, rtol=1e-15)
    assert store.scores(np.zeros(0, np.int64), query).tolist() == []
    store.verify()


def test_what_was_not_committed_is_not_seen_and_is_written_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one, other, third = random_vectors(rng, 3), random_vectors(rng, 9), random_vectors(rng, 2)
    writer = VectorWriter(tmp_path, Extent.empty("v"))
    writer.add(one, list("abc"))
    committed = writer.extent(durable=True)
    writer.add(other, list("defghijkl"))  # and the writer dies
    writer.close()
    reader = VectorStore(tmp_path, committed, 40)
    writer = VectorWriter(tmp_path, committed)
    writer.add(third, list("xy"))
    extent = writer.extent(durable=False)
    writer.close()
    store = VectorStore(tmp_path, extent, 40)
    assert store.ids(np.arange(5)) == list("abcxy")
    np.testing.assert_array_equal(store.take(np.arange(5)).toarray(), vstack([one, third]).toarray())
    store.verify()
    assert reader.ids(np.arange(3)) == list("abc")
    np.testing.assert_array_equal(reader.take(np.arange(3)).toarray(), one.toarray())
    reader.verify()


def test_damage(tmp_path: Path) -> None:
    writer = VectorWriter(tmp_path, Extent.empty("v"))
    writer.add(random_vectors(np.random.default_rng(2), 5), list("abcde"))
    extent = writer.extent(durable=True)
    writer.close()
    file = tmp_path / "v" / "weights.f32"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ImpactIndexError, match=r"weights\.f32: truncated"):
        VectorStore(tmp_path, extent, 40)
    file.write_bytes(content[:9] + bytes([content[9] ^ 4]) + content[10:])
    with pytest.raises(ImpactIndexError, match=r"weights\.f32: not as it was written"):
        VectorStore(tmp_path, extent, 40).verify()
    file.unlink()
    with pytest.raises(ImpactIndexError, match=r"weights\.f32: No such file"):
        VectorStore(tmp_path, extent, 40)
