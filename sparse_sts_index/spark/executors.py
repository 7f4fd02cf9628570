"""What a Python worker of Spark holds from one task to the next: the model, and the shards it has opened."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.storage.manifest import Manifest
    from sparse_sts_index.vectors.spec import Precision


def encoder_of(manifest: Manifest, model: str | None = None) -> SparseStsEncoder:
    """The encoder that a manifest names, or the same one elsewhere, on what this task was given to compute with.

    That is a GPU if the task has one by Spark's resource ``gpu``, else as many threads as it has cores.

    Raises
    ------
    ModelMismatchError
        There is another model here.
    ModelError
        It does not load.
    """
    import torch
    from pyspark import TaskContext

    from sparse_sts_index.encoding.matching import check_matching

    context = TaskContext.get()
    gpus = context.resources().get("gpu") if context is not None else None
    if context is not None:
        torch.set_num_threads(max(1, context.cpus()))
    device = f"cuda:{gpus.addresses[0]}" if gpus is not None else None
    encoder = _load(model or manifest.model, device, manifest.precision, manifest.max_active_dims)
    check_matching(encoder, manifest, f"on a worker that loaded {model or manifest.model}: the collection")
    return encoder


@functools.lru_cache(maxsize=1)
def _load(model: str, device: str | None, precision: Precision, max_active_dims: int | None) -> SparseStsEncoder:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

    return SparseStsEncoder.load(model, device=device, precision=precision, max_active_dims=max_active_dims)
