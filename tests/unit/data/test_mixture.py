from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sparse_sts_index import DataError
from sparse_sts_index.data.mixture import Mixture, read_mixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unlabelled").mkdir()
    (tmp_path / "pairs").mkdir()
    with gzip.open(tmp_path / "unlabelled" / "large.txt.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"Sentence {number}.\n" for number in range(50))
    (tmp_path / "unlabelled" / "small.txt").write_text(
        "A cat sleeps.\n\nToo long " + "x" * 220 + "\n", encoding="utf-8"
    )
    (tmp_path / "unlabelled" / "notes").write_text("not read", encoding="utf-8")
    (tmp_path / "pairs" / "some.csv").write_text(
        "sentence1,sentence2,score\nA cat sleeps.,A dog barks.,1\nIt rains.,It snows.,-5\n", encoding="utf-8"
    )
    return tmp_path


def test_read_mixture_draws_from_large_sources(folder: Path) -> None:
    sentences = read_mixture(folder, Mixture({"large": 10}))
    assert len(set(sentences)) == len(sentences) == 14
    assert {s for s in sentences if not s.startswith("Sentence")} == {
        "A cat sleeps.",
        "A dog barks.",
        "It rains.",
        "It snows.",
    }


def test_read_mixture_is_decided_by_its_seed(folder: Path) -> None:
    mixture = Mixture({"large": 10}, count=12)
    sentences = read_mixture(folder, mixture, seed=1)
    assert len(sentences) == 12
    assert sentences == read_mixture(folder, mixture, seed=1) != read_mixture(folder, mixture, seed=2)


def test_read_mixture_of_an_empty_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sentences in unlabelled/ or pairs/"):
        read_mixture(tmp_path, Mixture())
