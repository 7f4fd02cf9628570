"""The model that is part of the package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from scipy.stats import spearmanr
from sentence_transformers import SparseEncoder

from sparse_sts_index import SparseStsEncoder, load_pairs
from sparse_sts_index.encoding.bundled import MINI, bundled_folder

SENTENCES = [
    "A cat sleeps.",
    "The kitten is asleep.",
    "How do I reset my router's password, and why does it forget it after every single power cut of the evening?",
    "wifi",
]
TERMS = {MINI: 64}


def folder(name: str) -> Path:
    found = bundled_folder(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", TERMS)
def test_boxed_vectors_equal_those_of_plain_loading(name: str) -> None:
    stock = SparseEncoder(str(folder(name)), device="cpu").encode(SENTENCES, convert_to_sparse_tensor=False)
    expected = np.asarray(stock) / np.maximum(np.linalg.norm(stock, axis=1, keepdims=True), 1e-12)
    vectors = SparseStsEncoder.load(name, precision="float32").encode(SENTENCES)
    np.testing.assert_allclose(vectors.toarray(), expected, atol=2e-6)
    assert np.diff(vectors.indptr).max() <= TERMS[name]


@pytest.mark.parametrize("name", TERMS)
def test_boxed_weights_are_stored_in_float16(name: str) -> None:
    with safe_open(folder(name) / "model.safetensors", "np") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


def test_boxed_models_take_at_most_60_megabytes() -> None:
    files = [path for path in folder(MINI).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000_000


@pytest.mark.parametrize("name", TERMS)
def test_boxed_cards_are_of_the_model_beside_them(name: str) -> None:
    card = (folder(name) / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    fingerprint = SparseStsEncoder.load(name, precision="float32").fingerprint
    assert re.findall(r"[0-9a-f]{64}", card) == [fingerprint]


def test_boxed_models_agree_with_people_better_than_tiny(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "test")

    def agreement(encoder: SparseStsEncoder) -> float:
        cosines = encoder.encode(pairs.sentence1).multiply(encoder.encode(pairs.sentence2)).sum(axis=1)
        return float(spearmanr(cosines, pairs.gold).statistic)

    assert agreement(SparseStsEncoder.load(MINI)) > agreement(tiny) + 0.1
