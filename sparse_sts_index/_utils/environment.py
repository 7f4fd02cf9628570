"""Describe the machine and the software of a measurement or a build."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path, PurePosixPath


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**versions, "python": platform.python_version()}


def processor() -> str:
    """Return the processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def cores() -> int:
    """Return the number of cores that this process may use.

    These are the ones of its affinity, or fewer where a control group limits its processor time: to ``cpu.max`` (cgroup
    v2) or ``cpu.cfs_quota_us`` (v1), rounded up. The limit is read once.
    """
    visible = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(visible, processor_quota())))


@functools.cache
def processor_quota(proc: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many cores' time the control groups of this process allow; infinite where there is no limit.

    Parameters
    ----------
    proc : Path
        The file that names the process's groups, one per line: ``number:controllers:path``.
    mounts : Path
        Where the hierarchies are mounted.
    """
    quotas = [math.inf]
    for line in _text(proc).splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if not colon:
            continue
        if controllers == "":
            roots, files = [mounts, mounts / "unified"], ["cpu.max"]
        elif "cpu" in controllers.split(","):
            roots, files = [mounts / controllers, mounts / "cpu"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # A parent's limit counts, too. Within a container, the group may be named as the host sees it.
        parts = PurePosixPath(group).parts[1:]
        for root in roots:
            for depth in range(len(parts) + 1):
                folder = root.joinpath(*parts[:depth])
                quotas.append(_quota(" ".join(_text(folder / file) for file in files)))
    return min(quotas)


def _quota(limit: str) -> float:
    """Return the quota of a limit: microseconds, or ``max`` or -1, and the period."""
    match limit.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            return int(quota) / int(period)
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
