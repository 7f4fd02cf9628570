"""Progress of long work: a bar at a terminal; elsewhere, in a log, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click
from tqdm import tqdm

#: Seconds to the first line of a log, and from one to the next.
_FIRST, _NEXT = 10.0, 30.0


class Bar(Protocol):
    """The part of tqdm that the commands use."""

    total: Any
    n: Any

    def update(self, n: Any = 1) -> Any:
        """Add to what is done."""

    def set_postfix(self, *arguments: Any, **figures: Any) -> None:
        """Show figures beside it."""

    def set_description_str(self, desc: str) -> None:
        """Say what is being done."""


class ProgressLines:
    """Write how far work is as a line now and then, with the rate and the time left.

    Parameters
    ----------
    total : int, optional
    unit, desc : str
    clock : callable
        Gives seconds.
    write : callable
        Takes a line.
    """

    def __init__(
        self,
        total: int | None = None,
        unit: str = "",
        desc: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self.total, self.n = total, 0
        self._unit, self._desc, self._figures = unit, desc, ""
        self._clock, self._write = clock, write or _write_line
        self._initial, self._start = 0, clock()
        self._due = self._start + _FIRST

    def update(self, n: int = 1) -> None:
        """Add to what is done."""
        if not self.n:  # what comes first has waited for imports, or was done by a run before this one
            self._initial, self._start = n, self._clock()
        self.n += n
        self._tell()

    def set_postfix(self, *_: Any, **figures: Any) -> None:
        """Show figures beside it."""
        self._figures = "".join(f", {name} {value}" for name, value in figures.items())

    def set_description_str(self, desc: str) -> None:
        """Say what is being done."""
        self._desc = desc
        self._tell()

    def _tell(self) -> None:
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _NEXT
        if not self.n:
            self._write(self._desc)
            return
        done, unit = f"{self.n:,}", self._unit.strip()
        line = f"{self._desc}: {done} {unit}"
        if self.total:
            line = f"{self._desc}: {done} of {self.total:,} {unit} ({self.n / self.total:.0%})"
        seconds = now - self._start
        if (rate := (self.n - self._initial) / seconds if seconds else 0) > 0:
            line += f", {rate:,.1f}/s" if rate >= 1 else f", {1 / rate:,.1f} s each"
            if self.total:
                line += f", {tqdm.format_interval((self.total - self.n) / rate)} left"
        self._write(line + self._figures)


def _write_line(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def progress(total: int | None = None, *, unit: str = "", desc: str = "", **options: Any) -> Iterator[Bar]:
    """Give a bar, if stderr is a terminal, else something that writes lines there."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield ProgressLines(total, unit, desc)
        return
    with tqdm(total=total, unit=unit, desc=desc, **options) as bar:
        yield bar


@contextmanager
def progress_bar(total: int | None, what: str) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of sentences done since its last call."""
    with progress(total, unit=" sentences", desc=what, smoothing=0.05) as bar:
        yield lambda count: bar.update(count) and None
