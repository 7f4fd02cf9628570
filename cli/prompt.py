"""The prompt of ``sparse-sts search``: queries typed one after another, to a model and a Java that stay warm."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sparse_sts_index.data.filters import parse_filter
from sparse_sts_index.errors import DataError, SparseStsError

from .output import ScriptCheck, one_line

if TYPE_CHECKING:
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.search.certified import Mode
    from sparse_sts_index.search.results import Hits


@dataclass
class Settings:
    """Arguments of a search, which commands of the prompt change."""

    k: int
    mode: Mode
    explain: bool
    where: str | None = None
    min_cosine: float = 0.0


def on_terminal() -> bool:
    """Whether someone types the input and sees the output."""
    # A stream that the process was started without is None.
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def prompt(index: SparseStsIndex, settings: Settings, show: Callable[[Hits], None]) -> None:
    """Answer what is typed, line by line, until it ends."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # from here on input() edits lines and recalls them
    # Loads whatever a search needs.
    index.search(["A first sentence."], **vars(settings))
    click.echo(f"{len(index):,} sentences, model {one_line(index.encoder.name)}; :help for commands, Ctrl-D leaves")
    while True:
        try:
            line = _read()
            if line is None:
                click.echo()
                return
            if line.startswith(":"):
                if not _obey(line, settings):
                    return
            elif line.strip():
                _answer(line.strip(), index, settings, show)
        except KeyboardInterrupt:
            click.echo()
        except SparseStsError as error:
            click.ClickException(one_line(str(error))).show()


def _read() -> str | None:
    """A line, or None at the end of the input."""
    try:
        line = input("> ")
        line.encode()
    except EOFError:
        return None
    except UnicodeError as error:  # by the locale, bytes that are no text fail at once or come as surrogates
        raise DataError(f"the line is not {sys.stdin.encoding.upper()}") from error
    return line


def _obey(line: str, settings: Settings) -> bool:
    """Carry out a command; whether to go on after it."""
    match line.split():
        case [":q" | ":quit"]:
            return False
        case [":help"]:
            _show_help(settings)
        case [":explain"]:
            settings.explain = not settings.explain
            click.echo(f"explain is {_on(settings.explain)}")
        case [":k", *numbers]:
            settings.k = _count(numbers)
            click.echo(f"k is {settings.k}")
        case [":mode", ("exact" | "two-step" | "approximate") as mode]:
            settings.mode = mode
            click.echo(f"mode is {mode}")
        case [":mode", *_]:
            raise DataError(":mode takes exact, two-step or approximate")
        case [":where", *_]:
            text = line.strip().removeprefix(":where").strip()
            if text:
                parse_filter(text)
            settings.where = text or None
            click.echo(f"where is {one_line(text) or 'everything'}")
        case _:
            raise DataError(f"no command {line.strip()!r}; see :help")
    return True


def _answer(text: str, index: SparseStsIndex, settings: Settings, show: Callable[[Hits], None]) -> None:
    index.refresh()
    start = time.perf_counter()
    (hits,) = index.search([text], **vars(settings))
    seconds = time.perf_counter() - start
    show(hits)
    scripts = ScriptCheck(index.encoder.vocabulary)
    scripts.count(text)
    scripts.warn("a query")
    click.echo(f"  ({1000 * seconds:,.1f} ms)")


def _count(numbers: list[str]) -> int:
    with contextlib.suppress(ValueError):
        (number,) = map(int, numbers)
        if number >= 1:
            return number
    raise DataError(":k takes a whole number of at least 1, such as :k 5")


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _show_help(settings: Settings) -> None:
    for what, meaning in (
        ("TEXT", "the sentences nearest in meaning; put a space before a text that begins with a colon"),
        (":k N", f"show N hits; now {settings.k}"),
        (":mode exact|two-step|approximate", f"how to search; now {settings.mode}"),
        (":where FILTER", "look only among the sentences whose fields pass; without FILTER, among all"),
        (":explain", f"show the shared terms, or stop showing them; now {_on(settings.explain)}"),
        (":help", "show this"),
        (":quit, :q, Ctrl-D", "leave"),
        ("Ctrl-C", "abandon the line, or the search"),
    ):
        click.echo(f"  {what:<34}{meaning}")
