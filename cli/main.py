"""The ``sparse-sts`` group: quiet libraries, one-line errors."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import click

from sparse_sts_index.errors import SparseStsError

from .add import add
from .bench import bench
from .calibrate import calibrate
from .cluster import cluster
from .compact import compact
from .delete import delete
from .demo import demo
from .doctor import doctor
from .duplicates import duplicates
from .evaluate import evaluate
from .export import export
from .grow import grow
from .index import index
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


class OneLineErrors(click.Group):
    """Shows whatever a user can cause as one line, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the class."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            hint = "A text or id that begins with a dash needs -- before it."
            raise click.UsageError(f"{error.format_message()} {hint}", error.ctx) from error
        except SparseStsError as error:
            raise click.ClickException(one_line(" ".join(str(error).split()))) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(one_line(f"{where}{error.strerror or error}")) from error


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
    *(grow, train, index, search, serve, score, evaluate, bench, tradeoff, calibrate, duplicates, cluster),
    *(add, update, delete, compact, merge, upgrade, relocate, verify, export, push, demo, doctor),
):
    main.add_command(command)
