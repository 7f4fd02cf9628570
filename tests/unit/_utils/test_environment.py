"""Test the number of cores that a process may use, by its affinity and its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from sparse_sts_index._utils import environment
from sparse_sts_index._utils.environment import cores, processor_quota


def quota(tmp_path: Path, groups: str, files: dict[str, str]) -> float:
    """Return the quota of a process with these groups, in a hierarchy with these files."""
    proc = tmp_path / "cgroup"
    proc.write_text(groups)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return processor_quota(proc, tmp_path / "fs")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/../elsewhere\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/seen/by/the/host\n", {"cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,x:/\n0::/\n", {"cpu,x/cpu.cfs_quota_us": "100000", "cpu,x/cpu.cfs_period_us": "50000"}, 2.0),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "100000"}, 1.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000", "cpuset/cpu.cfs_period_us": "100000"}, math.inf),
        ("1:cpu:/\n0::/\n", {"cpu.max": "nonsense", "cpu/cpu.cfs_quota_us": "1"}, math.inf),
        ("", {}, math.inf),
        ("nonsense\n0::/\n", {"cpu.max": "\u00b2 100000"}, math.inf),
    ],
)  # fmt: skip
def test_quota_is_the_least_of_all_groups(tmp_path: Path, groups: str, files: dict[str, str], expected: float) -> None:
    assert quota(tmp_path, groups, files) == expected


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert processor_quota(tmp_path / "none", tmp_path / "none") == math.inf


@pytest.mark.parametrize(("allowed", "expected"), [(math.inf, 8), (0.2, 1), (2.5, 3), (20.0, 8)])
def test_cores_are_those_of_affinity_and_quota(monkeypatch: pytest.MonkeyPatch, allowed: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(environment, "processor_quota", lambda: allowed)
    assert cores() == expected
