"""A disk that fills up, one that fails, one that is read-only: one clear line, and nothing is lost.

Wants to be root, on Linux, to mount small file systems in memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import faulty
import numpy as np
import pytest
import warm
from conftest import Faults, moments
from looking import look
from safetensors.numpy import load_file
from test_kills import BUILD, CHUNK, COMMANDS, RECIPE, Setting, check, few_pairs, setting  # noqa: F401

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None, reason="mounts file systems"
)
ROOM = "size=400m"


@contextlib.contextmanager
def mounted(path: Path, size: int) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


@contextlib.contextmanager
def most_used(path: Path) -> Iterator[list[int]]:
    """Bytes of a file system that were in use at once in the block, looked at a thousand times a second."""
    most, ended = [shutil.disk_usage(path).used], threading.Event()

    def look_on() -> None:
        while not ended.wait(0.001):
            most[0] = max(most[0], shutil.disk_usage(path).used)

    watcher = threading.Thread(target=look_on)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


def arguments_of(name: str, idx: Path) -> list[str]:
    return [str(idx) if argument == "IDX" else argument for argument in COMMANDS[name][0]]


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk(name: str, setting: Setting, faults: Faults, share: float, seed: int, tmp_path: Path) -> None:  # noqa: F811
    on_base = COMMANDS[name][1]
    row, rng = faults.row(f"disk full: {name}"), random.Random(f"{seed} {name}")
    options = {"chunk": CHUNK, "folder": setting.folder}

    def prepare(folder: Path) -> Path:
        if on_base:
            shutil.copytree(setting.base, folder / "idx")
        return folder / "idx"

    with mounted(tmp_path / "roomy", 400 << 20) as folder:
        idx = prepare(folder)
        before, least = warm.call(look, idx), shutil.disk_usage(folder).used
        with most_used(folder) as most:
            assert warm.run(arguments_of(name, idx), **options).status == 0
        after = warm.call(look, idx)
    for room in moments(rng, max(2, round(10 * share)), most[0] - least):
        with mounted(tmp_path / "small", least + int(room)) as folder:
            idx = prepare(folder)
            outcome = warm.run(arguments_of(name, idx), **options)
            what = f"{name}, {int(room):,} bytes left, {outcome}"
            row.tried += outcome.status != 0
            if outcome.status and not faulty.one_line(outcome):
                row.unclear += 1
                faults.failed(what)
            check(faults, row, idx, [before] if outcome.status else [after], what)
            if outcome.status:
                remount(folder, ROOM)
                assert warm.run(arguments_of(name, idx), **options).status == 0, what
                check(faults, row, idx, [after], f"{what}, with room")


@pytest.mark.parametrize("name", ["index --overwrite", "update", "compact"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_failing_call(
    name: str,
    error: str,
    setting: Setting,  # noqa: F811
    faults: Faults,
    share: float,
    seed: int,
) -> None:
    """One write, flush, rename or removal of many fails."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    row, rng = faults.row(f"{error} from a system call: {name}"), random.Random(f"{seed} {name} {error}")
    idx, options = setting.folder / "idx", {"chunk": CHUNK, "folder": setting.folder}

    def restore() -> None:
        shutil.rmtree(idx, ignore_errors=True)
        shutil.copytree(setting.base, idx)

    restore()
    before, calls = warm.call(look, idx), faulty.calls_within(arguments_of(name, idx), idx, **options)
    after = warm.call(look, idx)
    failed = 0
    for moment in moments(rng, max(2, round(20 * share)), len(calls)):
        restore()
        call = calls[int(moment)]
        outcome, injected = faulty.fail_at(arguments_of(name, idx), call, error, idx, **options)
        what = f"{name}, {error} at call {call}, {outcome}"
        if not injected:
            continue
        row.tried += 1
        failed += outcome.status != 0
        if outcome.status and not faulty.one_line(outcome):
            row.unclear += 1
            faults.failed(what)
        check(faults, row, idx, [before] if outcome.status else [after], what)
    row.notes = {"commands that failed": failed}


def test_read_only(setting: Setting, faults: Faults, tmp_path: Path) -> None:  # noqa: F811
    options = {"chunk": CHUNK, "folder": setting.folder}
    row = faults.row("read-only directory")
    with mounted(tmp_path / "fixed", 400 << 20) as folder:
        idx = folder / "idx"
        shutil.copytree(setting.base, idx)
        before = warm.call(look, idx)
        remount(folder, "ro")
        changes = [arguments_of(name, idx) for name in COMMANDS if name != "index"]
        made = [arguments_of("index", folder / "new"), ["merge", folder / "merged", idx]]
        made += [["export", idx, "--output", folder / "vectors.jsonl"]]
        made += [["export", idx, "--format", "qdrant", "--output", folder / "qdrant"]]
        made += [["train", "--base-model", "tiny", "--dataset", "sample", "--output", folder / "model"]]
        for arguments in [*changes, *made]:
            outcome = warm.run(arguments, **options)
            row.tried += 1
            if not faulty.one_line(outcome):
                row.unclear += 1
                faults.failed(f"{arguments}: {outcome}")
            check(faults, row, idx, [before], str(arguments))
        for arguments in (["search", idx, "a cat"], ["verify", idx], ["duplicates", idx]):
            outcome = warm.run(arguments, **options)
            row.tried += 1
            if outcome.status:
                row.lost += 1
                faults.failed(f"{arguments}: {outcome}")


def test_full_disk_in_training(faults: Faults, share: float, seed: int, tmp_path: Path) -> None:
    row, rng = faults.row("disk full: train"), random.Random(seed)
    pairs = few_pairs(tmp_path / "pairs")

    def arguments(output: Path, *extra: str) -> list[object]:
        return ["train", "--dataset", pairs, *RECIPE, *extra, "--output", output]

    assert warm.run(arguments(tmp_path / "peace")).status == 0
    weights = load_file(tmp_path / "peace" / "model.safetensors")
    for room in moments(rng, max(2, round(10 * share)), 180 << 20):
        with mounted(tmp_path / "small", int(room) + 4096) as folder:
            output = folder / "model"
            outcome = warm.run(arguments(output))
            what = f"{int(room):,} bytes, {outcome}"
            if outcome.status:
                row.tried += 1
                if not faulty.one_line(outcome):
                    row.unclear += 1
                    faults.failed(what)
                remount(folder, ROOM)
                outcome = warm.run(arguments(output, "--resume"))
                if "nothing to resume" in outcome.stderr:
                    outcome = warm.run(arguments(output))
            if outcome.status:
                row.lost += 1
                faults.failed(f"{what}: again, {outcome}")
                continue
            found = load_file(output / "model.safetensors")
            if any(np.abs(found[name] - weights[name]).max(initial=0) > 1e-6 for name in weights):
                row.wrong += 1
