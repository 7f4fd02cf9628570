"""``sparse-sts verify``."""

from __future__ import annotations

from pathlib import Path

import click

from .defaults import chosen_index
from .options import optional_index_argument
from .progress import progress_bar


@click.command()
@optional_index_argument
def verify(index: Path | None) -> None:
    """Check INDEX against its checksums and itself: every file, every count, every sentence's vector."""
    from sparse_sts_index.storage import ImpactIndex

    index = chosen_index(index)
    with ImpactIndex.open(index, check=False) as opened, progress_bar(len(opened), "verifying") as progress:
        count = opened.verify(progress=progress)
    click.echo(f"{index}: {count:,} sentences, all as they were written")
