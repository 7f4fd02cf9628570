"""``sparse-sts duplicates``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from .defaults import chosen_index
from .options import engine_session, join_command, spark_options
from .output import show_pair
from .progress import progress_bar


@click.command()
@join_command
@spark_options
def duplicates(
    index: Path | None,
    threshold: float,
    where: str | None,
    format: str,
    engine: str,
    master: str | None,
    spark_conf: dict[str, str],
) -> None:
    """List all pairs of sentences in INDEX whose cosine is at least --threshold; exact, as they are found.

    With --engine spark, every two shards of a collection are compared by a task of their own.
    """
    from sparse_sts_index.index import SparseStsIndex

    count, index = 0, chosen_index(index)
    with ExitStack() as stack:
        spark = stack.enter_context(engine_session(engine, master, spark_conf))
        if spark is not None:
            from sparse_sts_index.spark import queries

            pairs = queries.duplicates(spark, index, threshold, where=where)
        else:
            opened = stack.enter_context(SparseStsIndex.open(index))
            progress = stack.enter_context(progress_bar(len(opened), "comparing"))
            pairs = opened.duplicates(threshold, where=where, progress=progress)
        for pair in pairs:
            count += 1
            show_pair(pair, format)
    if format == "table":
        click.echo(f"{count:,} pairs")
