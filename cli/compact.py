"""``sparse-sts compact``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import index_argument
from .output import progress_bar


@click.command()
@index_argument
def compact(index: Path) -> None:
    """Write INDEX anew, without the room that deleted and replaced sentences take. Searches go on meanwhile."""
    from sparse_sts_index.storage.impact_index import ImpactIndex

    with ImpactIndex.open(index, writable=True) as opened:
        before = _size(index)
        with progress_bar(len(opened), "compacting") as progress:
            opened.compact(progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count:,} sentences, {before / 1e6:,.1f} MB before, {_size(index) / 1e6:,.1f} MB now")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
