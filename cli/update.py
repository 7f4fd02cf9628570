"""``sparse-sts update``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.data.columns import ROW_NUMBER
from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.fields import Field
from sparse_sts_index.data.reading import FileOptions

from .options import documents_command
from .output import FieldsOfIndex, examined
from .progress import progress_bar


@click.command()
@documents_command
def update(index: Path, corpus: str, model: str | None, reading: FileOptions, fields: tuple[Field, ...]) -> None:
    """Put the sentences in CORPUS in the place of those with their ids in INDEX; add those whose id is new.

    CORPUS is as for the command index. Its fields are those of INDEX; --fields says in which columns they are.
    """
    if (reading.get("columns") or {}).get("id") == ROW_NUMBER:
        raise click.UsageError("update goes by ids, which numbers of rows are not: give the column of the ids.")
    from sparse_sts_index.index import SparseStsIndex

    with SparseStsIndex.open(index, model, writable=True) as opened:
        before, kept = len(opened), FieldsOfIndex(opened, fields, corpus, reading)
        total, _ = examined(corpus, reading, kept.fields, needed=False)
        with progress_bar(total, "updating") as progress:
            replaced = opened.update(
                kept.pass_through(read_corpus(corpus, fields=kept.fields, **reading)), progress=progress
            )
        count = len(opened)
    click.echo(f"{index}: {replaced:,} sentences replaced, {count - before:,} added, {count:,} in all")
    kept.warn()
