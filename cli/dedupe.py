"""``sparse-sts dedupe``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from sparse_sts_index._utils.files import atomic_writer, refuse_unwritable
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.data.row_file import RowFile
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
        refuse_unwritable(removed)
        if removed.resolve() == output.resolve() or (removed.exists() and removed.samefile(rows.path)):
            raise DataError(f"{removed} is the input or the output; write the rows that go to a file of their own")
    preference = rows.preference()

    from sparse_sts_index.deduplication import deduplicate
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

    encoder = SparseStsEncoder.load(chosen_model(model), precision=precision, max_active_dims=max_active_dims)
    scripts = ScriptCheck(encoder.vocabulary)
    with progress_bar(len(rows), "encoding") as progress:
        texts = scripts.counted(rows.texts())
        found = deduplicate(texts, encoder, threshold, preference=preference, progress=progress)
    rows.copy(output, found.stays)
    if removed is not None:
        _write_removed(removed, rows, found)

    gone, same = np.count_nonzero(~found.stays), np.count_nonzero(found.same)
    click.echo(
        f"{corpus}: {len(rows):,} sentences, {len(rows) - gone:,} kept, {gone:,} removed: {same:,} with the text of "
        f"one kept, {gone - same:,} with a cosine of at least {threshold:g} to one"
    )
    groups, nearest = found.largest(_SHOWN), found.nearest(_SHOWN)
    shown = rows.rows({*groups, *nearest, *found.standing[nearest].tolist()})
    if groups:
        click.echo("the largest groups:")
    for place, size in groups.items():
        click.echo(f"  {size:6,}  {rows.unit} {shown[place].number}  {one_line(shown[place].text)}")
    if nearest:
        click.echo("the nearest to the threshold, each above the one kept:")
    for place in nearest:
        for begin, row in ((f"{found.cosines[place]:.4f}", place), ("", int(found.standing[place]))):
            click.echo(f"  {begin:6}  {rows.unit} {shown[row].number}  {one_line(shown[row].text)}")
    click.echo(f"{output}: {len(rows) - gone:,} sentences")
    scripts.warn("sentences")


def _write_removed(path: Path, rows: RowFile, found: Deduplication) -> None:
    stays, same = found.stays, found.same
    kept = rows.rows(set(found.standing[~stays].tolist()))
    with atomic_writer(path) as file:
        for place, row in enumerate(rows):
            if not stays[place]:
                one = kept[int(found.standing[place])]
                line: dict[str, object] = {"row": row.number, "id": row.id, "text": row.text}
                line |= {"cosine": float(found.cosines[place]), "same_text": bool(same[place])}
                line |= {"kept_row": one.number, "kept_id": one.id, "kept_text": one.text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
