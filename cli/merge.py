"""``sparse-sts merge``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import overwrite_option
from .output import show_built
from .progress import progress_bar


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("indexes", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="INDEX...")
@overwrite_option
def merge(output: Path, indexes: tuple[Path, ...], overwrite: bool) -> None:
    """Make OUTPUT one index of all sentences in each INDEX, or collection of shards; nothing is encoded again."""
    from sparse_sts_index import storage

    with progress_bar(None, "merging") as progress:
        storage.merge(output, indexes, overwrite=overwrite, progress=progress)
    with storage.ImpactIndex.open(output) as merged:
        show_built(output, merged.manifest)
