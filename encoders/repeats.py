"""Rows that say again what was said, and users no human can be."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from encoders.validity import CODES

MINUTE_US = 60_000_000


def mark_repeats(rows: pl.DataFrame, max_per_minute: int, impression: int) -> NDArray[np.uint8]:
    """Reasons of exact duplicates, and of all rows of users no human can be.

    Args:
        rows: Columns ``user``, ``timestamp`` (microseconds), ``behaviour`` and others, sorted by user and time,
            equal ones in the order of the log. [n]
        max_per_minute: Behaviours a user may have within 60 s, duplicates and impressions not counted.
        impression: The number that stands for impressions in ``behaviour``.

    Returns:
        The code of ``duplicate`` or ``inhuman_rate``, or 0. The first of equal rows stays. [n]
    """
    user, time = rows["user"].to_numpy(), rows["timestamp"].to_numpy()
    reason = np.zeros(rows.height, dtype=np.uint8)
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    twins = _twins(np.flatnonzero(np.append(same, False) | np.append(False, same)), rows)
    if len(twins):
        first = rows[twins].select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
        reason[twins[~first]] = CODES["duplicate"]
    acts = np.flatnonzero((reason == 0) & (rows["behaviour"].to_numpy() != impression))
    who, when = user[acts], time[acts]
    later, earlier = slice(max_per_minute, None), slice(None, -max_per_minute)
    fast = (who[later] == who[earlier]) & (when[later] - when[earlier] < MINUTE_US)
    if fast.any():
        machine = np.isin(user, who[later][fast])
        reason[machine & (reason == 0)] = CODES["inhuman_rate"]
    return reason


def _twins(crowd: NDArray[np.int64], rows: pl.DataFrame) -> NDArray[np.int64]:
    """Of rows that share user and time with a neighbour, those that share the item with one as well; in order."""
    user, time, item = (rows[name].to_numpy()[crowd] for name in ("user", "timestamp", "item"))
    begins = np.append(True, (user[1:] != user[:-1]) | (time[1:] != time[:-1]))[: len(crowd)]
    moment = np.cumsum(begins)
    order = np.lexsort((item, moment))
    same = (np.diff(item[order]) == 0) & (np.diff(moment[order]) == 0)
    return np.sort(crowd[order[np.append(same, False) | np.append(False, same)]]) if len(crowd) else crowd
