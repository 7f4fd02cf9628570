"""Documents to impacts, a chunk at a time: the step that indexing and exporting share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass

from scipy.sparse import csr_array

from sparse_sts_index.corpus import Document, check_ids, chunks
from sparse_sts_index.encoder import SparseStsEncoder, TokenizedSentences
from sparse_sts_index.overlap import overlap
from sparse_sts_index.quantizer import Quantizer

_CHUNK = 2048  # documents; some four of them are ever in memory


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
    progress: Callable[[int], None] | None = None,
) -> Generator[Chunk, None, None]:
    """Encode and quantize a stream of documents, in order.

    While the caller is busy with a chunk, the next one is encoded and the one after that tokenized, each in a thread
    of its own. The documents are read in the caller's thread. A caller that leaves before the end closes the generator
    (``contextlib.closing``), or the threads are told to stop only when it is collected.

    Parameters
    ----------
    documents : iterable of Document
        Read as needed; only the ids and a few chunks of documents are held.
    encoder : SparseStsEncoder
    quantizer : Quantizer
    progress : callable, optional
        Called with the number of documents encoded since its last call, from another thread.

    Raises
    ------
    DataError
        A duplicate id, or what reading the documents raises.
    ModelError
        The model gives unusable weights.
    """
    given_up = threading.Event()

    def tokenize(chunk: list[Document]) -> tuple[list[Document], TokenizedSentences]:
        return chunk, encoder.tokenize([document.text for document in chunk])

    def encode(tokenized: tuple[list[Document], TokenizedSentences]) -> Chunk:
        chunk, sentences = tokenized
        vectors = encoder.encode_tokens(sentences, progress=report)
        return Chunk(chunk, vectors, quantizer.quantize(vectors))

    def report(count: int) -> None:
        if given_up.is_set():
            raise CancelledError
        if progress is not None:
            progress(count)

    try:
        yield from overlap(encode, overlap(tokenize, chunks(check_ids(documents), _CHUNK)))
    finally:
        given_up.set()
