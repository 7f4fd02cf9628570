"""Documents to impacts, a chunk at a time: the step that indexing and exporting share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from scipy.sparse import csr_array

from sparse_sts_index.corpus import Document, check_ids, chunks
from sparse_sts_index.encoder import SparseStsEncoder
from sparse_sts_index.quantizer import Quantizer

_CHUNK = 2048  # documents: all of a collection that is ever in memory


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive documents, encoded.

    Attributes
    ----------
    documents : list of Document, length n
    vectors : csr_array of float32, shape (n, vocab)
        L2-normalised.
    impacts : csr_array of int32, shape (n, vocab)
        The vectors, quantized.
    """

    documents: list[Document]
    vectors: csr_array
    impacts: csr_array


def encode_documents(
    documents: Iterable[Document],
    encoder: SparseStsEncoder,
    quantizer: Quantizer,
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """Encode and quantize a stream of documents, in order.

    Parameters
    ----------
    documents : iterable of Document
        Read as needed; only the ids and one chunk of documents are held.
    encoder : SparseStsEncoder
    quantizer : Quantizer
    batch_size : int
        Sentences a forward pass; sorted by length within a chunk.
    progress : callable, optional
        Called with the number of documents encoded since its last call.

    Raises
    ------
    DataError
        A duplicate id, or what reading the documents raises.
    ModelError
        The model gives unusable weights.
    """
    for chunk in chunks(check_ids(documents), _CHUNK):
        vectors = encoder.encode([d.text for d in chunk], batch_size=batch_size, progress=progress)
        yield Chunk(chunk, vectors, quantizer.quantize(vectors))
