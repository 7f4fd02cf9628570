"""Refuse to use Java or torch in a process that was forked after they were first used.

A fork copies one thread. The threads of the Java virtual machine, and those of OpenMP that torch computes with, do not
exist in the child, and locks that other threads held stay locked, so a call would wait for ever (POSIX ``fork``). The
check compares process ids, takes no lock, and costs less than a microsecond.
"""

from __future__ import annotations

import os

from sparse_sts_index.errors import ForkError


class ForkGuard:
    """Remember the process that first used something that does not survive a fork.

    Parameters
    ----------
    name : str
        What is guarded, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: int | None = None

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that first used it."""
        return self._process is not None and self._process != os.getpid()

    def enter(self, process: int | None = None) -> None:
        """Mark as used, or refuse. Call this before each use and before taking any lock around one.

        Parameters
        ----------
        process : int, optional
            Id of the process that uses it. Default: this one.

        Raises
        ------
        ForkError
            It was first used before this process was forked.
        """
        if self._process is None:
            self._process = os.getpid() if process is None else process
        elif self._process != os.getpid():
            raise ForkError(
                f"{self._name} was used before this process was forked and does not work in it; load models and open "
                "indexes after the fork, or start the process by spawn (multiprocessing.get_context('spawn'))"
            )


JAVA = ForkGuard("Java")
TORCH = ForkGuard("torch")
