"""Where pushed and exported vectors come from: an index, or a corpus that is encoded on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_sts_index.data.documents import Chunk, Document
from sparse_sts_index.encoding.documents import encode_documents
from sparse_sts_index.engines.base import Metadata
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.vectors.quantizer import Quantizer
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder


@dataclass(frozen=True)
class Source:
    """A stream of encoded documents, with what they are encoded with.

    Attributes
    ----------
    metadata : Metadata
    vocabulary : Vocabulary
    state : str
        Another whenever the documents may be others; empty if they can be read only once.
    documents : int or None
        How many there are, if that is known.
    read : callable
        Chunks of documents, in order, but for the first so many.
    """

    metadata: Metadata
    vocabulary: Vocabulary
    state: str
    documents: int | None
    read: Callable[[int], Iterator[Chunk]]

    @classmethod
    def of_index(cls, index: ImpactIndex) -> Source:
        """The documents of an index; no model is loaded."""
        manifest = index.manifest
        with index.using() as snapshot:
            vocabulary = snapshot.vocabulary
        digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
        metadata = Metadata.of(manifest, manifest.fields)
        return cls(metadata, vocabulary, digest, manifest.documents, lambda skip: index.read(skip=skip))

    @classmethod
    def of_corpus(
        cls,
        documents: Iterable[Document],
        encoder: SparseStsEncoder,
        quantizer: Quantizer,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Source:
        """Documents to be encoded, once, all of them; without their fields."""
        metadata = Metadata.of(encoder.spec(quantizer.bits))

        def read(skip: int) -> Iterator[Chunk]:
            if skip:
                raise ValueError("a corpus is read from its beginning")
            return encode_documents(documents, encoder, quantizer, progress=progress)

        return cls(metadata, encoder.vocabulary, "", None, read)
