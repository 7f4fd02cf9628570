"""``sparse-sts dedupe``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from sparse_sts_index._utils.files import atomic_writer
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.data.row_file import Row, RowFile
from sparse_sts_index.errors import DataError

from .defaults import chosen_model
from .options import Real, max_active_dims_option, model_option, precision_option, reading_options
from .output import ScriptCheck, one_line
from .progress import progress_bar

if TYPE_CHECKING:
    from sparse_sts_index.deduplication import Deduplication
    from sparse_sts_index.vectors.spec import Precision

_SHOWN = 5  # groups, and pairs


@click.command()
@click.argument("corpus")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="File for the rows that stay.")
@click.option(
    "--threshold", type=Real(0, 1, min_open=True), default=0.95, show_default=True, help="Cosine of a duplicate."
)
@click.option(
    "--keep",
    default="first",
    show_default=True,
    metavar="first|longest|COLUMN",
    help="The row that stays of similar ones: the first, the longest, or that of the greatest number or latest date.",
)
@click.option("--removed", type=click.Path(path_type=Path), help="File for the rows that go, each with why (jsonl).")
@model_option()
@precision_option()
@max_active_dims_option
@reading_options("--format")
def dedupe(
    corpus: str,
    reading: FileOptions,
    output: Path,
    threshold: float,
    keep: str,
    removed: Path | None,
    model: str | None,
    precision: Precision,
    max_active_dims: int | None,
) -> None:
    """Copy CORPUS without its duplicates: of sentences that say the same, one row stays, as it is to the byte.

    CORPUS is a jsonl, csv, tsv, txt or parquet file, or 'sample'. Texts that are the same but for white space are found
    first, then those whose cosine is at least --threshold, exactly: no two rows that stay have it, and each that goes
    has it with one that stays.
    """
    rows = RowFile(corpus, keep, **reading)
    rows.check_target(output)
    if removed is not None:
        if removed.resolve() in (output.resolve(), rows.path.resolve()):
            raise DataError(f"{removed} is the input or the output; write the rows that go to a file of their own")
        if removed.is_dir():
            raise DataError(f"{removed} is a folder")
    preference = rows.preference()

    from sparse_sts_index.deduplication import deduplicate
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

    encoder = SparseStsEncoder.load(chosen_model(model), precision=precision, max_active_dims=max_active_dims)
    scripts = ScriptCheck(encoder.vocabulary)
    with progress_bar(len(rows), "encoding") as progress:
        texts = scripts.counted(rows.texts())
        found = deduplicate(texts, encoder, threshold, preference=preference, progress=progress)
    goes = np.flatnonzero(~found.stays)
    groups, nearest = found.largest(_SHOWN), found.nearest(_SHOWN)
    if removed is None:
        shown = rows.rows({*groups, *nearest, *found.standing[nearest].tolist()})
    else:
        shown = rows.rows({*goes.tolist(), *found.standing[goes].tolist()})
        _write_removed(removed, shown, found)
    rows.copy(output, found.stays)

    same = np.count_nonzero(found.same)
    click.echo(
        f"{corpus}: {len(rows):,} sentences, {len(rows) - len(goes):,} kept, {len(goes):,} removed: {same:,} with the "
        f"text of one kept, {len(goes) - same:,} with a cosine of at least {threshold:g} to one"
    )
    if groups:
        click.echo("the largest groups:")
    for place, size in groups.items():
        click.echo(f"  {size:6,}  {rows.unit} {shown[place].number}  {one_line(shown[place].text)}")
    if nearest:
        click.echo("the nearest to the threshold, each above the one kept:")
    for place in nearest:
        for begin, row in ((f"{found.cosines[place]:.4f}", place), ("", int(found.standing[place]))):
            click.echo(f"  {begin:6}  {rows.unit} {shown[row].number}  {one_line(shown[row].text)}")
    click.echo(f"{output}: {len(rows) - len(goes):,} sentences")
    scripts.warn("sentences")


def _write_removed(path: Path, shown: dict[int, Row], found: Deduplication) -> None:
    with atomic_writer(path) as file:
        for place in np.flatnonzero(~found.stays).tolist():
            goes, stays = shown[place], shown[int(found.standing[place])]
            line = {"row": goes.number, "id": goes.id, "text": goes.text, "cosine": float(found.cosines[place])}
            line |= {"same_text": bool(found.same[place])}
            line |= {"kept_row": stays.number, "kept_id": stays.id, "kept_text": stays.text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
