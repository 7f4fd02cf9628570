"""``sparse-sts upgrade``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import index_argument
from .output import progress_bar


@click.command()
@index_argument
def upgrade(index: Path) -> None:
    """Write INDEX in today's format, with the Lucene that is here; no model is needed. Searches go on meanwhile."""
    from sparse_sts_index import storage

    with progress_bar(None, "upgrading") as progress:
        upgraded = storage.upgrade(index, progress=progress)
    with storage.ImpactIndex.open(index, check=False) as opened:
        count, manifest = len(opened), opened.manifest
    now = f"format {manifest.format_version}, Lucene {manifest.software.get('lucene', 'unknown')}"
    click.echo(f"{index}: {count:,} sentences, " + (f"now {now}" if upgraded else f"nothing to do: {now}"))
