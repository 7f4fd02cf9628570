"""``sparse-sts compact``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index._utils.files import folder_size

from .options import index_argument
from .progress import progress_bar


@click.command()
@index_argument
def compact(index: Path) -> None:
    """Write INDEX anew, without the room that deleted and replaced sentences take. Searches go on meanwhile."""
    from sparse_sts_index.storage import ImpactIndex

    with ImpactIndex.open(index, writable=True) as opened:
        before = folder_size(index)
        with progress_bar(len(opened), "compacting") as progress:
            opened.compact(progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count:,} sentences, {before / 1e6:,.1f} MB before, {folder_size(index) / 1e6:,.1f} MB now")
