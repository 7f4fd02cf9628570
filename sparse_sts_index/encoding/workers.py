"""Threads for torch that compute in fewer threads than the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

_lock = threading.Lock()
_executors: dict[tuple[int, int], ThreadPoolExecutor] = {}


def torch_workers(count: int, threads: int) -> ThreadPoolExecutor:
    """Return an executor whose threads compute with torch in some threads each. It lives as long as the process.

    ``torch.set_num_threads`` sets the number for the calling thread, and for threads that use torch for the first time
    later. So all threads of the executor are started together, and the number for later threads is put back.

    Parameters
    ----------
    count : int
        Number of threads of the executor.
    threads : int
        Number of threads that each of them computes in.
    """
    with _lock:
        executor = _executors.get((count, threads))
        if executor is None:
            others = torch.get_num_threads()
            started = threading.Barrier(count + 1)

            def start() -> None:
                torch.get_num_threads()  # a thread takes the number for new threads when it first asks
                torch.set_num_threads(threads)
                started.wait()

            executor = ThreadPoolExecutor(count, thread_name_prefix="sparse-sts-encode")
            for _ in range(count):
                executor.submit(start)
            started.wait()
            torch.set_num_threads(others)
            _executors[count, threads] = executor
        return executor
