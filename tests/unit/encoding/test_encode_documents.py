from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sparse_sts_index import DataError, Document, Quantizer, read_corpus
from sparse_sts_index._utils.pipeline import THREAD_NAME
from sparse_sts_index.encoding.documents import encode_documents

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


def test_chunks_are_those_of_one_go(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_sts_index.encoding.documents.CHUNK", 64)
    documents = list(read_corpus("sample"))[:200]
    done: list[int] = []
    found = list(encode_documents(documents, tiny, Quantizer(), progress=done.append))
    assert [len(chunk.documents) for chunk in found] == [64, 64, 64, 8]
    assert [document for chunk in found for document in chunk.documents] == documents
    assert sum(done) == 200
    expected = tiny.encode([document.text for document in documents])
    together = np.concatenate([chunk.vectors.toarray() for chunk in found])
    np.testing.assert_allclose(together, expected.toarray(), atol=1e-5)


def test_an_error_in_reading_comes_out(tiny: SparseStsEncoder) -> None:
    with pytest.raises(DataError, match="duplicate id 'x'"):
        list(encode_documents([Document("x", "a cat"), Document("x", "a dog")], tiny, Quantizer()))


def test_who_leaves_early_leaves_no_thread(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_sts_index.encoding.documents.CHUNK", 10)
    chunks = encode_documents(read_corpus("sample"), tiny, Quantizer())
    assert len(next(chunks).documents) == 10
    del chunks
    gc.collect()
    assert not any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


def test_an_error_in_encoding_leaves_no_thread(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_sts_index.encoding.documents.CHUNK", 10)

    def fail(count: int) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone") as kept:
        list(encode_documents(read_corpus("sample"), tiny, Quantizer(), progress=fail))
    assert kept.tb is not None
    assert not any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())
