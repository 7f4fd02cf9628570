"""Documents to impacts, a chunk at a time: the step that indexing and exporting share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from sparse_sts_index._utils.pipeline import overlap
from sparse_sts_index.data.documents import Chunk, Document, check_ids, chunks
from sparse_sts_index.vectors.quantizer import Quantizer

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.encoding.tokenization import TokenizedSentences

#: Documents encoded together, whose vectors may depend on each other in the last bits. Some four are ever in memory.
CHUNK = 2048


def encode_documents(
    documents: Iterable[Document],
    encoder: SparseStsEncoder,
    quantizer: Quantizer,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """Encode and quantize a stream of documents, in order.

    While a chunk is encoded, in the caller's thread, the next one is tokenized in another.

    Parameters
    ----------
    documents : iterable of Document
        Read as needed; only the ids and a few chunks of documents are held.
    encoder : SparseStsEncoder
    quantizer : Quantizer
    progress : callable, optional
        Called with the number of documents encoded since its last call.

    Raises
    ------
    DataError
        A duplicate id, or what reading the documents raises.
    ModelError
        The model gives unusable weights.
    """

    def tokenize(chunk: list[Document]) -> tuple[list[Document], TokenizedSentences]:
        return chunk, encoder.tokenize([document.text for document in chunk])

    with contextlib.closing(overlap(tokenize, chunks(check_ids(documents), CHUNK))) as tokenized:
        for chunk, sentences in tokenized:
            vectors = encoder.encode_tokens(sentences, progress=progress)
            yield Chunk(chunk, vectors, quantizer.quantize(vectors))
