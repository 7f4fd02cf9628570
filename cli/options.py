"""Options that several commands share."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparse_sts_index._utils.hub import DEFAULT_DATASET
from sparse_sts_index._utils.numbers import LARGEST
from sparse_sts_index.data.documents import DOCUMENT_COLUMNS
from sparse_sts_index.data.fields import FIELD_TYPES, Field, parse_fields
from sparse_sts_index.data.filters import parse_filter
from sparse_sts_index.data.reading import FORMATS, TableOptions
from sparse_sts_index.vectors.spec import PRECISIONS

from .defaults import BOXED_MODEL, MODEL_VARIABLE, TRAINED_MODEL

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    _Size = click.ParamType[int]
else:
    _Size = click.ParamType  # which is not generic before click 8.4

Command = Callable[..., Any]


class Real(click.FloatRange):
    """A finite number in a range: nan is in none, and yet passes a comparison."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Whole(click.IntRange):
    """A whole number in a range, and small enough for Java and torch."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if self.max is None and number > LARGEST:
            self.fail(f"{value} is more than {LARGEST}.", param, ctx)
        return number


class Bytes(_Size):
    """A number of bytes, with a unit or without one."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(
            r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([KMGT])(?:i?B)?|B)?", value.strip(), re.ASCII | re.IGNORECASE
        )
        if match is None:
            self.fail(f"{value!r} is not a size such as 2GiB or 512MiB.", param, ctx)
        return int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))


memory_option = click.option(
    "--memory",
    type=Bytes(),
    help="Memory for the index: one that fits answers some ten times as fast, after 100 queries at most. 0: none. "
    "[default: 1GiB]",
)


