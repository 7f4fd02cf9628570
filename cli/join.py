"""``sparse-sts join``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.storage.layout import is_index

from .defaults import chosen_model
from .options import Real, Whole, model_option, precision_option, reading_options
from .output import ScriptCheck, examined, show_pair
from .progress import progress_bar

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.vectors.spec import Precision

_THRESHOLD = 0.9


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--threshold", type=Real(0, 1, min_open=True), help="The least cosine. [default: 0.9; with -k: any]")
@click.option("-k", type=Whole(min=1), help="List each sentence of A with its K nearest of B.")
@click.option("--format", type=click.Choice(["table", "jsonl"]), default="table", show_default=True)
@model_option("that of an index among both, else as for sparse-sts index")
@precision_option("that of an index among both, else auto")
@reading_options("--input-format")
def join(
    first: str,
    second: str,
    threshold: float | None,
    k: int | None,
    format: str,
    model: str | None,
    precision: Precision | None,
    reading: FileOptions,
) -> None:
    """List the pairs of a sentence of A and one of B whose cosine is at least --threshold; exact, as they are found.

    Such as the sentences of a test set that are in a training set, or new tickets that are old ones. A and B are
    indexes, or files that sparse-sts index takes; files are indexed first, for this once.
    """
    from sparse_sts_index.index import SparseStsIndex

    paths = [Path(first), Path(second)]
    totals = {side: examined(str(path), reading)[0] for side, path in enumerate(paths) if not is_index(path)}
    with ExitStack() as stack:
        opened = {
            side: stack.enter_context(SparseStsIndex.open(path, model, precision=precision))
            for side, path in enumerate(paths)
            if side not in totals
        }
        if totals:
            encoder = next(iter(opened.values())).encoder if opened else _loaded(model, precision)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparse-sts-")))
            for side, total in totals.items():
                built = _built(folder / str(side), paths[side], reading, encoder, total)
                opened[side] = stack.enter_context(built)
        here, there = opened[0], opened[1]
        count, progress = 0, stack.enter_context(progress_bar(len(here), "comparing"))
        if k is None:
            pairs = here.join(there, threshold or _THRESHOLD, progress=progress)
        else:
            pairs = here.join_nearest(there, k, min_cosine=threshold or 0.0, progress=progress)
        for count, pair in enumerate(pairs, 1):  # noqa: B007
            show_pair(pair, format)
    if format == "table":
        click.echo(f"{count:,} pairs")


def _loaded(model: str | None, precision: Precision | None) -> SparseStsEncoder:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

    return SparseStsEncoder.load(chosen_model(model), precision=precision or "auto")


def _built(
    folder: Path, path: Path, reading: FileOptions, encoder: SparseStsEncoder, total: int | None
) -> SparseStsIndex:
    from sparse_sts_index.index import SparseStsIndex

    scripts = ScriptCheck(encoder.vocabulary)
    documents = scripts.pass_through(read_corpus(str(path), **reading))
    with progress_bar(total, f"indexing {path.name}") as progress:
        built = SparseStsIndex.build(folder, documents, encoder, progress=progress)
    scripts.warn(f"sentences of {path.name}")
    return built
