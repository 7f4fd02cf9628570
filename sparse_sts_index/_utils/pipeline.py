"""Run the stages of a pipeline side by side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

#: What the threads made here are called, before a number.
THREAD_NAME = "sparse-sts-overlap"

T = TypeVar("T")
R = TypeVar("R")


def overlap(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    ahead: int = 1,
    workers: int = 1,
    executor: ThreadPoolExecutor | None = None,
) -> Generator[R, None, None]:
    """Apply a function to items in order, in threads of its own, while the caller is busy with earlier results.

    The items are drawn in the caller's thread, up to `ahead` of them before their turn, so what is in memory is
    bounded. Stages nest: the items of one may be the results of another. An error comes out where its result would
    have.

    Parameters
    ----------
    function : callable
    items : iterable
    ahead : int
        Results to have ready, or under way, beside the one that the caller has.
    workers : int
        Number of threads; with one, the function never runs twice at the same time.
    executor : ThreadPoolExecutor, optional
        Threads to use instead of new ones.

    Yields
    ------
    The results, in order.
    """
    used = executor or ThreadPoolExecutor(max_workers=workers, thread_name_prefix=THREAD_NAME)
    process = os.getpid()
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(used.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if executor is None:
            used.shutdown(cancel_futures=True)  # waits for what is under way, no more
        elif os.getpid() == process:  # in a forked child, nothing is under way
            wait([future for future in waiting if not future.cancel()])
        if isinstance(items, Generator):
            items.close()  # a stage before this one, while an error keeps it alive
