"""``sparse-sts add``."""

from __future__ import annotations

from pathlib import Path

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.fields import Field
from sparse_sts_index.data.reading import FileOptions

from .options import documents_command
from .output import FieldsOfIndex, examined
from .progress import progress_bar


@click.command()
@documents_command
def add(index: Path, corpus: str, model: str | None, reading: FileOptions, fields: tuple[Field, ...]) -> None:
    """Add the sentences in CORPUS to INDEX: all of them or, if an id is there already, none.

    CORPUS is as for the command index. Its fields are those of INDEX; --fields says in which columns they are.
    """
    from sparse_sts_index.index import SparseStsIndex

    with SparseStsIndex.open(index, model, writable=True) as opened:
        before, kept = len(opened), FieldsOfIndex(opened, fields, corpus, reading)
        total, _ = examined(corpus, reading, kept.fields, needed=False)
        with progress_bar(total, "adding") as progress:
            documents = kept.pass_through(read_corpus(corpus, fields=kept.fields, **reading))
            opened.add(documents, progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count - before:,} sentences added, {count:,} in all")
    kept.warn()
