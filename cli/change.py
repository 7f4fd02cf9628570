"""``sparse-sts add``, ``update``, ``delete``, ``compact`` and ``verify``: what keeps an index up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from sparse_sts_index.data.documents import read_corpus

from .options import Command, corpus_format_option, known_total, model_option, progress_bar

if TYPE_CHECKING:
    from sparse_sts_index.index import SparseStsIndex

_index_argument = click.argument("index", type=click.Path(path_type=Path))


def _documents_command(command: Command) -> Command:
    """A command that encodes documents into an index."""
    command = model_option(required=False, more=" Default: the one the index was built with.")(command)
    return _index_argument(click.argument("corpus")(corpus_format_option("--format")(command)))


@click.command()
@_documents_command
def add(index: Path, corpus: str, format: str | None, model: str | None) -> None:
    """Add the sentences in CORPUS to INDEX: all of them or, if an id is there already, none.

    CORPUS is as for the command index.
    """
    total = known_total(corpus, format)
    with _writable(index, model) as opened, progress_bar(total, "adding") as progress:
        before = len(opened)
        opened.add(read_corpus(corpus, format), progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count - before:,} sentences added, {count:,} in all")


@click.command()
@_documents_command
def update(index: Path, corpus: str, format: str | None, model: str | None) -> None:
    """Put the sentences in CORPUS in the place of those with their ids in INDEX; add those whose id is new.

    CORPUS is as for the command index.
    """
    total = known_total(corpus, format)
    with _writable(index, model) as opened, progress_bar(total, "updating") as progress:
        before = len(opened)
        replaced = opened.update(read_corpus(corpus, format), progress=progress)
        count = len(opened)
    click.echo(f"{index}: {replaced:,} sentences replaced, {count - before:,} added, {count:,} in all")


@click.command()
@_index_argument
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--ids", "ids_file", type=click.File(encoding="utf-8"), help="A file of ids, one a line, or -.")
def delete(index: Path, ids: tuple[str, ...], ids_file: TextIO | None) -> None:
    """Delete sentences from INDEX by ID. Ids that are not there are counted, and passed over."""
    if bool(ids) == bool(ids_file):
        raise click.UsageError("Give either ID or --ids.")
    wanted = [doc_id for doc_id in dict.fromkeys(line.rstrip("\r\n") for line in ids_file or ids) if doc_id]
    from sparse_sts_index.storage.impact_index import (
        ImpactIndex,  # no model is needed, which would take seconds to import
    )

    with ImpactIndex.open(index, writable=True) as opened:
        deleted = opened.delete(wanted)
        count = len(opened)
    missing = f", {len(wanted) - deleted:,} ids were not there" if deleted < len(wanted) else ""
    click.echo(f"{index}: {deleted:,} sentences deleted{missing}, {count:,} left")


@click.command()
@_index_argument
def compact(index: Path) -> None:
    """Write INDEX anew, without the room that deleted and replaced sentences take. Searches go on meanwhile."""
    from sparse_sts_index.storage.impact_index import ImpactIndex

    with ImpactIndex.open(index, writable=True) as opened:
        before = _size(index)
        with progress_bar(len(opened), "compacting") as progress:
            opened.compact(progress=progress)
        count = len(opened)
    click.echo(f"{index}: {count:,} sentences, {before / 1e6:,.1f} MB before, {_size(index) / 1e6:,.1f} MB now")


@click.command()
@_index_argument
def verify(index: Path) -> None:
    """Check INDEX against its checksums and itself: every file, every count, every sentence's vector."""
    from sparse_sts_index.storage.impact_index import ImpactIndex

    with ImpactIndex.open(index, check=False) as opened, progress_bar(len(opened), "verifying") as progress:
        count = opened.verify(progress=progress)
    click.echo(f"{index}: {count:,} sentences, all as they were written")


def _writable(index: Path, model: str | None) -> SparseStsIndex:
    from sparse_sts_index.index import SparseStsIndex

    return SparseStsIndex.open(index, model, writable=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
