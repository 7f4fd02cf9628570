"""Run the tests on each Python that is here, in environments of their own under build/lanes: ``make lanes[-light]``.

``full`` is `make test` and `make demo`, timed, and the table of docs/lanes.md. ``light`` is what needs no torch, on
each Python but the one of `make test`. Pythons are found on the path and under pyenv; versions after the mode choose
among them: ``full 3.13``.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LANES = ROOT / "build" / "lanes"
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "lanes.json", ROOT / "docs" / "lanes.md"
BEGIN, END = "<!-- table: make lanes -->\n", "<!-- end of table -->\n"
COVERED = ("3.11", "3.12", "3.13", "3.14")
VERSION = "import platform; print(platform.python_version())"
SOFTWARE = "import json; from sparse_sts_index.storage.transaction import software; print(json.dumps(software()))"
TORCH = "import torch; print(torch.__version__)"


def ask(python: Path | str, code: str) -> str | None:
    """Return what an interpreter prints, or None if it does not run, as a pyenv shim without an interpreter."""
    try:
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def pythons() -> dict[str, Path]:
    """The newest interpreter of each version that the locks cover."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, Path] = {}
    for version in COVERED:
        places = [Path(path) for path in (shutil.which(f"python{version}"),) if path]
        places += installed.glob(f"{version}.*/bin/python{version}")
        usable = {name: place for place in places if (name := ask(place, VERSION)) is not None}
        if usable:
            found[version] = usable[max(usable, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])]
    return found


def make(python: Path, environment: Path, *targets: str, **variables: str) -> float:
    """Make targets in an environment; the seconds it took. Stops everything if it fails."""
    command = ["make", f"PYTHON={python}", f"VENV={environment.relative_to(ROOT)}", *targets]
    start = time.monotonic()
    print("+", " ".join(command), flush=True)  # noqa: T201
    if subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode:
        sys.exit(f"{' '.join(targets)} failed on {python}")
    return round(time.monotonic() - start, 1)


def counts(report: Path) -> dict[str, Any]:
    """Count the tests in pytest's report, and the skipped ones by reason."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    skipped = [case.find("skipped") for case in cases]
    reasons = collections.Counter(result.get("message", "") for result in skipped if result is not None)
    return {"tests": len(skipped), "skipped": reasons.total(), "why": dict(reasons)}


def full(version: str, python: Path) -> dict[str, Any]:
    """The whole suite and the demo."""
    environment, report = LANES / version, LANES / f"{version}.xml"
    target = f"{environment.relative_to(ROOT)}/installed"
    row: dict[str, Any] = {"install_s": make(python, environment, target)}
    row["test_s"] = make(python, environment, "test", PYTEST_ADDOPTS=f"--junitxml={report}")
    row["demo_s"] = make(python, environment, "demo")
    binary = environment / "bin" / "python"
    size = subprocess.run(["du", "-sm", environment], capture_output=True, text=True, check=True).stdout.split()[0]
    row |= counts(report) | {"torch": ask(binary, TORCH), "MB": int(size)}
    return row | json.loads(ask(binary, SOFTWARE) or "{}")


def light(version: str, python: Path) -> None:
    """Run the tests that need no torch."""
    environment = LANES / f"{version}-light"
    make(python, environment, f"{environment.relative_to(ROOT)}/light")
    print(f"Python {ask(python, VERSION)}, without torch", flush=True)  # noqa: T201
    command = [environment / "bin" / "python", "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile"]
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}).returncode:
        sys.exit(f"tests failed on {python}")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """In Markdown, a line for each version that the locks cover."""
    lines = [
        "| Python | Pyserini | Lucene | Java | torch | tests | passed | skipped | demo | install | tests | size |",
        "|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes = []
    for version in COVERED:
        row = rows.get(version)
        if row is None:
            lines.append(f"| {version} | | | | | not run | | | | | | |")
            continue
        passed = row["tests"] - row["skipped"]
        cells = (row["python"], row["pyserini"], row["lucene"], row["java"], row["torch"], row["tests"], passed)
        times = (f"{row[name]:.0f} s" for name in ("demo_s", "install_s", "test_s"))
        lines.append(f"| {' | '.join(map(str, (*cells, row['skipped'], *times)))} | {row['MB'] / 1000:.1f} GB |")
        notes += [f"- {row['python']}: {count} skipped, {reason}" for reason, count in row["why"].items()]
    return "\n" + "\n".join(lines) + "\n\n" + "".join(f"{note}\n" for note in sorted(notes)) + "\n"


def main(mode: str, *chosen: str) -> None:
    if mode not in ("full", "light"):
        sys.exit(f"full or light, not {mode}")
    found = {version: python for version, python in pythons().items() if not chosen or version in chosen}
    LANES.mkdir(parents=True, exist_ok=True)
    if mode == "light":
        found.pop(f"{sys.version_info[0]}.{sys.version_info[1]}", None)
        print(f"left to `make test`: {sys.version_info[0]}.{sys.version_info[1]}; here: {', '.join(found)}")  # noqa: T201
        for version, python in found.items():
            light(version, python)
        return
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for version, python in found.items():
        rows[version] = full(version, python)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(rows) + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
