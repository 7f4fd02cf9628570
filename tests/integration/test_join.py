"""Two collections, each sentence of one with those of the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from sparse_sts_index import Document, ModelMismatchError, Pair, SparseStsIndex, read_corpus

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

Side = tuple[SparseStsIndex, list[Document]]


@pytest.fixture(scope="module")
def sides(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Side]]:
    """Two indexes of parts of the sample that overlap, some sentences deleted, each with what is left in it."""
    folder = tmp_path_factory.mktemp("sides")
    documents = list(read_corpus("sample"))
    parts = documents[:400], [*documents[380:700], Document("first", documents[0].text)]
    for name, part in zip("ab", parts, strict=True):
        SparseStsIndex.build(folder / name, part, tiny).close()
        with SparseStsIndex.open(folder / name, writable=True) as index:
            index.delete([part[3].id, part[10].id])
        del part[10], part[3]
    with SparseStsIndex.open(folder / "a") as a, SparseStsIndex.open(folder / "b") as b:
        yield list(zip((a, b), parts, strict=True))


def products(sides: list[Side], tiny: SparseStsEncoder) -> NDArray[np.float32]:
    first, second = (tiny.encode([document.text for document in part]) for _, part in sides)
    return (first @ second.T).toarray()


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_join_is_brute_force(sides: list[Side], tiny: SparseStsEncoder, threshold: float) -> None:
    (index, ours), (other, theirs) = sides
    cosines = products(sides, tiny)
    done: list[int] = []
    pairs = list(index.join(other, threshold, progress=done.append))
    expected = [(ours[row].id, theirs[column].id) for row, column in np.argwhere(cosines >= threshold - 1e-6).tolist()]
    assert [(pair.first.id, pair.second.id) for pair in pairs] == expected
    assert len(expected) >= 19
    assert sum(done) == len(ours) == 398
    texts = {document.id: document.text for document in (*ours, *theirs)}
    assert all(pair.first.text == texts[pair.first.id] and pair.second.text == texts[pair.second.id] for pair in pairs)


def test_join_nearest_is_brute_force(sides: list[Side], tiny: SparseStsEncoder) -> None:
    (index, ours), (other, theirs) = sides
    cosines = products(sides, tiny)
    pairs = list(index.join_nearest(other, 2, min_cosine=0.2))
    found: dict[str, list[Pair]] = {
        name: list(group) for name, group in itertools.groupby(pairs, key=lambda pair: pair.first.id)
    }
    assert set(found) == {ours[row].id for row in np.flatnonzero(cosines.max(axis=1) >= 0.2)}
    for row, document in enumerate(ours):
        best = np.sort(cosines[row])[::-1][:2]
        np.testing.assert_allclose([pair.cosine for pair in found.get(document.id, [])], best[best >= 0.2], atol=1e-6)
    assert {document.id for document in theirs} >= {pair.second.id for pair in pairs}


def test_join_refuses_other_models_and_thresholds(sides: list[Side], tmp_path: Path) -> None:
    (index, _), (same, _) = sides
    with SparseStsIndex.build(tmp_path / "other", ["a cat"], "mini") as other:
        for joined in (index.join, index.join_nearest):
            with pytest.raises(ModelMismatchError, match="no cosine of both means anything"):
                joined(other)
    with pytest.raises(ValueError, match="threshold must be"):
        index.join(same, 0)
    with pytest.raises(ValueError, match="k must be"):
        index.join_nearest(same, 0)
