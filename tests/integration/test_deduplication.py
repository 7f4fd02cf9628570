"""Collections without their duplicates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sparse_sts_index import DataError, read_corpus
from sparse_sts_index.deduplication import deduplicate

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sentences in any order, some of them several times, with other white space and accents in two forms."""
    rng = np.random.default_rng(1)
    sentences = [document.text for document in read_corpus("sample")][::2]
    sentences[0] += "\x0bstraw berry"  # which the tokenizer takes for nothing
    sentences[2] = sentences[0].replace("\x0b", " ")
    again = [f" {sentences[row].replace(' ', '  ')}\t" for row in rng.integers(0, len(sentences), 60)]
    pool = [*sentences, *again, "", " ", "Caf\u00e9", "Cafe\u0301", "cafe"]
    return [pool[row] for row in rng.permutation(len(pool))]


@pytest.mark.parametrize("threshold", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("preferred", [False, True])
def test_what_stays_has_no_duplicate_and_what_goes_is_one(
    tiny: SparseStsEncoder, texts: list[str], threshold: float, preferred: bool
) -> None:
    preference = np.random.default_rng(2).integers(0, 5, len(texts)).astype(float) if preferred else None
    if preference is not None:
        preference[:20] = np.nan
    found = deduplicate(iter(texts), tiny, threshold, preference=preference)

    vectors = tiny.encode(texts)
    cosines = (vectors @ vectors.T).toarray()
    rows = np.arange(len(texts))
    stays = np.flatnonzero(found.stays)
    among = cosines[np.ix_(stays, stays)]
    np.fill_diagonal(among, 0)
    assert among.max() < threshold
    goes = np.flatnonzero(~found.stays)
    assert len(goes) >= 60
    assert found.stays[found.standing].all()
    blank = np.array([not text.strip() for text in texts])
    np.testing.assert_allclose(found.cosines[~blank], cosines[rows, found.standing][~blank], atol=1e-6)
    assert (found.cosines >= threshold - 2e-6).all()
    order = rows if preference is None else np.lexsort((rows, -np.nan_to_num(preference, nan=-1)))
    place = np.argsort(order)
    assert (place[found.standing[goes]] < place[goes]).all()  # the one that stays is preferred
    plain = ["Caf\u00e9" if "\u0301" in text else re.sub("[ \t]+", " ", text).strip(" ") for text in texts]
    for row in goes:
        assert found.same[row] == (plain[row] == plain[found.standing[row]])
    assert not found.same[stays].any()

    again = deduplicate([texts[row] for row in stays], tiny, threshold)
    assert again.stays.all()
    assert found.cosines.max() <= 1


def test_largest_groups_and_nearest_rows_are_of_what_goes(tiny: SparseStsEncoder) -> None:
    found = deduplicate(["a cat", "a cat sleeps", "a  cat", "a cat", "the cat sleeps", "a cat sleeps"], tiny, 0.5)
    assert found.largest(3) == {0: 6}
    assert found.nearest(9) == sorted([1, 4], key=lambda row: found.cosines[row])
    assert found.nearest(1) == found.nearest(9)[:1]
    assert deduplicate(["a cat"], tiny).largest(3) == {}


def test_deduplicate_refuses_what_it_cannot_compare(tiny: SparseStsEncoder) -> None:
    with pytest.raises(ValueError, match="threshold must be"):
        deduplicate(["a"], tiny, 0)
    with pytest.raises(ValueError, match="preferences of shape"):
        deduplicate(["a"], tiny, preference=[1, 2])
    with pytest.raises(ValueError, match="not one string"):
        deduplicate("a", tiny)
    with pytest.raises(ValueError, match="text 2 must be a string, not float"):
        deduplicate(["a", float("nan")], tiny)  # type: ignore[list-item]
    with pytest.raises(DataError, match="text 2: text"):
        deduplicate(["a", "\ud800"], tiny)
    assert len(deduplicate([], tiny).stays) == 0
