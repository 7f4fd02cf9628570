"""A document's float weights as text, for engines that only keep rounded ones."""

from __future__ import annotations

import base64
import binascii

import numpy as np

from sparse_sts_index.engines.base import Vector
from sparse_sts_index.errors import EngineError


def pack(vector: Vector) -> str:
    """Base64 of the term ids (uint32, little-endian), then of the weights (float32, little-endian)."""
    content = np.array(vector.terms, "<u4").tobytes() + np.array(vector.weights, "<f4").tobytes()
    return base64.b64encode(content).decode("ascii")


def unpack(text: str) -> Vector:
    """What :func:`pack` made.

    Raises
    ------
    EngineError
        It did not make this.
    """
    try:
        content = base64.b64decode(text, validate=True)
        half = len(content) // 2
        terms, weights = np.frombuffer(content[:half], "<u4"), np.frombuffer(content[half:], "<f4")
        if not ((terms[1:] > terms[:-1]).all() and (weights >= 0).all() and np.isfinite(weights).all()):
            raise ValueError("weights")
    except (binascii.Error, ValueError, TypeError) as error:
        raise EngineError("a document's vector is not as sparse-sts wrote it") from error
    return Vector(terms.tolist(), weights.tolist())
