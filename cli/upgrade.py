"""``sparse-sts upgrade``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import index_argument
from .progress import progress_bar


@click.command()
@index_argument
def upgrade(index: Path) -> None:
    """Rewrite INDEX in the current format, with the Lucene installed here. No model is needed; searches go on."""
    from sparse_sts_index import storage

    with progress_bar(None, "upgrading") as progress:
        upgraded = storage.upgrade(index, progress=progress)
    with storage.ImpactIndex.open(index, check=False) as opened:
        count, manifest = len(opened), opened.manifest
    now = f"format {manifest.format_version}, Lucene {manifest.software.get('lucene', 'unknown')}"
    click.echo(f"{index}: {count:,} sentences, " + (f"now {now}" if upgraded else f"nothing to do: {now}"))
