"""A Java that runs out of heap: one clear line, and nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import faulty
import pytest
import warm
from conftest import Faults
from looking import look
from test_kills import CHUNK, COMMANDS, Setting, check, prepare

HEAPS = (10, 12, 14, 16, 20, 24, 32, 40, 48, 64)  # MiB; with less, Java ends before it can say why


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Sentences of which every hundredth is of two megabytes."""
    return prepare(tmp_path_factory.mktemp("heap"), " padding" * 256_000)


@pytest.mark.parametrize("name", [*COMMANDS, "search", "verify", "merge"])
def test_small_heap(name: str, setting: Setting, faults: Faults, tmp_path: Path) -> None:
    row, idx = faults.row(f"small Java heap: {name}"), tmp_path / "idx"
    options = {"chunk": CHUNK, "folder": setting.folder}
    base = name not in COMMANDS or COMMANDS[name][1]
    other: dict[str, list[object]] = {
        "search": ["search", idx, "--queries", "first.jsonl", "-k", "300", "--format", "jsonl"],
        "verify": ["verify", idx],
        "merge": ["merge", tmp_path / "merged", idx],
    }
    arguments = other.get(name) or [str(idx) if argument == "IDX" else argument for argument in COMMANDS[name][0]]

    def restore() -> None:
        shutil.rmtree(idx, ignore_errors=True)
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)
        if base:
            shutil.copytree(setting.base, idx)

    restore()
    before = warm.call(look, idx)
    assert warm.run(arguments, **options).status == 0
    after = warm.call(look, idx)
    ended: dict[int, int] = {}
    crashed = 0
    for heap in HEAPS:
        restore()
        outcome = warm.run(arguments, JAVA_TOOL_OPTIONS=f"-Xmx{heap}m", **options)
        ended[heap] = outcome.status
        row.tried += 1
        crashed += faulty.java_crashed(outcome)
        if outcome.status and not faulty.one_line(outcome) and not faulty.java_crashed(outcome):
            row.unclear += 1
            faults.failed(f"{name}, {heap} MiB: {outcome}")
        check(faults, row, idx, [before] if outcome.status else [after], f"{name}, {heap} MiB, {outcome}")
    row.notes = {"exit status by MiB of heap": ended, "crashes of Java": crashed}
