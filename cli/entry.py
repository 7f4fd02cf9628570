"""The process of ``sparse-sts``: interrupts, encodings and the environment, before anything slow is imported."""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
import sys
from types import FrameType

_OMP_THREADS = re.compile(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*")


def run() -> None:
    """Run the command line, and end the process."""
    before = signal.getsignal(signal.SIGINT)
    # A script's background job has it ignored. Imports turn a KeyboardInterrupt into a traceback, or swallow it.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    _prepare_environment()
    atexit.register(gc.freeze)  # the last collections would walk through torch's million objects: a quarter of a second
    from .main import main

    signal.signal(signal.SIGINT, before)
    main()


def _end_at_once(_: int, __: FrameType | None) -> None:
    os.write(2, b"\nAborted!\n")  # click's word; nothing has been begun that would be left half done
    os._exit(1)


def _prepare_environment() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # rather than end in the middle
    if sys.flags.optimize > 1:
        sys.exit("Error: transformers needs docstrings: run Python without -OO and PYTHONOPTIMIZE=2")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads of OpenMP that wait for one another keep their cores busy for 300,000 rounds, milliseconds in which
        # other processes want them. 10,000 cost a quiet machine nothing.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and not _OMP_THREADS.fullmatch(threads):  # of which OpenMP would complain for each library
        del os.environ["OMP_NUM_THREADS"]
        sys.stderr.write(f"warning: OMP_NUM_THREADS={threads!a} is ignored: expected a positive whole number\n")
