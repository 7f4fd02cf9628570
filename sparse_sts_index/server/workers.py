"""Serve an index in several processes that share an address, and replace those that die.

Python computes in one thread at a time, so that one process leaves cores idle, however many threads it has.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from sparse_sts_index._utils.environment import cores
from sparse_sts_index._utils.files import os_errors_as
from sparse_sts_index.errors import ServerError, SparseStsError
from sparse_sts_index.index import SparseStsIndex
from sparse_sts_index.server.run import check_extra, listen, log_json, serve_at, url_of
from sparse_sts_index.server.settings import METRICS_VARIABLE, ServerSettings

_LONGEST_PAUSE = 60.0  # seconds before a worker that could not start is started again
_LOOK = 1.0  # seconds from look to look, where nothing happens
_SOON = 0.1  # seconds until it is known that a worker has ended, or that it takes too long
_THREADS = "OMP_NUM_THREADS"
_TO_STOP = 5.0  # seconds beyond those of a request
_spawn = get_context("spawn")  # threads of Java and OpenMP do not survive a fork
logger = logging.getLogger("sparse_sts_index.server")


def serve_workers(
    open_index: Callable[[], SparseStsIndex], settings: ServerSettings, workers: int, *, level: str = "info"
) -> None:
    """Serve an index in several processes until SIGTERM or SIGINT; what had been taken by then is finished.

    The first is started alone, so that what is wrong with the index or the model is found once. A script keeps this
    call under ``if __name__ == "__main__"``, because each worker imports the script.

    Parameters
    ----------
    open_index : callable
        Opens the index in each worker; can be pickled.
    settings : ServerSettings
        Of each worker: each has a queue of its own.
    workers : int
    level : {"debug", "info", "warning", "error"}
        Of what is logged; see :func:`~.server.run.serve`.

    Raises
    ------
    ServerError
        The address is taken, or the first worker does not start; the message is that of its error.
    MissingExtraError
        FastAPI or uvicorn is not installed.
    ValueError
        The settings let documents be changed, which one process at a time may.
    """
    if settings.writable:
        raise ValueError("one process at a time may change an index: writable takes one worker")
    check_extra()
    signals = _Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _reserved(settings) as address, tempfile.TemporaryDirectory(prefix="sparse-sts-") as metrics:
            log_json(level)
            port = address.getsockname()[1]
            task = _Task(open_index, replace(settings, port=port), level, metrics, max(1, cores() // workers))
            team: list[_Worker] = []
            try:
                team.append(_Worker(task))
                _wait_for(team[0], signals)
                if not signals.count:
                    logger.info("listening", extra={"url": url_of(address)})
                    team += (_Worker(task) for _ in range(workers - 1))
                _watch(team, signals)
                logger.info("stopping")
            finally:
                _stop(team, settings.timeout + _TO_STOP, signals)
            logger.info("stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reserved(settings: ServerSettings) -> socket.socket:
    """Return a socket with the address, where it does not listen itself but others may.

    Raises
    ------
    ServerError
        See :func:`~.server.run.listen`.
    """
    if sys.platform != "linux":
        raise ServerError("several workers share an address on Linux only")
    with listen(settings) as alone:  # an address that others share with each other is taken all the same
        family, address = alone.family, alone.getsockname()
    reserved = socket.socket(family)
    if family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as create_server has it
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with os_errors_as(ServerError, f"cannot listen at {settings.host}, port {address[1]}"):  # another was faster
        reserved.bind(address)
    return reserved


@dataclass(frozen=True)
class _Task:
    """Tell a worker what to do, in which folder to count for the metrics, and in how many threads to compute."""

    open_index: Callable[[], SparseStsIndex]
    settings: ServerSettings
    level: str
    metrics: str
    threads: int


class _Signals:
    """Count signals. An exception instead could come while a process is being started.

    Attributes
    ----------
    count : int
        Number of signals so far.
    arrived : Connection
        To wait for one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.arrived, self._told = _spawn.Pipe(duplex=False)

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count == 1:
            self._told.send_bytes(b".")


