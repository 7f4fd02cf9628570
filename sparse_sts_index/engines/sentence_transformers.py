"""Lucene as one of the search engines of ``sentence_transformers.sparse_encoder.search_engines``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, issparse, vstack

from sparse_sts_index._utils.fork_guard import JAVA, TORCH
from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.search.certified import check_search, check_vectors
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.vectors.quantizer import Quantizer, l2_normalize
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

_CHUNK = 2048
Results = list[list[dict[str, int | float]]]
Embeddings: TypeAlias = "torch.Tensor | NDArray[Any] | csr_array | Sequence[Any]"


class LuceneCorpus:
    """Embeddings in a Lucene index of their own, in a temporary folder that goes with this object, or on :meth:`close`.

    Parameters
    ----------
    embeddings : torch.Tensor, ndarray or scipy sparse array, shape (n, vocab), or a list of them
    bits : int
        Of the impacts.
    """

    def __init__(self, embeddings: Embeddings, *, bits: int = 8) -> None:
        vectors, quantizer = _to_csr(embeddings), Quantizer(bits)
        vocabulary = Vocabulary([str(column) for column in range(vectors.shape[1])])

        def chunks() -> Iterator[Chunk]:
            for start in range(0, vectors.shape[0], _CHUNK):
                some = vectors[start : start + _CHUNK]
                documents = [Document(f"{start + row:09}", "") for row in range(some.shape[0])]  # ties in their order
                yield Chunk(documents, some, quantizer.quantize(some))

        manifest = Manifest.without_model(vocabulary, bits)
        folder = tempfile.mkdtemp(prefix="sparse-sts-")
        try:
            ImpactIndex.build(folder, chunks(), manifest, vocabulary)
            self.index = ImpactIndex.open(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._finalizer = weakref.finalize(self, _remove, self.index, folder)

    def close(self) -> None:
        """Remove the index; otherwise that is done when this object goes."""
        self._finalizer()


def semantic_search_lucene(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings | None = None,
    corpus_index: LuceneCorpus | None = None,
    top_k: int = 10,
    output_index: bool = False,
    **kwargs: Any,
) -> tuple[Results, float] | tuple[Results, float, LuceneCorpus]:
    """Semantic search with sparse embeddings, exact, by cosine; called as ``semantic_search_qdrant`` is.

    Parameters
    ----------
    query_embeddings : torch.Tensor, ndarray or scipy sparse array, shape (vocab,) or (n, vocab), or a list of them
        Of any layout, as ``SparseEncoder.encode`` gives them, and of any length: they are normalised, for the score is
        the cosine.
    corpus_embeddings : torch.Tensor, ndarray or scipy sparse array, shape (m, vocab), or a list of them, optional
        Only used if `corpus_index` is None.
    corpus_index : LuceneCorpus, optional
        What an earlier call gave with `output_index`.
    top_k : int
        Hits a query. Embeddings of cosine 0 are none.
    output_index : bool
        Return the index, too.
    **kwargs
        For :class:`LuceneCorpus`.

    Returns
    -------
    results : list of n lists of dict
        ``{"corpus_id": int, "score": float}``, best first, equal scores by ``corpus_id``.
    seconds : float
        How long the search took.
    index : LuceneCorpus
        If `output_index`.

    Raises
    ------
    ValueError
        Embeddings that are not vectors of finite numbers, none of them negative; queries of another width than the
        corpus; `top_k` below 1; or neither embeddings nor an index to search.
    JavaError
        No Java to run Lucene with.
    """
    check_search(top_k, "exact")
    queries = _to_csr(query_embeddings)
    ours = corpus_index is None
    if corpus_index is None:
        if corpus_embeddings is None:
            raise ValueError("either corpus_embeddings or corpus_index must be given")
        corpus_index = LuceneCorpus(corpus_embeddings, **kwargs)
    start = time.perf_counter()
    with corpus_index.index.using() as snapshot:
        queries = check_vectors(queries, snapshot.manifest.vocabulary_size)
        found = Searcher(snapshot).search(queries, top_k)
    results: Results = [
        [{"corpus_id": row, "score": cosine} for row, cosine in zip(near.rows, near.cosines, strict=True)]
        for near in found
    ]
    seconds = time.perf_counter() - start
    if output_index:
        return results, seconds, corpus_index
    if ours:
        corpus_index.close()
    return results, seconds


def _remove(index: ImpactIndex, folder: str) -> None:
    if JAVA.inherited:  # the folder is the parent's
        return
    index.close()
    shutil.rmtree(folder, ignore_errors=True)


def _to_csr(embeddings: Embeddings) -> csr_array:
    """Return unit vectors as csr_array of float32, shape (n, vocab)."""
    rows = list(embeddings) if isinstance(embeddings, list | tuple) else [embeddings]
    if not rows:
        raise ValueError("no embeddings")
    vectors = vstack([_rows(some) for some in rows], format="csr")
    vectors.sum_duplicates()
    vectors.eliminate_zeros()
    if vectors.nnz and not (vectors.data.min() >= 0 and np.isfinite(vectors.data).all()):
        raise ValueError("embeddings must be numbers, and not negative")
    vectors.indices, vectors.indptr = vectors.indices.astype(np.int32), vectors.indptr.astype(np.int32)
    return l2_normalize(vectors)


def _rows(embeddings: Any) -> csr_array:
    """Return some embeddings, or one, as csr_array of float32, shape (n, vocab)."""
    if "torch" in sys.modules and isinstance(embeddings, sys.modules["torch"].Tensor):
        TORCH.enter()
        embeddings = embeddings.detach().cpu()
        embeddings = embeddings if embeddings.is_complex() else embeddings.float()
        if str(embeddings.layout) == "torch.strided":
            embeddings = embeddings.numpy()
        else:
            embeddings = embeddings.to_sparse_coo().coalesce()
            coordinates = tuple(embeddings.indices().numpy())
            embeddings = coo_array((embeddings.values().numpy(), coordinates), shape=tuple(embeddings.shape))
    elif not issparse(embeddings):
        embeddings = np.asarray(embeddings)
    if not 1 <= embeddings.ndim <= 2 or embeddings.dtype.kind not in "fiub":
        raise ValueError(
            "embeddings must be vectors of numbers, in one dimension or two: a torch.Tensor of any layout, an array, a "
            "scipy sparse array, or a list of them"
        )
    matrix = embeddings.reshape(1, -1) if embeddings.ndim == 1 else embeddings
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused
        return csr_array(matrix.astype(np.float32))
