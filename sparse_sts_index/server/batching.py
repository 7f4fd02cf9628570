"""A thread that does jobs, those that wait at the same time together.

While a batch is under way, jobs pile up; they make the next one. So batches grow with the load, and a job that comes
alone waits for nobody: no clock is involved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

logger = logging.getLogger("sparse_sts_index.server")

_SMOOTHING = 0.2  # weight of the last batch in the rate
_LONGEST_WAIT = 60  # seconds that a client is told to stay away, at most


class OverloadedError(Exception):
    """The queue is full.

    Attributes
    ----------
    retry_after : int
        Seconds after which it should have room again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too much is waiting already; try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The worker takes no more jobs."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that was done.

    Attributes
    ----------
    size : int
        Of its jobs together.
    waited : tuple of float
        Seconds that each job waited.
    seconds : float
        That the batch took.
    """

    size: int
    waited: tuple[float, ...]
    seconds: float


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Job, Result]):
    job: Job
    size: int
    future: asyncio.Future[Result]
    since: float


class Worker(Generic[Job, Result]):
    """One thread, started at once.

    Parameters
    ----------
    name : str
        Of the thread.
    work : callable
        Does a batch of jobs; a result, or an exception, for each.
    most : int
        Size of a batch. A job that is larger makes one of its own.
    limit : int, optional
        Size of all jobs that may wait. Where nothing waits, any one may. Default: no limit.
    size : callable
        Of a job. Default: each counts 1.
    done : callable, optional
        Told of each batch, in the thread.
    at_end : callable, optional
        Called in the thread before it ends.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job]], Sequence[Result | Exception]],
        *,
        most: int = 1,
        limit: int | None = None,
        size: Callable[[Job], int] = lambda job: 1,
        done: Callable[[Done], None] | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._work, self._most, self._limit, self._size = work, most, limit, size
        self._done, self._at_end = done, at_end
        self._queue: deque[_Waiting[Job, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pending = 0
        self._rate = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Size of the jobs that wait."""
        return self._pending

    @property
    def alive(self) -> bool:
        """Whether the thread goes on."""
        return self._thread.is_alive()

    async def do(self, job: Job) -> Result:
        """Have a job done. If this is cancelled before it has begun, it never does.

        Raises
        ------
        OverloadedError
            Too many are waiting.
        ClosedError
            :meth:`close` was called.
        Exception
            What the job gave.
        """
        size = self._size(job)
        with self._changed:
            if self._closed:
                raise ClosedError
            if self._limit is not None and self._pending and self._pending + size > self._limit:
                raise OverloadedError(self._retry_after())
            waiting = _Waiting[Job, Result](job, size, asyncio.get_running_loop().create_future(), time.perf_counter())
            self._queue.append(waiting)
            self._pending += size
            self._changed.notify()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            with self._changed:
                if waiting in self._queue:
                    self._queue.remove(waiting)
                    self._pending -= size
            raise

    def _retry_after(self) -> int:
        seconds = self._pending / self._rate if self._rate else 1.0
        return max(1, min(_LONGEST_WAIT, math.ceil(seconds)))

    def close(self) -> None:
        """Take no more jobs, finish those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._do(batch)
        finally:
            if self._at_end is not None:
                self._at_end()

    def _next(self) -> list[_Waiting[Job, Result]]:
        """The next batch; empty at the end."""
        batch: list[_Waiting[Job, Result]] = []
        with self._changed:
            while not batch:
                while not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                size = 0
                while self._queue and (not batch or size + self._queue[0].size <= self._most):
                    waiting = self._queue.popleft()
                    self._pending -= waiting.size
                    if not waiting.future.cancelled():
                        batch.append(waiting)
                        size += waiting.size
        return batch

    def _do(self, batch: list[_Waiting[Job, Result]]) -> None:
        start = time.perf_counter()
        results: Sequence[Result | Exception]
        try:
            results = self._work([waiting.job for waiting in batch])
        except Exception as error:  # it is the askers' now
            results = [error] * len(batch)
        except BaseException as error:  # a panic in native code: no exception to asyncio
            logger.exception("%s failed", self._thread.name)
            results = [RuntimeError(repr(error))] * len(batch)
        seconds, size = time.perf_counter() - start, sum(waiting.size for waiting in batch)
        if self._done is not None:
            self._done(Done(size, tuple(start - waiting.since for waiting in batch), seconds))
        rate = size / max(seconds, 1e-6)
        self._rate = rate if not self._rate else self._rate + _SMOOTHING * (rate - self._rate)
        loop: Any = batch[0].future.get_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            loop.call_soon_threadsafe(_settle, [waiting.future for waiting in batch], results)


def _settle(futures: list[asyncio.Future[Result]], results: Sequence[Result | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