class _Worker:
    """A process that serves, and another one in its place when it dies.

    Attributes
    ----------
    ready : bool
        Whether it serves.
    problem : str or None
        Why it could not start.
    """

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._pause = 0.0
        self._start()

    def _start(self) -> None:
        self.ready = False
        self.problem: str | None = None
        self._due: float | None = None  # when another one is to take its place
        self._reports, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_work, args=(self._task, theirs), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: a terminal sends it to all
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def events(self) -> list[Connection | int]:
        """Return what to wait for."""
        if self._due is not None:
            return []
        return [self._process.sentinel, *([] if self.ready or self.problem else [self._reports])]

    def look(self) -> None:
        """Take notice of what has happened; start another process where one has died."""
        alive = self._process.is_alive()
        if not self.ready and self.problem is None and self._reports.poll():
            try:
                self.problem = self._reports.recv()
                self.ready = self.problem is None
            except EOFError:
                self.problem = "a worker died before it was ready"
        if alive:
            return
        if self._due is None:
            said = {"worker": self._process.pid, "status": self._process.exitcode, "problem": self.problem}
            logger.error("worker died", extra=said)
            _forget(self._task.metrics, self._process.pid)
            self._pause = 0.0 if self.ready else min(_LONGEST_PAUSE, max(1.0, 2 * self._pause))
            self._due = time.monotonic() + self._pause
        elif time.monotonic() >= self._due:
            self._start()

    def stop(self) -> None:
        """Ask it to finish what it has taken, and to end."""
        if self._process.is_alive():
            self._process.terminate()

    def join(self, too_long: Callable[[], bool]) -> None:
        """Wait for its end, and end it if that takes too long."""
        while self._process.is_alive() and not too_long():
            self._process.join(_SOON)
        self._process.kill()
        self._process.join()


def _wait_for(worker: _Worker, signals: _Signals) -> None:
    """Wait until a worker serves, or for a signal.

    Raises
    ------
    ServerError
        It does not start.
    """
    while not (worker.ready or signals.count):
        connection.wait([*worker.events, signals.arrived])
        worker.look()
        if worker.problem:
            raise ServerError(worker.problem)


def _watch(team: Sequence[_Worker], signals: _Signals) -> None:
    """Keep the team complete, until a signal."""
    while not signals.count:
        connection.wait([signals.arrived, *(event for worker in team for event in worker.events)], _LOOK)
        for worker in team:
            worker.look()


def _stop(team: Sequence[_Worker], seconds: float, signals: _Signals) -> None:
    """End the team within some seconds, or at a second signal."""
    for worker in team:
        worker.stop()
    deadline = time.monotonic() + seconds
    for worker in team:
        worker.join(lambda: time.monotonic() > deadline or signals.count > 1)


def _forget(metrics: str, pid: int | None) -> None:
    """Take the gauges of a process that has died out of the metrics."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, metrics)  # type: ignore[no-untyped-call]


# In the worker


def _work(task: _Task, reports: Connection) -> None:
    """Serve; report None when ready, or what prevents it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(reports, task.metrics), daemon=True).start()
    os.environ[METRICS_VARIABLE] = task.metrics
    os.environ.setdefault(_THREADS, str(task.threads))
    log_json(task.level, worker=os.getpid())

    def tell() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # uvicorn has set its own
        reports.send(None)
        logger.info("worker ready", extra={"resident_mib": _resident_mib()})

    try:
        serve_at(lambda: listen(task.settings, shared=True), task.open_index(), task.settings, tell)
    except SparseStsError as error:
        reports.send(str(error))
        raise SystemExit(1) from None


def _end_with_parent(reports: Connection, metrics: str) -> None:
    try:
        reports.recv()  # nothing ever comes
    except (EOFError, OSError):
        shutil.rmtree(metrics, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)


def _resident_mib() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
