"""Load the encoder that a collection was built with, and refuse any other.

Torch is imported only when a model is loaded: collections are opened, and vectors are searched for, without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_sts_index._utils.text import printable
from sparse_sts_index.errors import ModelError, ModelMismatchError
from sparse_sts_index.vectors.spec import PRECISIONS, Precision, VectorSpec

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder


def load_matching(
    spec: VectorSpec,
    owner: str,
    model: SparseStsEncoder | str | Path | None = None,
    *,
    precision: Precision | None = None,
    remedy: str = "say where the model is now: --model, model=",
) -> SparseStsEncoder:
    """Return the encoder that a collection names.

    Parameters
    ----------
    spec : VectorSpec
        What the collection says of its vectors.
    owner : str
        The collection, as messages name it.
    model : SparseStsEncoder, str or Path, optional
        The encoder, or where to load it from. Default: ``spec.model``.
    precision : {"auto", "float32", "bfloat16"}, optional
        Precision of a model that is to be loaded. Default: ``spec.precision``.
    remedy : str
        What to do if the model is not where the collection says it is.

    Raises
    ------
    ModelMismatchError
        The encoder is not the model that the collection was built with.
    ModelError
        The model does not load, or this version cannot encode as the collection was encoded.
    """
    if model is not None and not isinstance(model, str | os.PathLike):
        encoder = model
    else:
        if precision is None and spec.precision not in PRECISIONS:
            unknown = f"{printable(spec.precision, 20)}, which this version does not know"
            raise ModelError(f"{owner} was encoded in {unknown}: update sparse-sts-index")
        from sparse_sts_index.encoding.encoder import SparseStsEncoder

        try:
            encoder = SparseStsEncoder.load(
                model or spec.model, precision=precision or spec.precision, max_active_dims=spec.max_active_dims
            )
        except ModelError as error:
            if model is not None and str(model) != spec.model:
                raise
            raise ModelError(f"{error} ({owner} was built with it; {remedy})") from error
    check_matching(encoder, spec, owner)
    return encoder


def check_matching(encoder: SparseStsEncoder, spec: VectorSpec, owner: str) -> None:
    """Refuse an encoder that is not the model of a collection; see :func:`load_matching`.

    Raises
    ------
    ModelMismatchError
        It is not.
    """
    if encoder.fingerprint != spec.model_fingerprint or encoder.vocabulary.sha256 != spec.vocabulary_sha256:
        raise ModelMismatchError(
            f"{owner} was built with model {spec.model} ({spec.model_fingerprint[:12]}), "
            f"not with {encoder.name} ({encoder.fingerprint[:12]})"
        )
