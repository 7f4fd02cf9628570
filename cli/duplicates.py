"""``sparse-sts duplicates`` and ``cluster``: sentences of one collection that mean the same."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from .options import Command, engine_session, json_line, one_line, progress_bar, spark_options


def _join_command(command: Command) -> Command:
    """A command that compares all sentences of an index with each other."""
    for option in (
        click.option("--format", type=click.Choice(["table", "jsonl"]), default="table", show_default=True),
        click.option(
            "--threshold",
            type=click.FloatRange(0, 1, min_open=True),
            default=0.9,
            show_default=True,
            help="The least cosine.",
        ),
        click.argument("index", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command()
@_join_command
@spark_options
def duplicates(
    index: Path, threshold: float, format: str, engine: str, master: str | None, spark_conf: dict[str, str]
) -> None:
    """List all pairs of sentences in INDEX whose cosine is at least --threshold; exact, as they are found.

    With --engine spark, every two shards of a collection are compared by a task of their own.
    """
    from sparse_sts_index.index import SparseStsIndex

    count = 0
    with ExitStack() as stack:
        spark = stack.enter_context(engine_session(engine, master, spark_conf))
        if spark is not None:
            from sparse_sts_index.spark import queries

            pairs = queries.duplicates(spark, index, threshold)
        else:
            opened = stack.enter_context(SparseStsIndex.open(index))
            progress = stack.enter_context(progress_bar(len(opened), "comparing"))
            pairs = opened.duplicates(threshold, progress=progress)
        for pair in pairs:
            count += 1
            first, second = pair.first, pair.second
            if format == "jsonl":
                line = {"first": first.id, "second": second.id, "cosine": pair.cosine}
                line |= {"first_text": first.text, "second_text": second.text}
                click.echo(json_line(line))
            else:
                texts = f"{one_line(first.text)}  |  {one_line(second.text)}"
                click.echo(f"{pair.cosine:.4f}  {one_line(first.id)}  {one_line(second.id)}  {texts}")
    if format == "table":
        click.echo(f"{count:,} pairs")


@click.command()
@_join_command
def cluster(index: Path, threshold: float, format: str) -> None:
    """Group the sentences in INDEX that hang together by pairs whose cosine is at least --threshold.

    The largest group comes first. A sentence is in a group if it is similar to any one of it.
    """
    from sparse_sts_index.index import SparseStsIndex

    count = sentences = 0
    with SparseStsIndex.open(index) as opened, progress_bar(len(opened), "comparing") as progress:
        for count, members in enumerate(opened.clusters(threshold, progress=progress), 1):
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
