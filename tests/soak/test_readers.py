"""Readers over days of updates: a writer that commits thousands of times, and readers in other processes that see each
commit, with answers that are those of brute force, and no more files, heap or memory in the end than at the start."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from conftest import Faults
from support import build, chunk, random_vectors

from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene.jvm import java_class

COMMITS = 10_000  # a week of one a minute
DOCUMENTS, READERS = 500, 2


def usage() -> dict[str, float]:
    """Open files, MiB of this process, and MiB of Java's heap once it is collected."""
    gc.collect()
    runtime = java_class("java.lang.Runtime").getRuntime()
    runtime.gc()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "memory MiB": int(status.split("VmRSS:")[1].split()[0]) / 1024,
        "heap MiB": (runtime.totalMemory() - runtime.freeMemory()) / 2**20,
    }


def write(path: Path, commits: int, seed: int) -> list[dict[str, float]]:
    """Change an index so many times, a few documents each."""
    rng, seen = np.random.default_rng(seed), []
    vectors = random_vectors(rng, 2000)
    with ImpactIndex.open(path, writable=True) as index:
        for number in range(commits):
            ids = [f"d{i}" for i in rng.choice(2 * DOCUMENTS, 5, replace=False)]
            if rng.random() < 0.3:
                index.delete(ids)
            else:
                index.write([chunk(ids, vectors[rng.integers(2000, size=5)])], replace=True, commit=True)
            if number % 1000 == 999:
                index.compact()
            if number % (commits // 20) == commits // 20 - 1:
                seen.append(usage())
    (path / "done").touch()
    return seen


def read(path: Path, seed: int) -> tuple[int, int, list[dict[str, float]]]:
    """Refresh and search until the writer has ended: refreshes, answers that were wrong, and what it took."""
    rng, refreshes, wrong, seen = np.random.default_rng(seed), 0, 0, []
    queries = random_vectors(rng, 50)
    next_look = time.monotonic()
    with ImpactIndex.open(path) as index:
        while not (path / "done").exists():
            refreshes += index.refresh()
            query = queries[[int(rng.integers(50))]]
            with index.using() as state:
                (found,) = Searcher(state, in_memory=bool(seed % 2)).search(query, 10)
                got = list(zip(found.ids, found.cosines, strict=True))
                expected = []
                for first, block in state.store.blocks():
                    cosines = (block.astype(np.float64) @ query.astype(np.float64).T).toarray()[:, 0]
                    rows = np.flatnonzero((cosines > 0) & state.store.live[first : first + len(cosines)])
                    expected += list(zip(state.store.ids(rows + first), cosines[rows].tolist(), strict=True))
                expected.sort(key=lambda pair: (-pair[1], pair[0]))
            wrong += got != expected[:10] or not found.certified
            if time.monotonic() > next_look:
                seen.append(usage())
                next_look = time.monotonic() + 10
        seen.append(usage())
    return refreshes, wrong, seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_days_of_updates(faults: Faults, share: float, tmp_path: Path) -> None:
    path, commits = tmp_path / "idx", max(200, round(COMMITS * share))
    warm.call(build, path, [f"d{i}" for i in range(DOCUMENTS)], random_vectors(np.random.default_rng(0), DOCUMENTS))
    calls = [(write, (path, commits, 1)), *((read, (path, 2 + number)) for number in range(READERS))]
    written, *readers = warm.call_all(calls, timeout=7200)
    row = faults.row("readers over days of updates")
    row.tried = commits
    row.wrong = sum(wrong for _, wrong, _ in readers)
    kinds: dict[str, Any] = {}
    for who, seen in (("writer", written), *((f"reader {n + 1}", seen) for n, (_, _, seen) in enumerate(readers))):
        early, late = seen[len(seen) // 5 :][0], seen[-1]
        kinds[who] = {kind: [round(early[kind], 1), round(late[kind], 1)] for kind in early}
        if late["files"] > early["files"] + 10 or late["heap MiB"] > 1.5 * early["heap MiB"] + 5:
            faults.failed(f"{who}: {kinds[who]}")
        if late["memory MiB"] > 1.25 * early["memory MiB"] + 30:
            faults.failed(f"{who}: {kinds[who]}")
    row.notes = {"refreshes": [refreshes for refreshes, _, _ in readers], "early, late": kinds}
