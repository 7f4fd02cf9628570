"""What an index says of itself: the model, the quantizer, the counts, the software that built it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.precision import Precision

#: Version of the on-disk form. Raised whenever an older reader would misread an index.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """The manifest of one committed index.

    It travels in the user data of the Lucene commit, so that it changes in the same atomic step as the documents;
    ``manifest.json`` beside the Lucene files is a copy for people and other programs.

    Attributes
    ----------
    model : str
        Folder or hub id of the encoder.
    model_fingerprint : str
        See :attr:`sparse_sts_index.encoder.SparseStsEncoder.fingerprint`.
    vocabulary_sha256 : str
        See :attr:`sparse_sts_index.vocabulary.Vocabulary.sha256`.
    precision : {"float32", "bfloat16"}
        What the documents were encoded in; see :mod:`sparse_sts_index.precision`.
    document_bits, query_bits : int
        Bits of the quantizers; the scales are ``2**bits - 1``.
    max_document_error : float
        The largest rounding error of a document vector, :meth:`sparse_sts_index.quantizer.Quantizer.errors`.
    documents, empty_documents, postings : int
        Documents in all, those without an active term, and (term, document) entries.
    created : str
        When the build finished, ISO 8601, UTC.
    build_seconds : float
        How long it took.
    software : dict
        Package name to version; ``java`` and ``lucene`` too.
    format_version : int
    """

    model: str
    model_fingerprint: str
    vocabulary_sha256: str
    precision: Precision
    document_bits: int
    query_bits: int
    max_document_error: float
    documents: int
    empty_documents: int
    postings: int
    created: str
    build_seconds: float
    software: dict[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def score_scale(self) -> int:
        """What Lucene's score is divided by to give the cosine: document scale times query scale."""
        return int((2**self.document_bits - 1) * (2**self.query_bits - 1))

    def to_json(self) -> str:
        """As indented JSON."""
        values = dataclasses.asdict(self)
        return json.dumps({"format_version": values.pop("format_version"), **values}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        ImpactIndexError
            Another format version, or not a manifest.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["format_version"]
            if version == FORMAT_VERSION:
                return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise ImpactIndexError("the index's manifest cannot be read") from error
        raise ImpactIndexError(f"index format version {version}; this version reads {FORMAT_VERSION}: build it anew")
