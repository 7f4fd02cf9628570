"""Checks of numeric parameters: nan is in no range, and comparisons alone do not tell."""

from __future__ import annotations

import math
from numbers import Integral, Real

#: The largest count that Java, and most C libraries, take.
LARGEST = 2**31 - 1


def check_whole(name: str, value: object, low: int, high: float = LARGEST) -> None:
    """Refuse a parameter that is not a whole number in a range.

    Parameters
    ----------
    name : str
        For the message.
    value : object
    low : int
    high : int or math.inf
        The least and the largest value allowed.

    Raises
    ------
    ValueError
        The value is of another type (a bool, too), or out of range.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:  # type: ignore[call-overload]
        limit = f"at least {low}" if high in (LARGEST, math.inf) else f"{low} to {high}"
        raise ValueError(f"{name} must be a whole number, {limit}, not {value!r:.40}")


def check_real(name: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Refuse a parameter that is not a finite number in a range.

    Parameters
    ----------
    name : str
        For the message.
    value : object
    low, high : float
        The least and the largest value allowed.
    above : bool
        The value must be above `low`.

    Raises
    ------
    ValueError
        The value is of another type (a bool, too), not finite, or out of range.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not low <= number <= high or (above and number == low):
        limit = f"above {low:g}" if above else f"at least {low:g}"
        limit += f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be a finite number, {limit}, not {value!r:.40}")
