"""What an index says of itself: the model, the quantizer, the counts, the software that built it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.vector_files import Extent
from sparse_sts_index.vectors.spec import VectorSpec
from sparse_sts_index.vectors.vocabulary import Vocabulary

#: Version of the on-disk form. Raised whenever an older reader would misread an index.
FORMAT_VERSION = 3
_LARGEST_VOCABULARY = 2**31 - 1  # term ids are int32


@dataclass(frozen=True)
class Manifest(VectorSpec):
    """The manifest of one committed index.

    It travels in the user data of the Lucene commit, so that it changes in the same atomic step as the documents;
    ``manifest.json`` beside the Lucene files is a copy for people and other programs.

    Attributes
    ----------
    model, model_fingerprint, vocabulary_sha256, vocabulary_size, precision, bits, max_active_dims
        See :class:`~sparse_sts_index.vectors.spec.VectorSpec`.
    software : dict
        Package name to version; ``java`` and ``lucene`` too.
    max_document_error : float
        At least the largest rounding error of a document vector, :meth:`.vectors.quantizer.Quantizer.errors`.
    documents, empty_documents, postings : int
        Documents in all, those without an active term, and (term, document) entries.
    vectors : Extent
        Where the float vectors are, how much of the files counts, and their checksums.
    created, updated : str
        When the build finished, and when the last change was committed; ISO 8601, UTC.
    build_seconds : float
        How long the build took.
    format_version : int
    """

    software: dict[str, str] = field(default_factory=dict)
    max_document_error: float = 0.0
    documents: int = 0
    empty_documents: int = 0
    postings: int = 0
    vectors: Extent = field(default_factory=lambda: Extent.empty(""))
    created: str = ""
    updated: str = ""
    build_seconds: float = 0.0
    format_version: int = FORMAT_VERSION

    @classmethod
    def without_model(cls, vocabulary: Vocabulary, bits: int) -> Manifest:
        """Of vectors that come from anywhere."""
        return cls("", "", vocabulary.sha256, len(vocabulary), "float32", bits)

    def to_json(self) -> str:
        """As indented JSON."""
        values = dataclasses.asdict(self)
        # The order is part of the format: checksums of manifests are of this text.
        first = ("format_version", *(f.name for f in dataclasses.fields(VectorSpec)[:-1]), "software")
        ordered = {name: values.pop(name) for name in first} | values
        return json.dumps(ordered, indent=2, ensure_ascii=False)

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
                manifest = cls(**{**values, "vectors": Extent.of_json(values["vectors"])})
                manifest._check()
                return manifest
            found = f"{version:.20}" if isinstance(version, str) else int(version)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ImpactIndexError("the index's manifest cannot be read") from error
        raise ImpactIndexError(f"index format version {found!r}; this version reads {FORMAT_VERSION}: build it anew")

    def _check(self) -> None:
        """Refuse, with ``ValueError`` or ``TypeError``, what no writer has written: anybody may have."""
        texts = (self.model, self.model_fingerprint, self.vocabulary_sha256, self.created, self.updated)
        counts = (self.vocabulary_size, self.documents, self.empty_documents, self.postings, self.vectors.live)
        whole = (*counts, self.bits, self.format_version, 0 if self.max_active_dims is None else self.max_active_dims)
        for values, types in (
            ((*texts, *self.software, *self.software.values()), (str,)),
            (whole, (int,)),
            ((self.max_document_error, self.build_seconds), (int, float)),
        ):
            if any(type(value) not in types for value in values):
                raise TypeError("types")
        if self.precision not in ("float32", "bfloat16") or not 2 <= self.bits <= 16 or self.max_active_dims == 0:
            raise ValueError("settings")
        if not math.isfinite(self.max_document_error + self.build_seconds) or min(whole) < 0:
            raise ValueError("counts")
        if self.max_document_error < 0 or self.vocabulary_size > _LARGEST_VOCABULARY:
            raise ValueError("counts")
