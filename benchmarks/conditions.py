"""Measure what users meet outside a quiet loop: cold starts, busy neighbours and quotas, against an earlier version.

    git worktree add EARLIER COMMIT
    ln -s ../cli EARLIER/sparse_sts_index/cli
    python benchmarks/conditions.py --before EARLIER [--sentences FILE]

takes the two versions in turns, each in processes of its own, and writes ``results/conditions.json``:

- ``cold``: seconds of whole commands, each five times: a search of the sample, and one without an index;
- ``quiet``: 20 pairs of rounds of encoding, with the 95 % interval of the ratio of their rates;
- ``cold``: seconds of whole commands, each five times: a search of the sample, and a search without an index;
  encodes, too;
- ``quota``: the rate in a control group that allows one core (needs root and cgroup v1 or v2), and the rate of one
  thread alone.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

_PERIOD = 100_000  # microseconds
_LOOP = """
import time
start, rounds = time.perf_counter(), 0
while time.perf_counter() - start < {seconds}:
    rounds += 1
print(rounds)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="Checkout of an earlier version.")
    parser.add_argument("--sentences", type=Path, help="One a line. Default: the embedded sample's collection.")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=3000, help="Sentences a round.")
    parser.add_argument("--pairs", type=int, default=20, help="Pairs of quiet rounds.")
    parser.add_argument("--rounds", type=int, default=3, help="Of the other conditions.")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    versions = {"now": harness.ROOT, "before": arguments.before.resolve()}
    options = [word for word in sys.argv[1:] if word != "--worker"]
    commands = {name: [*harness.of_checkout(root), __file__, *options, "--worker"] for name, root in versions.items()}
    report: dict[str, Any] = {"model": arguments.model, "machine": harness.machine(), "unit": "sentences/s"}
    report["cold"] = cold(versions)
    report["quiet"] = quiet(commands, arguments.pairs)
    report["busy"] = busy(commands, arguments.rounds)
    report["quota"] = quota(commands, arguments.rounds)
    rate = report["quiet"]["now"]
    for condition in ("loops", "encoding"):
        report["busy"][condition]["share_of_quiet"] = report["busy"][condition]["now"] / rate
    print(*(f"{name}: {value}" for name, value in report.items()), sep="\n")
    print("wrote", harness.write(arguments.results / "conditions.json", report))


def work(arguments: argparse.Namespace) -> None:
    """One version: a model stays loaded, and encodes the same sentences in each round."""
    from sparse_sts_index import SparseStsEncoder, read_corpus

    texts = [document.text for document in read_corpus(str(arguments.sentences or "sample"))]
    texts = (texts * math.ceil(arguments.count / len(texts)))[: arguments.count]
    encoder = SparseStsEncoder.load(arguments.model)

    def round_() -> dict[str, Any]:
        start = time.perf_counter()
        encoder.encode(texts)
        return {"rate": len(texts) / (time.perf_counter() - start)}

    harness.serve(round_)


def cold(versions: dict[str, Path]) -> dict[str, Any]:
    """Return the median seconds of commands in fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "sparse_sts_index"]
        index = [*command, "index", "sample", "--model", "tiny", "--output", f"{folder}/index"]
        subprocess.run(index, env=os.environ | {"PYTHONPATH": str(versions["now"])}, check=True, capture_output=True)
        seconds: dict[str, dict[str, list[float]]] = {}
        for what, words in {"search": [f"{folder}/index", "a cat"], "no index": ["nosuch", "a cat"]}.items():
            of_version = seconds.setdefault(what, {name: [] for name in versions})
            for _ in range(5):
                for name, root in versions.items():
                    start = time.perf_counter()
                    environment = os.environ | {"PYTHONPATH": str(root)}
                    subprocess.run([*command, "search", *words], env=environment, cwd=folder, capture_output=True)
                    of_version[name].append(time.perf_counter() - start)
    return {
        what: {
            **{name: statistics.median(values) for name, values in of_version.items()},
            "ratio": statistics.median(of_version["now"]) / statistics.median(of_version["before"]),
            "values": of_version,
        }
        for what, of_version in seconds.items()
    }


def rates(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Return the rates of each round."""
    answers = harness.take_turns(commands, rounds)
    return {name: [answer["rate"] for answer in answers[name][1:]] for name in commands}


