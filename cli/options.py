"""Options that several commands share, and how they show things."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from sparse_sts_index._utils.hub import DEFAULT_DATASET
from sparse_sts_index.data.documents import count_documents
from sparse_sts_index.data.records import FORMATS, STDIN
from sparse_sts_index.data.sample import SAMPLE
from sparse_sts_index.vectors.explanations import TermContribution
from sparse_sts_index.vectors.spec import PRECISIONS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparse_sts_index.engines.base import Busy

#: Control characters (ANSI escapes among them) and line ends, which would break a table or drive the terminal, and what
#: overrides the direction of text, which would show a row in another order than it has.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
#: Controls that JSON may hold as they are, and a terminal obeys.
_C1 = re.compile(r"[\x7f-\x9f]")

Command = Callable[..., Any]


def model_option(required: bool = True, more: str = "") -> Callable[[Command], Command]:
    """``--model``."""
    return click.option(
        "--model",
        required=required,
        envvar="SPARSE_STS_MODEL" if required else None,  # where an index knows its model, that one is the default
        show_envvar=required,
        metavar="MODEL",
        help=f"A model folder, the id of a SPLADE model on the hub, or 'tiny'.{more}",
    )


def precision_option(default: str | None = None) -> Callable[[Command], Command]:
    """``--precision``; where it depends on an index, `default` says so."""
    return click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=None if default else "auto",
        show_default=default is None,
        help="What the model's layers compute in; auto: bfloat16 where the processor has it, else float32."
        + (f" [default: {default}]" if default else ""),
    )


dataset_option = click.option(
    "--dataset",
    default=DEFAULT_DATASET,
    show_default=True,
    metavar="PAIRS",
    help="A csv, tsv, jsonl or parquet file, a folder with a file for each split, a hub data set, or 'sample'.",
)


def split_option(default: str) -> Callable[[Command], Command]:
    """``--split``."""
    return click.option(
        "--split",
        type=click.Choice(["train", "dev", "validation", "test"]),
        default=default,
        show_default=True,
        help="A single file is one split and is read whole.",
    )


score_range_option = click.option(
    "--score-range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Scale of the scores in the data, such as 0 5. A score outside it is an error. [default: 0 1]",
)
bits_option = click.option(
    "--bits", type=click.IntRange(2, 16), default=8, show_default=True, help="Bits of the largest impact."
)
max_active_dims_option = click.option(
    "--max-active-dims",
    type=click.IntRange(min=1),
    help="Keep this many terms of a sentence, those of most weight. [default: as the model says, mostly all]",
)
explain_option = click.option("--explain", is_flag=True, help="Show the shared terms and what each adds to the cosine.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")


_SETTING = re.compile(r"(spark\.[^=\s]+)=(.*)", re.DOTALL)


def _spark_settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for value in values:
        if (match := _SETTING.fullmatch(value)) is None:
            raise click.BadParameter(f"{value!r} is not of the form spark.NAME=VALUE")
        settings[match[1]] = match[2]
    return settings


def spark_options(command: Command) -> Command:
    """``--engine``, ``--master`` and ``--spark-conf``; see :func:`engine_session`."""
    for option in (
        click.option(
            "--spark-conf",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_spark_settings,
            help="A setting of Spark, such as spark.executor.memory=8g. May be repeated.",
        ),
        click.option(
            "--master", metavar="URL", help="Where Spark runs: spark://..., yarn, k8s://... [default: local[*]]"
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "spark"]),
            default="local",
            show_default=True,
            help="Do it in this process, or as tasks of Spark.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def engine_session(engine: str, master: str | None, settings: dict[str, str]) -> Iterator[SparkSession | None]:
    """A session of Spark, if that is the engine."""
    if engine != "spark":
        if master is not None or settings:
            raise click.UsageError("--master and --spark-conf need --engine spark.")
        yield None
        return
    from sparse_sts_index.spark.session import spark_session

    with spark_session(master or "local[*]", settings) as spark:
        yield spark


token_option = click.option(
    "--token", envvar="SPARSE_STS_TOKEN", show_envvar=True, help="The engine's API key or token; the variable hides it."
)


def url_option(required: bool) -> Callable[[Command], Command]:
    """``--url``."""
    return click.option(
        "--url",
        required=required,
        metavar="URL",
        help="A collection in a serving engine: ENGINE+http://HOST:PORT/NAME, ENGINE+https://..., or "
        "ENGINE+file:PATH/NAME for Milvus Lite and Qdrant's local mode.",
    )


def corpus_format_option(name: str) -> Callable[[Command], Command]:
    """The format of an input file that its suffix does not tell."""
    return click.option(
        name,
        type=click.Choice(FORMATS),
        help="Format of the input. [default: by its suffix; standard input: jsonl if it begins with '{', else txt]",
    )


def known_total(corpus: str, format: str | None) -> int | None:
    """Read a corpus for its errors and its size before any work is done on it, if it can be read twice."""
    once = corpus == STDIN or (corpus != SAMPLE and (Path(corpus).is_fifo() or Path(corpus).is_char_device()))
    return None if once else count_documents(corpus, format)


@contextmanager
def progress_bar(total: int | None, what: str) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr, if that is a terminal."""
    with tqdm(total=total, unit=" sentences", desc=what, disable=None, smoothing=0.05) as bar:
        yield lambda count: bar.update(count) and None


def show_wait(busy: Busy, seconds: float) -> None:
    """Say on stderr, above the bar if there is one, that a serving engine is waited for."""
    tqdm.write(one_line(f"{busy}: again in {seconds:.1f} s"), file=sys.stderr)


def one_line(text: str) -> str:
    """Text that is safe to print within a line."""
    return _CONTROL.sub(" ", text)


def json_line(value: object) -> str:
    """JSON that is text to every reader, and no orders to a terminal."""
    return _C1.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def show_terms(explanation: tuple[TermContribution, ...], score: float, indent: str) -> None:
    """Print shared terms as a table; the contributions sum to the score."""
    if not explanation:
        click.echo(f"{indent}(no shared term)")
        return
    width = max(len(one_line(term.term)) for term in explanation)
    click.echo(f"{indent}{'term':<{width}}  {'query':>6}  {'doc':>6}  {'adds':>7}")
    for term in explanation:
        click.echo(
            f"{indent}{one_line(term.term):<{width}}  {term.query_weight:6.3f}  {term.document_weight:6.3f}"
            f"  {term.contribution:7.4f}"
        )
    click.echo(f"{indent}{'sum':<{width}}  {'':>6}  {'':>6}  {score:7.4f}")
