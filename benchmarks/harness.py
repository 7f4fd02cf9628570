"""Engines side by side: each in a process of its own, taking turns, round after round.

Turns spread whatever else the machine is doing over all of them; processes of their own let the peak memory of each be
told. A worker is the benchmark's own script, called with ``--worker NAME``; it loads what it needs, says so, and then
does one round for each line that it reads, with a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("torch", "sentence-transformers", "transformers", "optimum-intel", "openvino")


def of_checkout(root: Path) -> list[str]:
    """The beginning of a command that runs the package of a checkout."""
    return ["env", f"PYTHONPATH={root.resolve()}", sys.executable]


def serve(round_: Callable[[], dict[str, Any]]) -> None:
    """The worker's side: say that all is loaded, then a round for each line."""
    _reply({"loaded_mib": peak_mib(), "packages": _versions()})
    for _ in sys.stdin:
        result = round_()
        _reply({**result, "peak_mib": peak_mib()})


def take_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """The benchmark's side: run the workers, and collect what each says of each round after a first one to warm up."""
    workers: dict[str, subprocess.Popen[str]] = {}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    try:
        for name, command in commands.items():
            workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            loaded = _answer(workers[name], name)
            print(f"{name}: loaded, {loaded['loaded_mib']:.0f} MiB", flush=True)
            results[name].append(loaded)
        for number in range(rounds + 1):
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                answer = _answer(worker, name)
                if number:
                    results[name].append(answer)
                    shown = {key: round(value, 4) for key, value in answer.items() if isinstance(value, float)}
                    print(f"round {number}: {name} {shown}", flush=True)
    finally:
        for worker in workers.values():
            worker.kill()
    return results


def summarize(answers: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Median, least and largest of a figure over the rounds, and the peak memory."""
    loaded, *rounds = answers
    values = [answer[key] for answer in rounds]
    return {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
        "values": values,
        "loaded_mib": loaded["loaded_mib"],
        "peak_mib": rounds[-1]["peak_mib"],
        "packages": loaded["packages"],
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    from sparse_sts_index._utils.environment import processor

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in flags if flag.startswith(("avx512_vnni", "avx512_bf16", "amx", "avx_vnni"))],
        "packages": _versions(),
    }


def _versions() -> dict[str, str]:
    """Return the versions of Python and packages; unlike `package_versions`, it needs nothing installed."""
    installed = {str(package.name).lower(): package.version for package in metadata.distributions()}
    versions = {name: installed[name] for name in _PACKAGES if name in installed}
    return {**versions, "python": platform.python_version()}


def write(path: Path, result: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def bars(path: Path, title: str, rate: str, engines: dict[str, dict[str, Any]], key: str) -> Path:
    """A plot of horizontal bars, one an engine: its `rate`, which is under `key`, and its memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {
        rate: {name: engine[key] for name, engine in engines.items()},
        "peak memory above the loaded model, MiB": {
            name: engine["peak_mib"] - engine["loaded_mib"] for name, engine in engines.items()
        },
    }
    figure, panels = pyplot.subplots(1, 2, figsize=(10.4, 0.9 + 0.42 * len(engines)))
    names = list(engines)[::-1]
    for panel, (label, values) in zip(panels, groups.items(), strict=True):
        drawn = panel.barh(names, [values[n] for n in names], color=["C0" if "fused" in n else "0.6" for n in names])
        panel.bar_label(drawn, fmt="{:,.0f}", padding=3)
        panel.set_xlabel(label)
        panel.margins(x=0.18)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)
    return path


def _answer(worker: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("{"):  # whatever else a library has to say
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise SystemExit(f"the worker {name} ended early")


def _reply(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # a child's ru_maxrss begins at its parent's, which this does not
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
