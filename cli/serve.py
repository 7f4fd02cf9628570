"""``sparse-sts serve``."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TextIO

import click

from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_index
from .options import Real, Whole, memory_option, model_option, optional_index_argument, precision_option


@click.command(context_settings={"show_default": True})
@optional_index_argument
@model_option("the one the index was built with")
@precision_option("as the documents of the index")
@memory_option
@click.option("--host", default="127.0.0.1", help="Beyond the loopback a token is needed.")
@click.option("--port", type=Whole(0, 65535), default=8080, help="0: any that is free.")
@click.option("--workers", type=Whole(min=1), default=1, help="Processes that serve; each holds all in memory.")
@click.option("--writable", is_flag=True, help="Let documents be added, updated and deleted.")
@click.option(
    "--token-file", type=click.File(encoding="utf-8-sig"), help="A file with the token that requests must bring."
)
@click.option("--max-batch", type=Whole(min=1), default=64, help="Sentences encoded together, at most.")
@click.option("--max-queue", type=Whole(min=1), default=256, help="Sentences that may wait; then 429.")
@click.option("--max-body", type=Whole(min=1024), default=1 << 20, help="Bytes of a request.")
@click.option("--timeout", type=Real(0.1, 3600), default=30.0, help="Seconds for a request.")
@click.option("--refresh", type=Real(0, 86_400), default=5.0, help="Seconds from look to look for changes.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def serve(
    index: Path | None,
    model: str | None,
    precision: Precision | None,
    memory: int | None,
    host: str,
    port: int,
    workers: int,
    writable: bool,
    token_file: TextIO | None,
    max_batch: int,
    max_queue: int,
    max_body: int,
    timeout: float,
    refresh: float,
    log_level: str,
) -> None:
    """Serve INDEX over HTTP, with a page to search, compare and explain at /.

    The interface is described at /openapi.json. A token may also be given as SPARSE_STS_TOKEN. Standard error gets a
    line of JSON for each request. SIGTERM and Ctrl-C end it once it has finished what it took.
    """
    from sparse_sts_index.server.run import check_extra, serve
    from sparse_sts_index.server.settings import TOKEN_VARIABLE, ServerSettings

    if writable and workers > 1:
        raise click.UsageError("one process at a time may change an index: --writable takes --workers 1")
    check_extra()
    index = chosen_index(index)
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token_file is not None:
        try:
            token = token_file.read().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{token_file.name}: not a text") from error
    settings = ServerSettings(
        host=host,
        port=port,
        token=token,
        writable=writable,
        max_batch=max_batch,
        max_queue=max_queue,
        max_body=max_body,
        timeout=timeout,
        refresh=refresh,
    )
    from sparse_sts_index.index import SparseStsIndex

    open_index = functools.partial(
        SparseStsIndex.open, index, model, precision=precision, writable=writable, memory=memory
    )
    if workers == 1:
        serve(open_index(), settings, level=log_level)
    else:
        from sparse_sts_index.server.workers import serve_workers

        serve_workers(open_index, settings, workers, level=log_level)
