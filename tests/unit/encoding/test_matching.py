"""The encoder that a collection names."""

from pathlib import Path, PurePosixPath

import pytest

from sparse_sts_index import SparseStsEncoder
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.matching import load_matching


@pytest.mark.parametrize("kind", [str, Path, PurePosixPath])
def test_model_is_loaded_from_any_kind_of_path(kind: type, tiny: SparseStsEncoder) -> None:
    encoder = load_matching(tiny.spec(8), "a collection", kind(tiny_folder()))
    assert encoder.fingerprint == tiny.fingerprint


def test_encoder_is_taken_as_it_is(tiny: SparseStsEncoder) -> None:
    assert load_matching(tiny.spec(8), "a collection", tiny) is tiny
