"""``sparse-sts push``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Whole, overwrite_option, token_option, url_option
from .output import show_wait
from .progress import progress_bar


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@url_option(required=True)
@click.option("--batch-size", type=Whole(min=1), default=500, show_default=True, help="Sentences a request.")
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Keep in this file how far it is; a killed push goes on there."
)
@overwrite_option
@token_option
def push(index: Path, url: str, batch_size: int, journal: Path | None, overwrite: bool, token: str | None) -> None:
    """Put the sentences and vectors of INDEX into a serving engine.

    Pushing again changes only what has changed. Sentences that INDEX no longer has stay there unless --overwrite starts
    the collection anew.
    """
    from sparse_sts_index.engines import connect
    from sparse_sts_index.engines.pushing import push as push_source
    from sparse_sts_index.engines.retry import BackOff
    from sparse_sts_index.engines.sources import Source
    from sparse_sts_index.storage.impact_index import ImpactIndex

    source = Source.of_index(ImpactIndex.open(index))
    engine = connect(url, token)
    try:
        with progress_bar(source.documents, "pushing") as progress:
            done = push_source(
                source,
                engine,
                batch_size=batch_size,
                journal=journal,
                overwrite=overwrite,
                progress=progress,
                back_off=BackOff(waiting=show_wait),
            )
    finally:
        engine.close()
    before = f", {done.skipped:,} before" if done.skipped else ""
    empty = f", {done.empty:,} without a term left out" if done.empty else ""
    click.echo(
        f"{engine.target}: {done.documents:,} sentences{before}{empty} in {done.seconds:.1f} s; {engine.precision()}"
    )
