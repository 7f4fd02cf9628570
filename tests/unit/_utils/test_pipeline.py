from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from sparse_sts_index._utils.pipeline import THREAD_NAME, overlap


def test_results_in_order_with_stages_nested() -> None:
    assert list(overlap(str, overlap(lambda x: x * x, range(20), ahead=3))) == [str(x * x) for x in range(20)]
    assert list(overlap(str, [])) == []


def test_it_goes_on_while_the_caller_is_busy_and_no_further() -> None:
    drawn: list[int] = []
    done = [threading.Event() for _ in range(6)]

    def items() -> Iterator[int]:
        for item in range(6):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(item)
            yield item

    def work(item: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        done[item].set()
        return item

    results = overlap(work, items(), ahead=1)
    assert next(results) == 0
    assert done[1].wait(10)  # without being asked for
    assert drawn == [0, 1]
    assert next(results) == 1
    assert drawn == [0, 1, 2]
    assert not done[3].is_set()
    assert list(results) == [2, 3, 4, 5]


def test_an_error_comes_where_its_result_would() -> None:
    results = overlap(lambda x: 1 // x, [1, 2, 0, 3], ahead=2)
    assert [next(results), next(results)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(results)

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    results = overlap(abs, items(), ahead=0)
    assert next(results) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_an_error_leaves_no_stage_running() -> None:
    with pytest.raises(ZeroDivisionError) as kept:  # and the frames it came through with it
        for _ in overlap(lambda x: 1 // x, overlap(abs, range(0, 50), ahead=3)):
            pass
    assert kept.tb is not None
    assert not any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


def test_who_gives_up_leaves_nothing_running() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.05)
        return item

    results = overlap(work, range(50), ahead=20)
    assert next(results) == 0
    results.close()
    assert not any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())
    assert len(started) < 10
