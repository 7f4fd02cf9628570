"""Try again, later and later: exponential back-off with full jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.engines.base import Busy
from sparse_sts_index.errors import EngineError

T = TypeVar("T")
_FIRST_CONTACT = 3  # attempts


@dataclass(frozen=True)
class BackOff:
    """How to wait.

    The n-th wait is a random part of ``base * 2**n`` seconds, at most of `cap`, and no shorter than the engine asks for
    (as AWS recommends: "Exponential Backoff And Jitter", 2015).

    Attributes
    ----------
    attempts : int
        After so many in a row it is an error.
    base, cap, patience : float
        Seconds; an engine that wants to be left alone for longer than `patience` is an error.
    waiting : callable, optional
        Called before each wait with what was busy, and the seconds.
    sleep, random : callable

    Raises
    ------
    ValueError
        A number is out of its range, or not finite.
    """

    attempts: int = 10
    base: float = 0.5
    cap: float = 60.0
    patience: float = 600.0
    waiting: Callable[[Busy, float], None] | None = None
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = field(default_factory=lambda: random.Random().random)

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, 1)
        for name in ("base", "cap", "patience"):
            check_real(name, getattr(self, name), 0)

    def briefly(self) -> Self:
        """The same with fewer attempts, for a first contact: rather a wrong address than a busy engine."""
        return replace(self, attempts=min(self.attempts, _FIRST_CONTACT))

    def call(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, in the end; it says with :class:`Busy` that it wants to be called again.

        Raises
        ------
        EngineError
            Too many attempts.
        """
        failed = 0
        while True:
            try:
                return attempt()
            except Busy as busy:
                failed += 1
                asked = busy.retry_after or 0.0
                if failed >= self.attempts or asked > self.patience:
                    raise EngineError(f"{busy} (given up after {failed} attempts)") from busy
                seconds = max(asked, self.random() * min(self.cap, self.base * 2**failed))
                if self.waiting is not None:
                    self.waiting(busy, seconds)
                self.sleep(seconds)
