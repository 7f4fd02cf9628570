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
        """True if this process was forked after the first use."""
        return self._process is not None and self._process != os.getpid()

    def check(self) -> None:
        """Refuse a process that was forked after the first use. Call this before taking any lock.

        Raises
        ------
        ForkError
            It was first used before this process was forked.
        """
        if self.inherited:
            raise ForkError(
                f"{self._name} was used before this process was forked and does not work in it; fork before a model is "
                "loaded or an index opened, or start the process by spawn (multiprocessing.get_context('spawn'))"
            )

    def enter(self) -> None:
        """Check, and mark as used from now on; errors are those of :meth:`check`."""
        self.check()
        self._process = os.getpid()

    def inherit(self) -> None:
        """Mark as used by the process that this one was forked from, unless a use is known already."""
        if self._process is None:
            self._process = os.getppid()


JAVA = ForkGuard("Java")
TORCH = ForkGuard("torch")
