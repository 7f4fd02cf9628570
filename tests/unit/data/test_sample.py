"""The embedded data is what the README says it is."""

from __future__ import annotations

import itertools

import numpy as np

from sparse_sts_index import load_pairs, read_corpus

SPLITS = ("train", "dev", "test")


def test_pairs_cover_all_grades_in_every_split() -> None:
    splits = [load_pairs("sample", split) for split in SPLITS]
    assert [len(pairs) for pairs in splits] == [216, 72, 72]
    for pairs in splits:
        grades = np.bincount(np.floor(pairs.gold * 5 + 0.5).astype(int), minlength=6)
        assert grades.tolist() == [len(pairs) // 6] * 6


def test_no_sentence_is_in_two_splits() -> None:
    sentences = list(
        itertools.chain.from_iterable(
            side
            for split in SPLITS
            for side in (load_pairs("sample", split).sentence1, load_pairs("sample", split).sentence2)
        )
    )
    assert len({sentence.lower() for sentence in sentences}) == len(sentences) == 720


def test_collection() -> None:
    documents = list(read_corpus("sample"))
    assert len({d.id for d in documents}) == len({d.text.lower() for d in documents}) == len(documents) == 1000
    assert all(4 <= len(d.text.split()) <= 25 for d in documents)
