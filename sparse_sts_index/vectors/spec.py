"""The settings that decide whether vectors may be compared: the model, its vocabulary, and the use of both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class VectorSpec:
    """The settings that the vectors of a collection were made with.

    Attributes
    ----------
    model : str
        Folder or hub id of the encoder. A model may move, so that :meth:`differences` passes over it.
    model_fingerprint : str
        See :attr:`sparse_sts_index.encoding.encoder.SparseStsEncoder.fingerprint`.
    vocabulary_sha256 : str
        See :attr:`sparse_sts_index.vectors.vocabulary.Vocabulary.sha256`.
    vocabulary_size : int
        Number of terms.
    precision : {"float32", "bfloat16"}
        Number format of the model's layers; see :mod:`sparse_sts_index.encoding.precision`.
    bits : int
        Bits of the quantizer; its scale is ``2**bits - 1``.
    max_active_dims : int or None
        Number of terms kept per sentence, those of most weight. None: all of them.
    """

    model: str
    model_fingerprint: str
    vocabulary_sha256: str
    vocabulary_size: int
    precision: Precision
    bits: int
    max_active_dims: int | None = None

    def settings(self) -> dict[str, Any]:
        """Return the attributes by name, without those that a subclass adds."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(VectorSpec)}

    def differences(self, other: VectorSpec) -> dict[str, tuple[object, object]]:
        """Return both values of each attribute but `model` in which two collections differ, by its name."""
        theirs = other.settings()
        pairs = {name: (value, theirs[name]) for name, value in self.settings().items() if name != "model"}
        return {name: (one, two) for name, (one, two) in pairs.items() if one != two}

    def comparable(self, other: VectorSpec) -> bool:
        """Return whether the cosine of two vectors, one of each collection, means anything."""
        return not {"model_fingerprint", "vocabulary_sha256"} & self.differences(other).keys()
