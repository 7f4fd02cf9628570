"""``sparse-sts delete``."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from sparse_sts_index.data.text_formats import decoded_lines

from .options import index_argument


@click.command()
@index_argument
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--ids", "ids_file", type=click.File("rb"), help="A file of ids, one a line, or -.")
def delete(index: Path, ids: tuple[str, ...], ids_file: BinaryIO | None) -> None:
    """Delete sentences from INDEX by ID. Ids that are not there are counted, and passed over."""
    if bool(ids) == bool(ids_file):
        raise click.UsageError("Give either ID or --ids.")
    lines = decoded_lines(ids_file, ids_file.name) if ids_file else ids
    wanted = [doc_id for doc_id in dict.fromkeys(line.rstrip("\r\n") for line in lines) if doc_id]
    from sparse_sts_index.storage import ImpactIndex  # needs no model, which would take seconds to import

    with ImpactIndex.open(index, writable=True) as opened:
        deleted = opened.delete(wanted)
        count = len(opened)
    missing = f", {len(wanted) - deleted:,} ids were not there" if deleted < len(wanted) else ""
    click.echo(f"{index}: {deleted:,} sentences deleted{missing}, {count:,} left")
