"""The folder that a model is written to, looked at before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

from sparse_sts_index._utils.files import refuse_replacing
from sparse_sts_index.errors import SparseStsError


def refuse_model_target(output: Path, *, error: type[SparseStsError], overwrite: bool) -> None:
    """Refuse to write a model where something else is, or over a model unless `overwrite`."""
    refuse_replacing(output, "a model", error=error, complete=is_model(output), overwrite=overwrite)


def is_model(folder: Path) -> bool:
    """Return whether a complete model is in a folder."""
    return (folder / "modules.json").is_file()
