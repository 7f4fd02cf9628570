"""Slow suites: ``make soak``. What they count goes into ``benchmarks/results/faults.json``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", type=float, default=1.0, help="of the usual number of faults")
    parser.addoption("--seed", type=int, default=1, help="of what is drawn at random")


@dataclass
class Row:
    """One line of the table of faults.

    Attributes
    ----------
    tried : int
        Faults that happened.
    lost : int
        How often something that was there, or was said to be done, was not there afterwards.
    wrong : int
        How often an answer was not that of brute force, or damage was not seen.
    unclear : int
        How often the command said anything but one clear line.
    notes : dict
        Other figures.
    """

    tried: int = 0
    lost: int = 0
    wrong: int = 0
    unclear: int = 0
    notes: dict[str, Any] | None = None


class Faults:
    """The table, a row for each kind of fault."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.failures: list[str] = []

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row())

    def failed(self, what: str) -> None:
        self.failures.append(what)


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """A table for one test, which fails if anything was lost, wrong or unclear; its rows replace those of its name."""
    table = Faults()
    yield table
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    share = request.config.getoption("--share")
    if share >= 1:
        before.update({name: asdict(row) for name, row in table.rows.items()})
        RESULTS.write_text(json.dumps(dict(sorted(before.items())), indent=2) + "\n", encoding="utf-8")
    print()
    for name, row in table.rows.items():
        counts = f"tried {row.tried:5}  lost {row.lost}  wrong {row.wrong}  unclear {row.unclear}"
        print(f"{name:50} {counts}  {row.notes or ''}")
    assert not table.failures, "\n".join(table.failures)
    assert all(row.tried and not row.lost and not row.wrong and not row.unclear for row in table.rows.values())


@pytest.fixture
def share(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--share"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


def moments(rng: random.Random, count: int, most: float) -> list[float]:
    """Some numbers below `most`, one in each of as many parts of what is below it."""
    return [(number + rng.random()) * most / count for number in range(count)]
