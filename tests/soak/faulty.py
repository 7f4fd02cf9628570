"""Commands that are killed, or whose system calls fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from warm import Command, Outcome

#: System calls that change files.
CHANGES = "write,pwrite64,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,rmdir"


def killed(outcome: Outcome) -> bool:
    return outcome.status == -signal.SIGKILL


def one_line(outcome: Outcome) -> bool:
    """Whether a command failed as one should: status 1, and a line at the end that begins with ``Error:``."""
    lines = outcome.stderr.strip().splitlines()
    clear = bool(lines) and lines[-1].startswith("Error: ") and "Traceback" not in outcome.stderr
    return outcome.status == 1 and clear


def java_crashed(outcome: Outcome) -> bool:
    """Whether Java ended the process with a report of its own: pyjnius passes on null where there is no heap at all."""
    return outcome.status == -signal.SIGABRT and "detected by the Java Runtime Environment" in outcome.stdout


def kill_after(arguments: Sequence[object], seconds: float, **options: Any) -> Outcome:
    """SIGKILL after some time, if the command has not ended by then."""
    command = Command(arguments, **options)
    command.go()
    command.process.join(seconds)
    command.process.kill()
    return command.end()


def kill_at(arguments: Sequence[object], call: int, **options: Any) -> Outcome:
    """SIGKILL at a thread's so-many-th system call that would change files, before it is done."""
    filters = [f"trace={CHANGES}", f"inject={CHANGES}:signal=SIGKILL:when={call}"]
    with _traced(Command(arguments, **options), filters, os.devnull) as command:
        command.go()
        return command.end()


def fail_at(arguments: Sequence[object], call: int, error: str, within: Path, **options: Any) -> tuple[Outcome, bool]:
    """Every thread's so-many-th system call that would change files fails; whether those were of files `within`."""
    filters = [f"trace={CHANGES}", f"inject={CHANGES}:error={error}:when={call}"]
    with tempfile.NamedTemporaryFile("r", prefix="soak-trace-") as trace:
        with _traced(Command(arguments, **options), filters, trace.name) as command:
            command.go()
            outcome = command.end()
        injected = [line for line in trace.read().splitlines() if "(INJECTED)" in line]
    return outcome, bool(injected) and all(str(within) in line for line in injected)


def count_calls(arguments: Sequence[object], **options: Any) -> int:
    """How many system calls that would change files the thread with the most of them makes."""
    return max(max(numbers) for numbers in _calls(arguments, **options).values())


def calls_within(arguments: Sequence[object], within: Path, **options: Any) -> list[int]:
    """Which of a thread's system calls, by number, would change files that are `within`; of all threads."""
    threads = _calls(arguments, within=within, **options).values()
    return sorted({number for numbers in threads for number, ours in numbers.items() if ours})


def _calls(arguments: Sequence[object], within: Path | None = None, **options: Any) -> dict[str, dict[int, bool]]:
    """By thread and number: whether a call that would change files was of files `within`."""
    with tempfile.NamedTemporaryFile("r", prefix="soak-trace-") as trace:
        with _traced(Command(arguments, **options), [f"trace={CHANGES}"], trace.name) as command:
            command.go()
            outcome = command.end()
        assert outcome.status == 0, outcome
        threads: dict[str, dict[int, bool]] = {}
        for line in trace.read().splitlines():
            thread = line.split(maxsplit=1)[0]
            if "resumed>" not in line and "+++" not in line:
                numbers = threads.setdefault(thread, {})
                numbers[len(numbers) + 1] = within is not None and str(within) in line
    return threads


@contextlib.contextmanager
def _traced(command: Command, filters: Sequence[str], trace: str) -> Iterator[Command]:
    process = str(command.process.pid)
    options = [option for expression in filters for option in ("-e", expression)]
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-qq", "-o", trace, *options, "-p", process], stderr=subprocess.DEVNULL
    )
    status = Path(f"/proc/{process}/status")
    while "TracerPid:\t0\n" in status.read_text(encoding="utf-8"):
        assert tracer.poll() is None, "strace cannot attach"
        time.sleep(0.01)
    time.sleep(0.05)
    try:
        yield command
    finally:
        tracer.wait(60)
