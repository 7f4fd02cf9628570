"""``sparse-sts add``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.reading import FileOptions

from .options import documents_command
from .output import known_total
from .progress import progress_bar


@click.command()
@documents_command
def add(index: Path, corpus: str, model: str | None, reading: FileOptions) -> None:
    """Add the sentences in CORPUS to INDEX: all of them or, if an id is there already, none.

    CORPUS is as for the command index.
    """
    total = known_total(corpus, reading)
    from sparse_sts_index.index import SparseStsIndex

    with SparseStsIndex.open(index, model, writable=True) as opened, progress_bar(total, "adding") as progress:
        before = len(opened)
        opened.add(read_corpus(corpus, **reading), progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count - before:,} sentences added, {count:,} in all")
