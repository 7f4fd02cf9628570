"""The command line, and functions, in processes that start warm: a server has imported everything, and forks.

What runs is what the installed ``sparse-sts`` runs, ``sparse_sts_index.cli.main``, with standard input, output and
error, exit status and a Java of its own; what is saved is the five seconds of imports. Settings that libraries read
when they are imported have to be there when the server starts.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_SETTINGS = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
_QUIET = {f"{library}_VERBOSITY": "error" for library in ("TRANSFORMERS", "DATASETS", "HF_HUB")}  # as the command does
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "sparse_sts_index.cli.main",
        "sparse_sts_index.index",
        "sparse_sts_index.training.fine_tuning",
        "sparse_sts_index.evaluation.benchmarking",
    ]
)
_TIMEOUT = 600


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, negative for a signal, what it wrote, and the seconds it took."""

    status: int
    stdout: str
    stderr: str
    seconds: float


class Command:
    """A process that waits to run ``sparse-sts`` with these arguments.

    Parameters
    ----------
    arguments : sequence
    input : bytes
        Its standard input.
    folder : Path, optional
        Where it runs.
    chunk : int, optional
        Sentences encoded together, instead of 2,048.
    environment : str
        Variables, for what reads them later than at import.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        input: bytes = b"",
        folder: Path | None = None,
        chunk: int | None = None,
        **environment: str,
    ) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="sparse-sts-warm-")
        self._streams = [Path(self._files.name, name) for name in ("stdin", "stdout", "stderr")]
        for stream in self._streams:
            stream.write_bytes(input if stream.name == "stdin" else b"")
        self._gate, theirs = _CONTEXT.Pipe()
        options = (list(map(str, arguments)), self._streams, folder, chunk, environment)
        self.process = _start(_run, theirs, *options)
        self._gate.recv()  # it is there

    def go(self) -> None:
        """Let it run."""
        self._began = time.monotonic()
        self._gate.send(None)

    def end(self) -> Outcome:
        """Wait until it has ended."""
        self.process.join(_TIMEOUT)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError("a command hangs")
        seconds = time.monotonic() - self._began
        stdout, stderr = (stream.read_text(encoding="utf-8", errors="replace") for stream in self._streams[1:])
        self._files.cleanup()
        return Outcome(self.process.exitcode, stdout, stderr, seconds)


def run(arguments: Sequence[object], **options: Any) -> Outcome:
    """Let a command run to its end; options are those of :class:`Command`."""
    command = Command(arguments, **options)
    command.go()
    return command.end()


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, with a Java of its own."""
    return call_all([(function, arguments)])[0]


def call_all(calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], timeout: float = _TIMEOUT) -> list[Any]:
    """What functions return, side by side, each in a process of its own."""
    running = []
    for function, arguments in calls:
        ours, theirs = _CONTEXT.Pipe()
        running.append((function, _start(_call, theirs, function, arguments), ours))
        theirs.close()
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


def _start(target: Callable[..., None], *arguments: Any) -> Any:
    process = _CONTEXT.Process(target=target, args=arguments)
    before = dict(os.environ)
    os.environ.update({**_SETTINGS, **_QUIET})  # the server starts with the first process
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return process


def _run(
    gate: Connection,
    arguments: list[str],
    streams: list[Path],
    folder: Path | None,
    chunk: int | None,
    environment: dict[str, str],
) -> None:
    from sparse_sts_index.cli.main import main

    from sparse_sts_index.encoding import documents

    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    if chunk is not None:
        documents.CHUNK = chunk
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR), number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (  # as cli/entry.py has them
        os.fdopen(n, "w", closefd=False, errors="backslashreplace") for n in (1, 2)
    )
    gate.send(None)
    gate.recv()
    main(arguments, prog_name="sparse-sts")


def _call(answer: Connection, function: Callable[..., Any], arguments: Any) -> None:
    try:
        answer.send(function(*arguments))
    except BaseException as error:
        answer.send(AssertionError(f"{type(error).__name__}: {error}"))
