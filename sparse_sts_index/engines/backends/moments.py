"""Dates in engines that keep them to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sparse_sts_index.data.filters import Operator

_MILLISECOND = timedelta(milliseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC, microsecond=999_000)


def to_millisecond(moment: datetime, operator: Operator = "=") -> str:
    """A moment in ISO 8601, as a document's date is cut off, or so that comparing with it says the same of such dates.

    Parameters
    ----------
    moment : datetime
        In UTC.
    operator : {"=", "<", "<=", ">", ">="}
        What it is compared by: what is not before a moment is not before the next whole millisecond.
    """
    whole = moment - timedelta(microseconds=moment.microsecond % 1000)
    if whole < moment and operator in ("<", ">="):
        whole = min(whole, _LAST - _MILLISECOND) + _MILLISECOND
    return f"{whole.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