def model_option(default: str | None = None) -> Callable[[Command], Command]:
    """``--model``; where an index knows its model, `default` says so. Else see :func:`.defaults.chosen_model`."""
    return click.option(
        "--model",
        metavar="MODEL",
        help="A model folder, the id of a SPLADE model on the hub, 'mini' or 'tiny'. "
        f"[default: {default or f'{MODEL_VARIABLE}, else {TRAINED_MODEL} in this folder, else {BOXED_MODEL}'}]",
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
    type=(Real(), Real()),
    metavar="LOW HIGH",
    help="Scale of the scores in the data, such as 0 5. A score outside it is an error. [default: 0 1]",
)
bits_option = click.option(
    "--bits", type=Whole(2, 16), default=8, show_default=True, help="Bits of the largest impact."
)
max_active_dims_option = click.option(
    "--max-active-dims",
    type=Whole(min=1),
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


def url_option(required: bool, service: str = "") -> Callable[[Command], Command]:
    """``--url``; `service` is the help of a command that takes the URL of a service, too."""
    return click.option(
        "--url",
        required=required,
        metavar="URL",
        help=f"{service}A collection in a serving engine: ENGINE+http://HOST:PORT/NAME, ENGINE+https://..., or "
        "ENGINE+file:PATH/NAME for Milvus Lite and Qdrant's local mode.",
    )


def _parse_columns(_: click.Context, __: click.Parameter, value: Any) -> Any:
    return tuple(map(_columns, value)) if isinstance(value, tuple) else None if value is None else _columns(value)


def _columns(value: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for part in re.split(r",\s*(?=\w+\s*=)", value):
        role, equals, name = (word.strip() for word in part.partition("="))
        if not equals or role in columns:
            raise click.BadParameter(f"{value!r} is not of the form id=COLUMN,text=COLUMN")
        columns[role] = name
    return columns


_EACH = "; once for all, or once for each --dataset"


def columns_option(roles: str, multiple: bool = False) -> Callable[[Command], Command]:
    """``--columns``."""
    return click.option(
        "--columns",
        multiple=multiple,
        metavar="ROLE=COLUMN,...",
        callback=_parse_columns,
        help=f"Names of the columns for {roles}, or their numbers in a file without a header"
        f"{_EACH if multiple else ''}.",
    )


def delimiter_option(multiple: bool = False) -> Callable[[Command], Command]:
    """``--delimiter``."""
    return click.option(
        "--delimiter",
        multiple=multiple,
        metavar="CHARACTER",
        help="Separator of the columns of a text file: tab, comma, semicolon, pipe, space or a character"
        f"{_EACH if multiple else ''}.",
    )


def reading_options(
    format_option: str | None = None, roles: str = "id, text and title (id=#: number the rows)"
) -> Callable[[Command], Command]:
    """``--columns``, ``--delimiter`` and an option for the format, given to the command as one dict, `reading`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*arguments: Any, columns: Any, delimiter: Any, **options: Any) -> Any:
            reading = {"columns": columns, "delimiter": delimiter}
            if format_option is not None:
                reading["format"] = options.pop("input_format")
            return command(*arguments, reading=reading, **options)

        decorated = columns_option(roles)(delimiter_option()(wrapped))
        if format_option is None:
            return decorated
        return click.option(
            format_option,
            "input_format",
            type=click.Choice(FORMATS),
            help="Format of the input. [default: by its suffix; standard input: jsonl if it begins with '{', else txt]",
        )(decorated)

    return decorate


def _parse_fields(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Field, ...]:
    return () if value is None else parse_fields(value)


fields_option = click.option(
    "--fields",
    metavar="NAME[=COLUMN][:TYPE],...",
    callback=_parse_fields,
    help=f"Other columns to keep, to show and to filter by. TYPE: {', '.join(FIELD_TYPES)} [default: by the values].",
)
all_fields_option = click.option("--all-fields", is_flag=True, help="Keep all other columns that have values.")


def _check_where(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> str | None:
    for value in values:
        parse_filter(value)  # refused at once; whoever has the fields reads it again
    return f"({') and ('.join(values)})" if len(values) > 1 else values[0] if values else None


where_option = click.option(
    "--where",
    metavar="FILTER",
    multiple=True,
    callback=_check_where,
    help='Look only among the sentences whose fields pass, such as: product = "router" and created >= 2026-01-01. '
    "Several: all of them.",
)

#: What a reader of pairs takes.
PAIR_ROLES = "sentence1, sentence2 and score"


def split_reading(reading: TableOptions) -> tuple[TableOptions, TableOptions]:
    """Return how to read pairs, and how to read a collection beside them: roles of columns tell which is meant."""
    columns = reading.get("columns") or {}
    of_corpus = {role: name for role, name in columns.items() if role in DOCUMENT_COLUMNS.roles}
    of_pairs = {role: name for role, name in columns.items() if role not in of_corpus}
    return {**reading, "columns": of_pairs}, {"columns": of_corpus}


pairs_reading_options = reading_options(roles=PAIR_ROLES)

index_argument = click.argument("index", type=click.Path(path_type=Path))
#: For commands that change nothing; see :func:`.defaults.chosen_index`.
optional_index_argument = click.argument("index", required=False, type=click.Path(path_type=Path))


def documents_command(command: Command) -> Command:
    """INDEX, CORPUS, how to read it, and ``--model``: for a command that encodes documents into an index."""
    command = model_option("the one the index was built with")(command)
    return index_argument(click.argument("corpus")(fields_option(reading_options("--format")(command))))


def join_command(command: Command) -> Command:
    """INDEX, ``--threshold`` and ``--format``: the options of a command that compares all sentences of an index."""
    for option in (
        click.option("--format", type=click.Choice(["table", "jsonl"]), default="table", show_default=True),
        click.option(
            "--threshold",
            type=Real(0, 1, min_open=True),
            default=0.9,
            show_default=True,
            help="The least cosine.",
        ),
        where_option,
        optional_index_argument,
    ):
        command = option(command)
    return command


sentences_option = click.option("--corpus", help="Sentences to index and search. [default: those of the pairs]")
tolerance_option = click.option(
    "--tolerance",
    type=Real(0, 1),
    default=0.005,
    show_default=True,
    help="What Spearman's rho may lose for a smaller index.",
)
