"""The threads of the service: what waits together is done together, what is too much is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sparse_sts_index.server.batching import ClosedError, Done, OverloadedError, Worker


class Held:
    """Work that waits to be let go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, jobs: list[int]) -> list[int | Exception]:
        self.batches.append(jobs)
        assert self.go.wait(20)
        return [ValueError(f"odd {job}") if job % 2 else job * 10 for job in jobs]


def run(coroutine: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(coroutine(), 30))


async def began(work: Held) -> None:
    while not work.batches:
        await asyncio.sleep(0.001)


def test_what_waits_together_is_done_together_in_order() -> None:
    work, told = Held(), []

    async def main() -> None:
        worker = Worker[int, int]("test", work, most=3, done=told.append)
        tasks = [asyncio.ensure_future(worker.do(0))]
        await began(work)
        tasks += [asyncio.ensure_future(worker.do(job)) for job in range(2, 10)]
        await asyncio.sleep(0.05)
        assert worker.pending == 8
        work.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == [
            "0", *(f"odd {job}" if job % 2 else str(job * 10) for job in range(2, 10))
        ]  # fmt: skip
        worker.close()

    run(main)
    assert work.batches == [[0], [2, 3, 4], [5, 6, 7], [8, 9]]
    assert [done.size for done in told] == [1, 3, 3, 2]
    assert all(isinstance(done, Done) and min(done.waited) >= 0 for done in told)
    assert told[1].waited[0] >= 0.05  # in seconds


def test_sizes_make_batches_and_the_limit() -> None:
    work = Held()

    async def main() -> None:
        worker = Worker[int, int]("test", work, most=10, limit=20, size=lambda job: job)
        first = asyncio.ensure_future(worker.do(100))  # alone, whatever its size
        await began(work)
        tasks = [asyncio.ensure_future(worker.do(30))]  # where nothing waits, too
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as error:
            await worker.do(2)
        assert error.value.retry_after >= 1
        assert worker.pending == 30
        work.go.set()
        assert await first == 1000
        assert await tasks[0] == 300
        work.go.clear()
        work.batches.clear()
        tasks = [asyncio.ensure_future(worker.do(2))]
        await began(work)
        tasks += [asyncio.ensure_future(worker.do(size)) for size in (4, 6, 2, 8)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await worker.do(2)
        work.go.set()
        await asyncio.gather(*tasks)
        worker.close()

    run(main)
    assert work.batches == [[2], [4, 6], [2, 8]]


def test_what_nobody_waits_for_is_not_done() -> None:
    work = Held()

    async def main() -> None:
        worker = Worker[int, int]("test", work, most=8)
        first = asyncio.ensure_future(worker.do(0))
        await began(work)
        given_up, wanted = asyncio.ensure_future(worker.do(2)), asyncio.ensure_future(worker.do(4))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        work.go.set()
        assert await wanted == 40
        assert await first == 0
        assert worker.pending == 0
        worker.close()

    run(main)
    assert work.batches == [[0], [4]]


def test_closing_finishes_what_it_took_and_takes_no_more() -> None:
    work, ended = Held(), []

    async def main() -> None:
        worker = Worker[int, int]("test", work, at_end=lambda: ended.append(threading.current_thread().name))
        tasks = [asyncio.ensure_future(worker.do(job)) for job in (2, 4, 6)]
        await began(work)
        closing = asyncio.ensure_future(asyncio.to_thread(worker.close))
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            await worker.do(8)
        assert not closing.done()
        work.go.set()
        assert await asyncio.gather(*tasks) == [20, 40, 60]
        await closing

    run(main)
    assert ended == ["test"]


def test_a_batch_that_fails_fails_for_each_and_the_thread_goes_on() -> None:
    def work(jobs: list[int]) -> list[Any]:
        if 13 in jobs:
            raise RuntimeError("thirteen")
        return jobs

    async def main() -> None:
        worker = Worker[int, int]("test", work)
        with pytest.raises(RuntimeError, match="thirteen"):
            await worker.do(13)
        assert await worker.do(1) == 1
        worker.close()

    run(main)


def test_retry_after_is_how_long_the_queue_takes() -> None:
    def work(jobs: list[int]) -> list[Any]:
        time.sleep(0.02 * sum(jobs))  # 50 a second
        return jobs

    async def main() -> None:
        worker = Worker[int, int]("test", work, most=5, limit=150, size=lambda job: job)
        for _ in range(3):
            await worker.do(5)
        tasks = [asyncio.ensure_future(worker.do(5)) for _ in range(40)]
        refused: set[asyncio.Future[int]] = set()
        while not refused:
            await asyncio.sleep(0.01)
            refused = {task for task in tasks if task.done() and task.exception() is not None}
        for task in refused:
            error = task.exception()
            assert isinstance(error, OverloadedError)
            assert error.retry_after in (3, 4, 5)  # some 150 at 50 a second, somewhat less on a busy machine
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        worker.close()

    run(main)


def test_what_is_given_up_no_longer_counts_and_a_panic_is_answered() -> None:
    work = Held()

    class Panic(BaseException):
        pass

    def panic(jobs: list[int]) -> list[Any]:
        raise Panic("native")

    async def main() -> None:
        worker = Worker[int, int]("test", work, limit=4, size=lambda job: job)
        first = asyncio.ensure_future(worker.do(2))
        await began(work)
        given_up = asyncio.ensure_future(worker.do(4))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await worker.do(4)
        given_up.cancel()
        await asyncio.sleep(0)
        assert worker.pending == 0
        last = asyncio.ensure_future(worker.do(4))
        await asyncio.sleep(0)
        work.go.set()
        assert [await first, await last] == [20, 40]
        worker.close()
        assert not worker.alive
        fragile = Worker[int, int]("fragile", panic)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="native"):
                await fragile.do(1)
        assert fragile.alive
        fragile.close()

    run(main)
