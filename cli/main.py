"""The ``sparse-sts`` group: quiet libraries, one-line errors."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sparse_sts_index.data.sample import SAMPLE
from sparse_sts_index.encoding.bundled import MINILM, NAMES, bundled_folder
from sparse_sts_index.errors import HubUnreachableError, ModelError, SparseStsError

from .add import add
from .bench import bench
from .calibrate import calibrate
from .cluster import cluster
from .compact import compact
from .dedupe import dedupe
from .defaults import BOXED_MODEL
from .delete import delete
from .demo import demo
from .doctor import doctor
from .duplicates import duplicates
from .evaluate import evaluate
from .export import export
from .grow import grow
from .index import index
from .join import join
from .merge import merge
from .output import one_line
from .push import push
from .relocate import relocate
from .score import score
from .search import search
from .serve import serve
from .tradeoff import tradeoff
from .train import train
from .update import update
from .upgrade import upgrade
from .verify import verify

#: Where a context keeps the command line.
_ARGUMENTS = "sparse-sts.arguments"


class OneLineErrors(click.Group):
    """Shows whatever a user can cause as one line, and exits with 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them for messages."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the class."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.ctx is None or error.ctx.info_name not in ("search", "score", "delete"):
                raise
            hint = "A text or id that begins with a dash needs -- before it."
            raise click.UsageError(f"{error.format_message()} {hint}", error.ctx) from error
        except HubUnreachableError as error:
            offline = _offline_command(ctx.meta[_ARGUMENTS], self.commands)
            more = f"; this works offline: {offline}" if offline else ""
            raise click.ClickException(one_line(" ".join(str(error).split()) + more)) from error
        except SparseStsError as error:
            raise click.ClickException(one_line(" ".join(str(error).split()))) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(one_line(f"{where}{error.strerror or error}")) from error


_MODEL_OPTIONS = ("--model", "--base-model", "--against", "--teacher", "--dense", "--encoder")


def _offline_command(arguments: list[str], commands: Mapping[str, click.Command]) -> str:
    """Return the command line with what comes with the package in place of defaults from the hub; mostly nothing."""
    command = next((commands[word] for word in arguments if word in commands), None)
    options = {option for param in command.params for option in param.opts} if command else set()
    values = dict(itertools.pairwise(arguments)) | dict(word.split("=", 1) for word in arguments if "=" in word)
    models = [values[option] for option in _MODEL_OPTIONS if option in values]
    if any(model not in (*NAMES, "none") and not Path(model).is_dir() for model in models):
        return ""
    given = {word.partition("=")[0] for word in arguments}
    more: list[str] = []
    if "--base-model" in options - given:
        more += ["--base-model", BOXED_MODEL]
        if not given & {"--recipe", "--teacher"} and not _has_teacher():
            more += ["--recipe", "sts"]
    if "--dataset" in options - given:
        more += ["--dataset", SAMPLE]
    return shlex.join(["sparse-sts", *arguments, *more]) if more else ""


def _has_teacher() -> bool:
    try:
        return bundled_folder(MINILM) is not None
    except ModelError:
        return False


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Let the libraries underneath say what they have to say.")
@click.version_option(package_name="sparse-sts-index", prog_name="sparse-sts")
def main(verbose: bool) -> None:
    """Semantic-similarity search over sentences: a SPLADE encoder in a Lucene impact index."""
    if not verbose:
        for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
        logging.getLogger().setLevel(logging.ERROR)
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        for client in ("elastic_transport", "milvus_lite", "opensearch", "pysolr"):  # what they raise is shown
            logging.getLogger(client).setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")


for command in (
    *(
        grow,
        train,
        index,
        search,
        serve,
        score,
        evaluate,
        bench,
        tradeoff,
        calibrate,
        duplicates,
        cluster,
        join,
        dedupe,
    ),
    *(add, update, delete, compact, merge, upgrade, relocate, verify, export, push, demo, doctor),
):
    main.add_command(command)
