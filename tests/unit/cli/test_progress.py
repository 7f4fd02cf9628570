"""Progress where stderr is no terminal: a line now and then."""

from __future__ import annotations

import io
import re
import sys

import pytest
from sparse_sts_index.cli.progress import ProgressLines, progress, progress_bar


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("total", [1000, None])
def test_lines_have_the_rate_and_the_time_left(total: int | None) -> None:
    clock, lines = Clock(), list[str]()
    bar = ProgressLines(total, " sentences", "indexing", clock=clock, write=lines.append)
    for _ in range(90):
        clock.now += 1
        bar.update(10)
    if total is None:
        assert lines[0] == "indexing: 100 sentences, 10.0/s"
    else:
        assert lines[0] == "indexing: 100 of 1,000 sentences (10%), 10.0/s, 01:30 left"
    assert [int(re.findall(r"\d+", line)[0]) for line in lines] == [100, 400, 700]  # after 10 s, then each 30 s


def test_short_work_says_nothing() -> None:
    clock, lines = Clock(), list[str]()
    bar = ProgressLines(10, "", "x", clock=clock, write=lines.append)
    for _ in range(10):
        clock.now += 0.9
        bar.update()
    assert lines == []


def test_figures_and_descriptions() -> None:
    clock, lines = Clock(), list[str]()
    bar = ProgressLines(desc="training", unit=" steps", clock=clock, write=lines.append)
    bar.total = 1000
    bar.set_postfix({}, loss="0.5")
    bar.update(900)  # of a run that was interrupted
    clock.now += 20
    bar.update(2)
    assert lines == ["training: 902 of 1,000 steps (90%), 10.0 s each, 16:20 left, loss 0.5"]
    clock.now += 40
    silent = ProgressLines(clock=clock, write=lines.append)
    clock.now += 20
    silent.set_description_str("measuring BM25")
    assert lines[1:] == ["measuring BM25"]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_off_a_terminal_there_are_lines(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(5, unit=" steps") as bar, progress_bar(5, "x") as done:
        assert isinstance(bar, ProgressLines)
        done(5)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_at_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(5, "indexing") as done:
        done(5)
    assert "\rindexing: 100%" in terminal.getvalue()
