"""Impacts as Anserini's ``JsonVectorCollection``: one JSON object a line with ``id``, ``contents`` and ``vector``.

``vector`` maps Lucene terms to integer impacts, largest first; ``fields``, if there are any, holds what else is kept.
Anserini indexes such files with ``-collection JsonVectorCollection -generator DefaultLuceneDocumentGenerator -impact
-pretokenized``; it passes over documents with an empty vector, which
:meth:`sparse_sts_index.index.SparseStsIndex.build` keeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING

from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.data.fields import plain_fields
from sparse_sts_index.encoding.documents import encode_documents
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.quantizer import Quantizer

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder


def export_vectors(
    documents: Iterable[Document],
    encoder: SparseStsEncoder,
    file: IO[str],
    *,
    quantizer: Quantizer | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the quantized vectors of documents.

    Parameters
    ----------
    documents : iterable of Document
    encoder : SparseStsEncoder
    file : text file
        See :func:`sparse_sts_index._utils.files.atomic_writer` for one that is never left half-written.
    quantizer : Quantizer, optional
        Default: 8 bits.
    progress : callable, optional
        Called with the number of documents encoded since its last call.

    Returns
    -------
    int
        The number of documents.

    Raises
    ------
    DataError
        A duplicate id, or no documents.
    ModelError
        The model gives unusable weights.
    """
    chunks = encode_documents(documents, encoder, quantizer or Quantizer(), progress=progress)
    return write_chunks(chunks, encoder.vocabulary.terms, file)


def write_chunks(
    chunks: Iterable[Chunk],
    terms: tuple[str, ...],
    file: IO[str],
    *,
    progress: Callable[[int], None] | None = None,
) -> int:
    """:func:`export_vectors` for documents that are encoded already.

    Parameters
    ----------
    chunks : iterable of Chunk
    terms : tuple of str, length vocab
        Lucene's, of the vocabulary.
    file, progress
        As there; called with the number of documents written.
    """
    count = 0
    for chunk in chunks:
        count += len(chunk.documents)
        file.writelines(_lines(chunk, terms))
        if progress is not None:
            progress(len(chunk.documents))
    if not count:
        raise DataError("no documents to export")
    return count


def _lines(chunk: Chunk, terms: tuple[str, ...]) -> Iterable[str]:
    impacts = chunk.impacts
    for row, document in enumerate(chunk.documents):
        entries = slice(impacts.indptr[row], impacts.indptr[row + 1])
        weights = zip(impacts.data[entries].tolist(), impacts.indices[entries].tolist(), strict=True)
        vector = {terms[term_id]: weight for weight, term_id in sorted(weights, key=lambda x: (-x[0], x[1]))}
        value = {"id": document.id, "contents": document.text, "vector": vector}
        if document.fields:
            value["fields"] = plain_fields(document.fields)
        yield json.dumps(value, ensure_ascii=False) + "\n"
