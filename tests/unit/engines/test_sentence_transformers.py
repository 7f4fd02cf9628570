"""Lucene in the place of sentence-transformers' own search engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support import random_vectors

from sparse_sts_index import load_pairs, semantic_search_lucene
from sparse_sts_index.engines.sentence_transformers import LuceneCorpus

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder


def test_embeddings_of_a_sparse_encoder(tiny: SparseStsEncoder) -> None:
    """What model.encode gives goes in; what their util.semantic_search gives by cosine comes out."""
    from sentence_transformers.util import cos_sim

    pairs = load_pairs("sample", "test")
    corpus, queries = tiny.model.encode(pairs.sentence2), tiny.model.encode(pairs.sentence1[:9])
    results, seconds, index = semantic_search_lucene(queries, corpus_embeddings=corpus, top_k=4, output_index=True)
    assert seconds > 0
    cosines = cos_sim(queries.to_dense(), corpus.to_dense())
    for row, hits in enumerate(results):
        best = torch.topk(cosines[row], 4)
        assert [hit["score"] for hit in hits] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert all(cosines[row, hit["corpus_id"]] == pytest.approx(hit["score"], abs=1e-5) for hit in hits)
    again, _ = semantic_search_lucene(queries, corpus_index=index, top_k=4)
    assert again == results
    (one,), _ = semantic_search_lucene(queries[0], corpus_index=index, top_k=4)
    assert one == results[0]


def test_ties_are_in_the_order_of_the_corpus() -> None:
    row = torch.tensor(random_vectors(np.random.default_rng(0), 1).toarray()).to_sparse_coo()
    corpus = torch.cat([row] * 120)
    (hits,), _ = semantic_search_lucene(row * 7, corpus, top_k=12)
    assert [hit["corpus_id"] for hit in hits] == list(range(12))


def test_misuse() -> None:
    row = torch.ones(1, 40).to_sparse_coo()
    with pytest.raises(ValueError, match="either corpus_embeddings or corpus_index"):
        semantic_search_lucene(row)
    with pytest.raises(ValueError, match="sparse COO"):
        semantic_search_lucene(torch.ones(1, 40), row)
    with pytest.raises(ValueError, match="not negative"):
        LuceneCorpus(-row)
