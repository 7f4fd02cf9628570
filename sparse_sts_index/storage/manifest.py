"""What an index says of itself: the model, the quantizer, the counts, the software that built it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.fields import FieldType, check_types
from sparse_sts_index.errors import DataError, ImpactIndexError
from sparse_sts_index.storage.vector_files import Extent
from sparse_sts_index.vectors.spec import VectorSpec
from sparse_sts_index.vectors.vocabulary import Vocabulary

#: Version of the on-disk form that is written, and the oldest that is read. ``docs/reference/format.md`` has the rules.
FORMAT_VERSION, OLDEST_VERSION = 4, 3
#: What a reader has to know beyond the version, by the names that a manifest has under ``features``: nothing, so far.
FEATURES: frozenset[str] = frozenset()
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
        Package name to version; ``python``, ``java`` and ``lucene``, too. What made the vectors is of the build, what
        wrote them is of the last change.
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
        That was read; :data:`FORMAT_VERSION` is what is written.
    features : tuple of str
        What a reader has to know of; it refuses an index with one that it does not.
    fields : dict of str to str
        The type of each field of a document, by name; see :data:`~sparse_sts_index.data.fields.FIELD_TYPES`.
    unknown : tuple of str
        What the manifest says that this version does not know of, and may pass over to read, but not to write.
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
    features: tuple[str, ...] = ()
    fields: dict[str, FieldType] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @classmethod
    def without_model(cls, vocabulary: Vocabulary, bits: int) -> Manifest:
        """Of vectors that come from anywhere."""
        return cls("", "", vocabulary.sha256, len(vocabulary), "float32", bits)

    def with_fields(self, types: Mapping[str, FieldType]) -> Manifest:
        """Return it of documents with these fields."""
        return dataclasses.replace(self, fields=dict(types))

    def to_json(self) -> str:
        """Return it as indented JSON, of :data:`FORMAT_VERSION`."""
        values = dataclasses.asdict(self) | {"format_version": FORMAT_VERSION, "vectors": self.vectors.to_json()}
        del values["unknown"]
        if not values["fields"]:  # earlier versions do not know of it
            del values["fields"]
        first = ("format_version", "features", *self.settings(), "software")
        ordered = {name: values.pop(name) for name in first} | values
        return json.dumps(ordered, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read back what :meth:`to_json` wrote, in this version or an earlier one.

        Raises
        ------
        ImpactIndexError
            A format version or a feature that this version does not know, or not a manifest.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            found = values["format_version"]
            if type(found) is not int:
                raise TypeError("version")
            if OLDEST_VERSION <= found <= FORMAT_VERSION:
                features = values.get("features", [])
                if not isinstance(features, list):
                    raise TypeError("features")
                if strange := sorted({*features} - FEATURES):
                    raise ImpactIndexError(_needs(", ".join(strange), values.get("software")))
                return cls._of_values(values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, DataError) as error:
            raise ImpactIndexError("the index's manifest cannot be read") from error
        if found > FORMAT_VERSION:
            raise ImpactIndexError(_needs(f"format version {found}", values.get("software")))
        raise ImpactIndexError(
            f"index format version {found}; this version reads {OLDEST_VERSION} to {FORMAT_VERSION}: rebuild it"
        )

    @classmethod
    def _of_values(cls, values: dict[str, Any]) -> Manifest:
        """Read the values by name, which anybody may have written."""
        if values["format_version"] == 3:
            values = {**values, "features": [], "vectors": _vectors_of_version_3(**values["vectors"])}
        known = {field.name for field in dataclasses.fields(cls)} - {"unknown"}
        vectors, unknown = Extent.of_json(values["vectors"])
        unknown = (*(name for name in values if name not in known), *unknown)
        taken = {name: value for name, value in values.items() if name in known}
        fields = check_types(dict(values.get("fields", {})))
        more = {"vectors": vectors, "features": tuple(values["features"]), "fields": fields, "unknown": unknown}
        manifest = cls(**{**taken, **more})
        manifest._check()
        return manifest

    def check_known(self, path: object) -> None:
        """Refuse to write to an index, or to copy it, where this version would drop what a newer one has put there.

        Raises
        ------
        ImpactIndexError
            There is such a thing; the message says what.
        """
        if self.unknown:
            what = ", ".join(self.unknown)
            raise ImpactIndexError(f"{path} can be read here, and not changed: {_needs(what, self.software)}")

    def _check(self) -> None:
        """Refuse, with ``ValueError`` or ``TypeError``, what no writer has written: anybody may have."""
        texts = (self.model, self.model_fingerprint, self.vocabulary_sha256, self.created, self.updated, self.precision)
        counts = (self.vocabulary_size, self.documents, self.empty_documents, self.postings, self.vectors.live)
        whole = (*counts, self.bits, self.format_version, 0 if self.max_active_dims is None else self.max_active_dims)
        for values, types in (
            ((*texts, *self.software, *self.software.values(), *self.features), (str,)),
            (whole, (int,)),
            ((self.max_document_error, self.build_seconds), (int, float)),
        ):
            if any(type(value) not in types for value in values):
                raise TypeError("types")
        if self.precision in ("", "auto") or not 2 <= self.bits <= 16 or self.max_active_dims == 0:
            raise ValueError("settings")
        if not math.isfinite(self.max_document_error + self.build_seconds) or min(whole) < 0:
            raise ValueError("counts")
        if self.max_document_error < 0 or self.vocabulary_size > _LARGEST_VOCABULARY:
            raise ValueError("counts")
        if self.vectors.has_fields != bool(self.fields):
            raise ValueError("fields")


def _vectors_of_version_3(folder: str, sizes: dict[str, int], crc32: dict[str, int]) -> dict[str, Any]:
    if sizes.keys() != crc32.keys():
        raise ValueError("files")
    return {"folder": folder, "files": {name: {"bytes": sizes[name], "crc32": crc32[name]} for name in sizes}}


def _needs(what: str, software: object) -> str:
    writer = software.get("sparse-sts-index") if isinstance(software, dict) else None
    by = f" (sparse-sts-index {printable(writer, 20)} wrote it)" if isinstance(writer, str) else ""
    return f"the index has {printable(what)}{by}, which this version does not know: update sparse-sts-index"
