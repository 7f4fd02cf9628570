"""``sparse-sts search``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparse_sts_index.data.documents import QUERY_CHUNK, Document, check_ids, chunks, read_corpus
from sparse_sts_index.data.fields import plain_fields
from sparse_sts_index.data.reading import FileOptions
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.spec import Precision

from .defaults import chosen_index, names_index
from .options import (
    Real,
    Whole,
    engine_session,
    explain_option,
    memory_option,
    model_option,
    precision_option,
    reading_options,
    spark_options,
    token_option,
    url_option,
    where_option,
)
from .output import ScriptCheck, json_line, one_line, show_message, show_terms, show_wait, shown_fields
from .prompt import Settings, on_terminal, prompt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparse_sts_index.engines import RemoteIndex
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.search.certified import Mode
    from sparse_sts_index.search.results import Hits

_RUN_TAG = "sparse-sts"
#: Each query with its hits.
Answers = Iterator[tuple[Document, "Hits"]]


@click.command()
@click.argument("index", required=False)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@url_option(required=False, service="A running sparse-sts serve: http://HOST:PORT. Or: ")
@token_option
@click.option("--queries", help="A file of queries, in any format that a corpus may have, or - for standard input.")
@reading_options("--queries-format")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Hits a query.")
@click.option("--two-step", "mode", flag_value="two-step", help="Look for candidates by the heaviest terms: faster.")
@click.option("--approximate", "mode", flag_value="approximate", help="By fewer terms still: fastest, misses more.")
@where_option
@click.option("--min-cosine", type=Real(0, 1), default=0.0, help="Leave out hits with less.")
@click.option("--group-by", metavar="FIELD", help="Show the nearest sentence of each value of a field.")
@click.option("--offset", type=Whole(min=0), default=0, help="Leave out as many of the nearest: the next page.")
@click.option("--format", type=click.Choice(["table", "jsonl", "trec"]), default="table", show_default=True)
@explain_option
@precision_option("as the documents of the index")
@model_option("the one the index was built with")
@memory_option
@spark_options
def search(
    index: str | None,
    texts: tuple[str, ...],
    url: str | None,
    token: str | None,
    queries: str | None,
    reading: FileOptions,
    k: int,
    mode: Mode | None,
    where: str | None,
    min_cosine: float,
    offset: int,
    group_by: str | None,
    format: str,
    explain: bool,
    precision: Precision | None,
    model: str | None,
    memory: int | None,
    engine: str,
    master: str | None,
    spark_conf: dict[str, str],
) -> None:
    """Find the sentences of INDEX nearest in meaning to each TEXT.

    With --url there is no INDEX: a running "sparse-sts serve" at http://HOST:PORT, or a serving engine's collection, is
    searched, with the same answers.

    INDEX may be left out where this folder has just one. A word without spaces is taken for INDEX where more follows.

    Hits are ranked by float cosine; a model with a calibration gives a score beside it. Unless --two-step or
    --approximate is given, the hits are proved to be the nearest; with --where, of the sentences that pass it.

    Without TEXT and --queries, at a terminal, queries are typed at a prompt, and answered at once: the model is loaded
    before the first. :help there shows the commands.

    With --engine spark, each shard of a collection is searched by a task of its own, for all queries.
    """
    place: Path | None = None
    served = url is not None and url.lower().startswith(("http://", "https://"))
    if url is not None:
        if engine != "local" or (mode is not None and not served):
            raise click.UsageError("--two-step, --approximate and --engine cannot be used with --url of an engine.")
        if served and (model is not None or precision is not None):
            raise click.UsageError("--model and --precision cannot be used with --url of a service, which has its own.")
        if index is not None and texts and Path(index).is_dir():
            raise click.UsageError("INDEX cannot be used with --url.")
        texts = (*filter(None, [index]), *texts)
    elif index is not None and names_index(index, alone=not texts and queries is None):
        place = Path(index)
    else:  # INDEX is left out
        texts = texts if index is None else (index, *texts)
    prompting = url is None and not texts and queries is None and engine == "local" and on_terminal()
    if prompting and format != "table":
        raise click.UsageError(f"The prompt shows tables; --format {format} needs TEXT or --queries.")
    if bool(texts) == bool(queries) and not prompting:
        raise click.UsageError("Give either TEXT or --queries.")
    if any(reading.values()) and queries is None:
        raise click.UsageError("--queries-format, --columns and --delimiter need --queries.")
    if engine == "spark" and (queries is None or precision is not None):
        raise click.UsageError("--engine spark searches for --queries, in the precision of the index.")
    if (offset or group_by) and engine == "spark":
        raise click.UsageError("--offset and --group-by cannot be used with --engine spark.")
    if (min_cosine or offset or group_by) and url is not None and not served:
        raise click.UsageError("--min-cosine, --offset and --group-by are for an index here, or a service.")
    if memory is not None and (url is not None or engine == "spark"):
        raise click.UsageError("--memory cannot be used with --url or --engine spark.")
    if explain and format == "trec":
        raise click.UsageError("A TREC run has no room for --explain.")
    wanted: Iterable[Document] = (
        check_ids(read_corpus(queries, **reading))
        if queries
        else (Document(str(number), text, f"query {number}") for number, text in enumerate(texts, 1))
    )

    mode = mode or "exact"
    if url is None:
        place = chosen_index(place, instead_of=index)
    with engine_session(engine, master, spark_conf) as spark:
        if prompting:
            _prompt(str(place), model, precision, memory, Settings(k, mode, explain, where, min_cosine))
            return
        asked: dict[str, Any] = {"k": k, "explain": explain, "where": where}
        filtered = asked | {"mode": mode, "min_cosine": min_cosine}
        paged = filtered | {"offset": offset, "group_by": group_by}
        if spark is not None:
            results = _by_spark(spark, str(place), wanted, filtered | {"model": model})
        elif served:
            results = _by_service(str(url), token, wanted, paged)
        elif url is not None:
            results = _by_serving_engine(url, token, wanted, model, precision, asked)
        else:
            results = _by_index(str(place), wanted, model, precision, memory, paged)
        some = False
        for query, hits in results:
            some = True
            {"table": _show_table, "jsonl": _show_jsonl, "trec": _show_trec}[format](query, hits, offset)
    if not some:
        raise DataError(f"{queries}: no queries in it")


def _opened(index: str, model: str | None, precision: Precision | None, memory: int | None) -> SparseStsIndex:
    from sparse_sts_index.index import SparseStsIndex

    return SparseStsIndex.open(index, model, precision=precision, memory=memory)


def _prompt(index: str, model: str | None, precision: Precision | None, memory: int | None, settings: Settings) -> None:
    with _opened(index, model, precision, memory) as opened:
        prompt(opened, settings, _show_hits)


def _by_index(
    index: str,
    queries: Iterable[Document],
    model: str | None,
    precision: Precision | None,
    memory: int | None,
    asked: dict[str, Any],
) -> Answers:
    with _opened(index, model, precision, memory) as opened:
        yield from _ask_and_warn(partial(opened.search, **asked), opened, queries)


def _by_serving_engine(
    url: str,
    token: str | None,
    queries: Iterable[Document],
    model: str | None,
    precision: Precision | None,
    asked: dict[str, Any],
) -> Answers:
    from sparse_sts_index.engines import RemoteIndex
    from sparse_sts_index.engines.retry import BackOff

    back_off = BackOff(waiting=show_wait)
    with RemoteIndex.open(url, model, token=token, precision=precision, back_off=back_off) as remote:
        yield from _ask_and_warn(partial(remote.search, **asked), remote, queries)


def _by_service(url: str, token: str | None, queries: Iterable[Document], asked: dict[str, Any]) -> Answers:
    from sparse_sts_index.server import ServedIndex

    served = ServedIndex(url, token, waiting=lambda seconds: show_message(f"{url} is busy: again in {seconds:.1f} s"))
    yield from _ask(partial(served.search, **asked), queries)


def _by_spark(spark: SparkSession, index: str, queries: Iterable[Document], asked: dict[str, Any]) -> Answers:
    from sparse_sts_index.spark import search as search_shards

    together = list(queries)
    yield from zip(together, search_shards(spark, index, together, **asked), strict=True)


def _ask(ask: Callable[[list[str]], list[Hits]], queries: Iterable[Document]) -> Answers:
    for batch in chunks(queries, QUERY_CHUNK):
        yield from zip(batch, ask([query.text for query in batch]), strict=True)


def _ask_and_warn(
    ask: Callable[[list[str]], list[Hits]], index: SparseStsIndex | RemoteIndex, queries: Iterable[Document]
) -> Answers:
    """Answer queries, and warn of those in scripts that the vocabulary has no words in."""
    rest = iter(queries)
    first = list(itertools.islice(rest, 1))  # a file that cannot be read is refused before the model is loaded
    scripts = ScriptCheck(index.encoder.vocabulary)
    yield from _ask(ask, scripts.pass_through(itertools.chain(first, rest)))
    scripts.warn("queries")


def _show_table(query: Document, hits: Hits, offset: int) -> None:
    click.echo(f"query {one_line(query.id)}: {one_line(query.text)}")
    _show_hits(hits, offset)


def _show_hits(hits: Hits, offset: int = 0) -> None:
    if not hits:
        bound = f"found none; there may be some of up to {hits.bound:.4f}"
        alone = hits.bound == 0 and not offset
        none = "no sentence looked at shares a term with it" if alone else "none, with these settings"
        click.echo(f"  {none}" if hits.certified else f"  {bound}")
        return
    width = max(len(one_line(hit.id)) for hit in hits)
    proof = "the nearest of all" if hits.certified else f"others may have up to {hits.bound:.4f}"
    graded = hits[0].score is not None
    click.echo(f"  rank  cosine  {'score  ' if graded else ''}{'id':<{width}}  sentence   ({proof})")
    for rank, hit in enumerate(hits, offset + 1):
        score = "" if hit.score is None else f"{hit.score:5.2f}  "
        click.echo(f"  {rank:>4}  {hit.cosine:.4f}  {score}{one_line(hit.id):<{width}}  {one_line(hit.text)}")
        if hit.fields:
            click.echo(" " * (16 + len(score) + width + 2) + shown_fields(hit.fields))
        if hit.explanation is not None:
            show_terms(hit.explanation, hit.cosine, " " * 16)


def _show_jsonl(query: Document, hits: Hits, offset: int) -> None:
    for rank, hit in enumerate(hits, offset + 1):
        values = {name: value for name, value in dataclasses.asdict(hit).items() if value not in (None, {})}
        if hit.fields:
            values["fields"] = plain_fields(hit.fields)
        line = {
            "query_id": query.id,
            "query": query.text,
            "rank": rank,
            **values,
            "certified": hits.certified,
            "bound": hits.bound,
        }
        click.echo(json_line(line))


def _show_trec(query: Document, hits: Hits, offset: int) -> None:
    for rank, hit in enumerate(hits, offset + 1):
        for value in (query.id, hit.id):
            if len(value.split()) != 1 or value != one_line(value).strip():  # a click that is piped drops escapes
                raise DataError(
                    f"id {value!r:.80} has white space or controls in it, which a TREC run cannot hold; use jsonl"
                )
        click.echo(f"{query.id} Q0 {hit.id} {rank} {hit.cosine:.10f} {_RUN_TAG}")
