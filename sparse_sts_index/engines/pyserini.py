"""Queries for stock Pyserini: text to the integer term weights that its searcher takes."""

from __future__ import annotations

from pathlib import Path

from sparse_sts_index.encoding.encoder import SparseStsEncoder
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.spec import Precision


class PyseriniQueryEncoder:
    """A query encoder for ``pyserini.search.lucene.LuceneImpactSearcher``, of an index's own model.

    It is one by its method :meth:`encode`, not by inheritance: importing Pyserini's base class takes seconds, and a key
    of OpenAI's in the environment. A hit's cosine is its score over ``encoder.scale * (2**bits - 1)``, where ``bits``
    are those of the index.

    Parameters
    ----------
    model : SparseStsEncoder, str or Path
        The encoder that the index was built with, or where to load it from.
    bits : int
        Of the query weights. Anserini's searcher repeats a term as often as it weighs, so more bits cost time.
    precision : {"auto", "float32", "bfloat16"}
        Of a model that is to be loaded.

    Attributes
    ----------
    scale : int
        The integer weight of 1: ``2**bits - 1``.

    Raises
    ------
    ModelError
        The model does not load.
    """

    def __init__(self, model: SparseStsEncoder | str | Path, *, bits: int = 8, precision: Precision = "auto") -> None:
        self._encoder = (
            model if isinstance(model, SparseStsEncoder) else SparseStsEncoder.load(model, precision=precision)
        )
        self._quantizer = Quantizer(bits)
        self.scale = self._quantizer.scale

    def encode(self, query: str) -> dict[str, int]:
        """Lucene terms of a query, with their integer weights."""
        impacts = self._quantizer.quantize(self._encoder.encode([query]))
        return dict(zip(*query_terms(impacts, 0, self._encoder.vocabulary.terms), strict=True))