def medians(commands: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Return the median rate of each command."""
    found = rates(commands, rounds)
    return {name: statistics.median(values) for name, values in found.items()} | {"values": found}


def quiet(commands: dict[str, list[str]], pairs: int) -> dict[str, Any]:
    """Return median rates, and the ratio of pairs of rounds with its 95 % interval (Student's t of the logarithms)."""
    from scipy.stats import t

    found = medians(commands, pairs)
    logs = [math.log(a / b) for a, b in zip(found["values"]["now"], found["values"]["before"], strict=True)]
    half = float(t.ppf(0.975, pairs - 1)) * statistics.stdev(logs) / math.sqrt(pairs)
    mean = statistics.fmean(logs)
    return found | {"ratio": math.exp(mean), "interval": [math.exp(mean - half), math.exp(mean + half)]}


def busy(commands: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Return rates beside two loops, with what these lose, and beside another process that encodes."""
    alone = sum(loops(2, 5.0))
    result: dict[str, Any] = {"loops": {"neighbours_alone": alone / 5.0}}
    lost: dict[str, float] = {}
    for name, command in commands.items():
        with background(2):
            result["loops"][name] = medians({name: command}, rounds)[name]
    for name, command in commands.items():
        with encoding(command):
            lost[name] = sum(loops(2, 5.0)) / alone
    result["loops"]["share_left_to_neighbours"] = lost
    result["encoding"] = {}
    for name, command in commands.items():
        with encoding(command):
            result["encoding"][name] = medians({name: command}, rounds)[name]
    return result


def loops(count: int, seconds: float) -> list[int]:
    """Return how many rounds some processes make that loop at a time."""
    command = [sys.executable, "-c", _LOOP.format(seconds=seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [int(process.communicate()[0]) for process in running]


@contextlib.contextmanager
def background(count: int) -> Iterator[None]:
    """Keep processes looping."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextlib.contextmanager
def encoding(command: list[str]) -> Iterator[None]:
    """Keep a process encoding: as many rounds as lines are waiting in its input."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        process.stdin.write("\n" * 10_000)
        process.stdin.flush()
        yield
    finally:
        process.kill()
        process.wait()


def quota(commands: dict[str, list[str]], rounds: int) -> dict[str, Any] | None:
    """Return rates with the time of one core, or None where no control group can be made."""
    try:
        with one_core() as procs:
            limited = {
                name: ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh", *command]
                for name, command in commands.items()
            }
            alone = ["env", "OMP_NUM_THREADS=1", *commands["now"]]
            if hasattr(os, "sched_setaffinity"):
                alone = [sys.executable, "-c", _PINNED, *alone]
            found = medians({"one thread alone": alone, **limited}, rounds)
    except OSError as error:
        print(f"no quota: {error}")
        return None
    return found | {"share_of_one_thread": found["now"] / found["one thread alone"]}


_PINNED = (
    "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.execvp(sys.argv[1], sys.argv[1:])"
)


@contextlib.contextmanager
def one_core() -> Iterator[Path]:
    """Make a control group that may use one core's time, and yield the file that takes its processes."""
    mounts = Path("/sys/fs/cgroup")
    version1 = (mounts / "cpu" / "cpu.cfs_quota_us").exists()
    group = (mounts / "cpu" if version1 else mounts) / f"sparse-sts-{os.getpid()}"
    group.mkdir()
    try:
        if version1:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(_PERIOD))
        else:
            (group / "cpu.max").write_text(f"{_PERIOD} {_PERIOD}")
        yield group / "cgroup.procs"
    finally:
        time.sleep(0.5)  # its processes are killed, and have yet to leave
        group.rmdir()


if __name__ == "__main__":
    main()
