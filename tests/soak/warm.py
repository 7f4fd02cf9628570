"""The command line, and functions, in processes that start warm: a server has imported everything, and forks.

What runs is what ``sparse-sts`` runs, but for the five seconds of imports; Java starts in each process anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: System calls that change files; a process is killed at one of them, before it is done.
CHANGES = "write,pwrite64,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,rmdir"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sparse_sts_index.cli.main", "sparse_sts_index.index", "sparse_sts_index.training"])
_TIMEOUT = 300


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status, negative for a signal, and what it wrote on stderr."""

    status: int
    stderr: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def one_line(self) -> bool:
        """Whether it failed as a command should: status 1, and one line that begins with ``Error:``."""
        lines = self.stderr.strip().splitlines()
        return (
            self.status == 1 and len(lines) >= 1 and lines[-1].startswith("Error: ") and "Traceback" not in self.stderr
        )


@dataclass(frozen=True)
class Command:
    """A process with a command in it that is going to run."""

    process: Any
    gate: Connection
    stderr: Path

    def go(self) -> None:
        self.gate.send(None)

    def end(self, start: float) -> Outcome:
        self.process.join(_TIMEOUT)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError("a command hangs")
        text = self.stderr.read_text(encoding="utf-8", errors="replace")
        self.stderr.unlink()
        return Outcome(self.process.exitcode, text, time.monotonic() - start)


def start(
    arguments: Sequence[object], chunk: int | None = None, folder: Path | None = None, **environment: str
) -> Command:
    """A process that waits to run ``sparse-sts`` with these arguments."""
    descriptor, name = tempfile.mkstemp(prefix="soak-stderr-")
    os.close(descriptor)
    ours, theirs = _CONTEXT.Pipe()
    arguments = [str(argument) for argument in arguments]
    process = _CONTEXT.Process(target=_main, args=(theirs, arguments, name, chunk, folder, environment))
    process.start()
    ours.recv()  # it is there
    return Command(process, ours, Path(name))


def run(arguments: Sequence[object], **options: Any) -> Outcome:
    """Let a command run to its end."""
    command = start(arguments, **options)
    began = time.monotonic()
    command.go()
    return command.end(began)


def kill_after(arguments: Sequence[object], seconds: float, **options: Any) -> Outcome:
    """SIGKILL after some time, if the command has not ended by then."""
    command = start(arguments, **options)
    began = time.monotonic()
    command.go()
    command.process.join(seconds)
    command.process.kill()
    return command.end(began)


def kill_at(arguments: Sequence[object], call: int, **options: Any) -> Outcome:
    """SIGKILL at a thread's so-many-th system call that would change files."""
    with _traced(arguments, f"inject={CHANGES}:signal=SIGKILL:when={call}", os.devnull, options) as command:
        began = time.monotonic()
        command.go()
        return command.end(began)


def fail_at(arguments: Sequence[object], call: int, error: str, **options: Any) -> Outcome:
    """A thread's so-many-th system call that would change files, but for messages, fails."""
    calls = CHANGES.removeprefix("write,")  # which Python and Java use for messages to each other, too
    with _traced(arguments, f"inject={calls}:error={error}:when={call}", os.devnull, options) as command:
        began = time.monotonic()
        command.go()
        return command.end(began)


def count_calls(arguments: Sequence[object], **options: Any) -> int:
    """How many system calls that would change files the thread with the most of them makes."""
    with tempfile.NamedTemporaryFile("r", prefix="soak-trace-") as trace:
        with _traced(arguments, f"trace={CHANGES}", trace.name, options) as command:
            command.go()
            outcome = command.end(time.monotonic())
        assert outcome.status == 0, outcome
        threads: dict[str, int] = {}
        for line in trace.read().splitlines():
            thread = line.split(maxsplit=1)[0]
            threads[thread] = threads.get(thread, 0) + ("resumed>" not in line and "+++" not in line)
    return max(threads.values())


@contextlib.contextmanager
def _traced(arguments: Sequence[object], expression: str, trace: str, options: dict[str, Any]) -> Iterator[Command]:
    command = start(arguments, **options)
    process = str(command.process.pid)
    filters = ["-e", f"trace={CHANGES}", "-e", expression] if expression.startswith("inject") else ["-e", expression]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, *filters, "-p", process], stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{process}/status")
    while "TracerPid:\t0\n" in status.read_text(encoding="utf-8"):
        assert tracer.poll() is None, "strace cannot attach"
        time.sleep(0.01)
    time.sleep(0.05)
    try:
        yield command
    finally:
        tracer.wait(_TIMEOUT)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, with a Java of its own."""
    return call_all([(function, arguments)])[0]


def call_all(calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], timeout: float = _TIMEOUT) -> list[Any]:
    """What functions return, side by side, each in a process of its own."""
    running = []
    for function, arguments in calls:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_call, args=(theirs, function, arguments))
        process.start()
        theirs.close()
        running.append((function, process, ours))
    results = []
    for function, process, ours in running:
        try:
            result = ours.recv() if ours.poll(timeout) else AssertionError("no answer")
        except EOFError:
            result = AssertionError(f"{function.__name__} died")
        process.join(_TIMEOUT)
        results.append(result)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def moments(rng: random.Random, count: int, most: float) -> list[float]:
    """Some moments of a command that takes `most` seconds; one in each of as many parts of it."""
    return [(number + rng.random()) * most / count for number in range(count)]


def _main(
    gate: Connection,
    arguments: list[str],
    stderr: str,
    chunk: int | None,
    folder: Path | None,
    environment: dict[str, str],
) -> None:
    from sparse_sts_index.cli.main import main

    from sparse_sts_index import convert

    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    if chunk is not None:
        convert.CHUNK = chunk
    descriptor = os.open(stderr, os.O_WRONLY)
    os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    gate.send(None)
    gate.recv()
    main(arguments, prog_name="sparse-sts")


def _call(answer: Connection, function: Callable[..., Any], arguments: Any) -> None:
    try:
        answer.send(function(*arguments))
    except BaseException as error:
        answer.send(AssertionError(f"{type(error).__name__}: {error}"))
