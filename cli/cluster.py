"""``sparse-sts cluster``."""

from __future__ import annotations

from pathlib import Path

import click

from .defaults import chosen_index
from .options import join_command
from .output import json_line, one_line
from .progress import progress_bar


@click.command()
@join_command
def cluster(index: Path | None, threshold: float, where: str | None, format: str) -> None:
    """Group the sentences in INDEX that hang together by pairs whose cosine is at least --threshold.

    The largest group comes first. A sentence is in a group if it is similar to any one of it.
    """
    from sparse_sts_index.index import SparseStsIndex

    count = sentences = 0
    index = chosen_index(index)
    with SparseStsIndex.open(index) as opened, progress_bar(len(opened), "comparing") as progress:
        for count, members in enumerate(opened.clusters(threshold, where=where, progress=progress), 1):
            sentences += len(members)
            if format == "jsonl":
                texts = [{"id": member.id, "text": member.text} for member in members]
                click.echo(json_line({"cluster": count, "members": texts}))
            else:
                click.echo(f"cluster {count}: {len(members):,} sentences")
                for member in members:
                    click.echo(f"  {one_line(member.id)}  {one_line(member.text)}")
    if format == "table":
        click.echo(f"{count:,} clusters, {sentences:,} sentences in them")
