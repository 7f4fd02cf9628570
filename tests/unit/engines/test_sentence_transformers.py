"""Lucene in the place of sentence-transformers' own search engines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
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
    for top_k in (0, -1, 1.5, math.nan, math.inf, True):
        with pytest.raises(ValueError, match="k must be a whole number, at least 1"):
            semantic_search_lucene(row, row, top_k=top_k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have 40 columns"):
        semantic_search_lucene(torch.ones(1, 41), row)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e300])
def test_weights_that_are_no_weights(value: float) -> None:
    with pytest.raises(ValueError, match="not negative"):
        LuceneCorpus(np.array([[0.5, value]]))


@pytest.mark.parametrize(
    "embeddings",
    [torch.ones(1, 1, 40), torch.tensor(1.0), np.array([["a"]]), "text", ["text"], [], None, torch.ones(2, 2) * 1j],
)
def test_what_is_no_embedding(embeddings: Any) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        LuceneCorpus(embeddings)


_VECTORS = random_vectors(np.random.default_rng(0), 5)
_DENSE = torch.tensor(_VECTORS.toarray())
_LAYOUTS = {
    "torch": _DENSE,
    "torch float64": _DENSE.double(),
    "torch bfloat16": _DENSE.bfloat16(),
    "torch gradient": _DENSE.clone().requires_grad_(),
    "torch transposed": _DENSE.T.contiguous().T,
    "torch coo": _DENSE.to_sparse_coo(),
    "torch coo with repetitions": torch.sparse_coo_tensor(
        torch.cat([_DENSE.to_sparse_coo().indices()] * 2, 1), torch.cat([_DENSE.to_sparse_coo().values()] * 2) / 2
    ),
    "torch csr": _DENSE.to_sparse_csr(),
    "torch csc": _DENSE.to_sparse_csc(),
    "list of torch": list(_DENSE),
    "list of torch coo": [row.to_sparse_coo() for row in _DENSE],
    "numpy": _DENSE.numpy(),
    "numpy float16": _DENSE.numpy().astype(np.float16),
    "numpy fortran": np.asfortranarray(_DENSE.numpy()),
    "list of numbers": _DENSE.tolist(),
    **{
        f"scipy {kind}_array": getattr(scipy.sparse, f"{kind}_array")(_VECTORS)
        for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
    },
    **{f"scipy {kind}_matrix": getattr(scipy.sparse, f"{kind}_matrix")(_VECTORS) for kind in ("csr", "csc", "coo")},
    "list of scipy": [_VECTORS[[row]] for row in range(5)],
}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_embeddings_of_any_layout(layout: str) -> None:
    expected, _ = semantic_search_lucene(_DENSE, _DENSE, top_k=3)
    found, _ = semantic_search_lucene(_LAYOUTS[layout], _LAYOUTS[layout], top_k=3)
    tolerance = 1e-2 if "16" in layout else 1e-6
    for hits, wanted in zip(found, expected, strict=True):
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in wanted], abs=tolerance)
        assert tolerance > 1e-6 or [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in wanted]
