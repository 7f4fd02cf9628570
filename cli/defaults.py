"""Defaults of the commands: a model, an index, an output. Each one taken is said on stderr."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from sparse_sts_index._utils.hub import DEFAULT_DATASET
from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.reading import STDIN
from sparse_sts_index.encoding.bundled import MINI, holds_model, splade_path
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.layout import is_index

from .output import one_line

#: Where ``sparse-sts train`` saves a model of the default data set, and other commands look for one.
TRAINED_MODEL = "sts-model"
#: The variable that names a model.
MODEL_VARIABLE = "SPARSE_STS_MODEL"
#: The model that comes with the package.
BOXED_MODEL = MINI


def _say(what: str, value: object, why: str, option: str) -> None:
    click.echo(one_line(f"{what}: {value}, {why}; choose another with {option}"), err=True)


def chosen_model(model: str | None, *, quietly: bool = False) -> str:
    """Return the model of ``--model`` or the environment, else the one trained here, else the one in the box."""
    if model is None:
        model = os.environ.get(MODEL_VARIABLE) or None
    if model is not None:
        splade_path(model)  # refuses at once what cannot be one
        return model
    model, why = BOXED_MODEL, "the one in the box"
    if holds_model(Path(TRAINED_MODEL)):
        model, why = TRAINED_MODEL, "the one trained in this folder"
    if not quietly:
        _say("model", model, why, "--model")
    splade_path(model)
    return model


def is_many(source: str) -> bool:
    """Return whether a source is many files or a URL, which Spark reads."""
    return re.search(r"://|[*?\[]", source) is not None and not Path(source).exists()


def chosen_output(output: Path | None, source: str) -> Path:
    """Return the folder of ``--output``, else one beside the corpus with its name."""
    if output is not None:
        return output
    file = Path(source)
    if is_many(source):
        raise click.UsageError(f"{source} names many files or a URL: give the folder for the index with --output.")
    stream = source == STDIN or file.is_fifo() or source.startswith(("/dev/", "/proc/"))
    output = Path("stdin-index") if stream else _named_after(file, "index")
    _say("output", output, "named after the corpus", "--output")
    return output


def chosen_model_output(output: Path | None, dataset: str) -> Path:
    """Return the folder of ``--output``, else ``sts-model``, or for a data set of one's own ``PAIRS-model``."""
    if output is not None:
        return output
    if dataset == DEFAULT_DATASET:
        output, why = Path(TRAINED_MODEL), "the default"
    else:
        output, why = Path(_named_after(Path(dataset), "model").name), "named after the data set"
    _say("output", output, why, "--output")
    return output


def _named_after(path: Path, kind: str) -> Path:
    stem = re.sub(r"(\.[^.]+)?(\.gz)?$", "", path.name) if path.suffix else path.resolve().name
    return path.parent / f"{stem}-{kind}"


def names_index(argument: str, alone: bool) -> bool:
    """Return whether a first argument is meant as an index, and not as a text.

    Parameters
    ----------
    argument : str
    alone : bool
        No text and no query comes after it: a single word may be a text then, unless it begins as a path does.
    """
    try:
        if is_index(Path(argument)):
            return argument != ""
    except (OSError, ValueError):  # longer than the name of a file, or holds what none does
        return False
    return argument.split() == [argument] and (not alone or argument.startswith(("/", "./", "../", "~")))


def _is_readable_index(path: Path) -> bool:
    try:
        return is_index(path)
    except OSError:  # a folder of somebody else
        return False


def chosen_index(index: Path | None, instead_of: str | None = None) -> Path:
    """Return the index given, else the only one in this folder.

    Parameters
    ----------
    index : Path, optional
    instead_of : str, optional
        An argument that was taken for a text, and may have been meant as an index.

    Raises
    ------
    ImpactIndexError
        This folder has no index, or several.
    """
    if index is not None:
        return index
    here = sorted(path for path in Path().iterdir() if _is_readable_index(path))
    if len(here) != 1:
        names = ", ".join(str(path) for path in here)
        found = (
            f"has several indexes ({names}); name one" if here else "has no index; sparse-sts index CORPUS builds one"
        )
        first = f"no index at {printable(instead_of, 60)}, and " if instead_of else ""
        raise ImpactIndexError(f"{first}this folder {found}")
    click.echo(one_line(f"index: {here[0]}, the one in this folder"), err=True)
    return here[0]
