"""All of it: hypothesis, then atheris for each target; what came of it goes to ``benchmarks/results/fuzz.json``.

``FUZZ_SECONDS`` for each target of atheris, ``FUZZ_EXAMPLES`` for each test of hypothesis; ``FUZZ_SIZE=1`` for size.py.
Ends with 1 if anything was found.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "benchmarks" / "results" / "fuzz.json"
SECONDS = os.environ.get("FUZZ_SECONDS", "60")
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "300")
_PACKAGES = (
    "atheris",
    "hypothesis",
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "torch",
    "pyarrow",
    "numpy",
)


def structured(scratch: Path) -> dict[str, Any]:
    """Counts of what hypothesis tried, and what failed."""
    environment = {**os.environ, "FUZZ_EXAMPLES": EXAMPLES, "FUZZ_COUNTS": str(scratch / "counts.json")}
    environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "structured.py")]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    print(run.stdout, flush=True)  # noqa: T201
    counts: dict[str, int] = json.loads((scratch / "counts.json").read_text())
    results: dict[str, Any] = {}
    for name, count in sorted(counts.items()):
        what, outcome = name.rsplit(": ", 1)
        results.setdefault(what, {"accepted": 0, "refused": 0})[outcome] = count
    failed = re.findall(r"^FAILED \S+::(\S+)", run.stdout, re.MULTILINE)
    return {"exit": run.returncode, "examples": int(EXAMPLES), "failed": failed, "inputs": results}


def coverage_guided(name: str, scratch: Path) -> dict[str, Any]:
    """What atheris tried on one target."""
    counts, found = scratch / f"{name}.json", scratch / f"{name}-"
    run = subprocess.run(
        [
            *(sys.executable, str(HERE / "coverage_guided.py"), name, str(counts)),
            *(f"-max_total_time={SECONDS}", "-timeout=30", f"-artifact_prefix={found}", "-max_len=65536"),
            f"-rss_limit_mb={6144 if name == 'request' else 3072}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))},
    )
    log = run.stderr.decode(errors="replace")
    done = re.search(r"Done (\d+) runs in (\d+) second", log)
    covered = re.findall(r"cov: (\d+)", log)
    share = json.loads(counts.read_text()) if counts.exists() else {"tried": 0, "accepted": 0}
    result = {
        "exit": run.returncode,
        "tried": int(done[1]) if done else share["tried"],
        "seconds": int(done[2]) if done else None,
        "accepted_of_counted": [share["accepted"], share["tried"]],
        "branches": int(covered[-1]) if covered else None,
        "found": sorted(path.read_bytes().hex()[:2_000] for path in scratch.glob(f"{name}-*")),
    }
    if run.returncode:
        result["log"] = log[-3_000:]
    print(name, {key: value for key, value in result.items() if key != "log"}, flush=True)  # noqa: T201
    return result


def main() -> int:
    """Run everything that this environment can."""
    from targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        results: dict[str, Any] = {
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _PACKAGES if importlib.util.find_spec(_module(name))},
            "hypothesis": structured(scratch),
        }
        if importlib.util.find_spec("atheris"):
            results["atheris"] = {name: coverage_guided(name, scratch) for name in TARGETS}
        if os.environ.get("FUZZ_SIZE"):
            run = subprocess.run([sys.executable, HERE / "size.py"], stdout=subprocess.PIPE, check=True)
            results["size"] = json.loads(run.stdout)
        elif RESULT.exists() and "size" in (before := json.loads(RESULT.read_text(encoding="utf-8"))):
            results["size"] = before["size"]
    RESULT.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    exits = [results["hypothesis"]["exit"], *(target["exit"] for target in results.get("atheris", {}).values())]
    return int(any(exits))


def _module(package: str) -> str:
    return package.replace("-", "_")


sys.exit(main())
