"""``sparse-sts relocate``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import index_argument
from .output import one_line


@click.command()
@index_argument
@click.option("--model", required=True, metavar="MODEL", help="The place of the model now: a folder or a hub id.")
def relocate(index: Path, model: str) -> None:
    """Tell INDEX where its model is now, after the model was moved or renamed.

    The model is loaded first, and refused unless it is the one that the index was built with, to the bit.
    """
    from sparse_sts_index.index import SparseStsIndex

    with SparseStsIndex.open(index, writable=True) as opened:
        before = opened.manifest.model
        opened.relocate(model)
        manifest = opened.manifest
    click.echo(f"{index}: model {one_line(manifest.model)} ({manifest.model_fingerprint[:12]}), was {one_line(before)}")
