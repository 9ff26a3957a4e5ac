"""Sessions of a log, and their split into train, validation and test by time."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from encoders.coded import encode

SPLITS = ("train", "validation", "test")
DAY_S = 86_400


@dataclass(frozen=True)
class Sessions:
    """Sessions of some users, by user, start and id."""

    row: NDArray[np.int32]  # [n], the session of each row
    ids: pl.Series  # [S]
    user: NDArray[np.int32]  # [S]
    start_us: NDArray[np.int64]  # [S], time of the first row, microseconds since 1970


def sessionise(
    user: NDArray[np.int32],
    time_us: NDArray[np.int64],
    given: pl.Series | None,
    names: pl.Series,
    gap_s: int,
    known: pl.Series | None = None,
) -> Sessions:
    """Sessions of behaviours.

    A session the log names is ``user:session``, so that two users who share a name have two sessions. Where
    it names none, a pause longer than ``gap_s`` starts one, named ``user@start``. A row without a name that no pause
    parts from rows of a known session belongs to it: to the one before it, or else to the next.

    Args:
        user: Sorted. int32 [n].
        time_us: Microseconds since 1970, sorted for each user. int64 [n].
        given: Session that the log names, null where none. None where there are none at all. [n]
        names: Name of each user. [U]
        gap_s: Longest pause within a session, seconds.
        known: Id of the session that a row is already of, null for new rows. [n]
    """
    keys = _gap_keys(user, time_us, given, gap_s)
    if given is None and known is None:  # the pauses alone decide, and the rows are in their order
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        own = _stamped(pl.Series(user[first]), pl.Series(time_us[first]), names)
        return Sessions(keys.astype(np.int32), own, user[first], time_us[first])
    ids = _ids_by_row(keys, user, time_us, given, names)
    coded = encode(ids if known is None else _join_known(ids, keys, known))
    keys, own = coded.codes.astype(np.int64), coded.values
    first = np.unique(keys, return_index=True)[1]
    found = pl.DataFrame({"user": user[first], "start": time_us[first], "id": own})
    order = found.select(pl.arg_sort_by("user", "start", "id")).to_series().to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Sessions(rank[keys], own.gather(order), user[first][order], time_us[first][order])


def _gap_keys(
    user: NDArray[np.int32], time_us: NDArray[np.int64], given: pl.Series | None, gap_s: int
) -> NDArray[np.int64]:
    """Number of the group without a pause that each row is of; rows that have a name have -1. [n]"""
    free = np.arange(len(user)) if given is None else np.flatnonzero(given.is_null().to_numpy())
    pause = np.diff(time_us[free], prepend=0) > gap_s * 1_000_000
    starts = pause | (np.diff(user[free], prepend=-1) != 0)
    keys = np.full(len(user), -1, dtype=np.int64)
    keys[free] = np.cumsum(starts) - 1
    return keys


def _stamped(user: pl.Series, start_us: pl.Series, names: pl.Series) -> pl.Series:
    second = start_us.to_numpy() // 1_000_000
    day, clock = np.divmod(second, DAY_S)
    days = np.arange(day.min(), day.max() + 1) if len(day) else day
    frame = pl.DataFrame(
        {
            "user": escaped(names).gather(user),
            "day": _written(days * DAY_S, "@%Y%m%d").gather(day - days[:1]),
            "clock": _clock().gather(clock),
        }
    )
    return frame.select(pl.concat_str("user", "day", "clock").alias("id"))["id"]


@cache
def _clock() -> pl.Series:
    """The seconds of a day as they are written: a look-up is faster than to write each."""
    return _written(np.arange(DAY_S), "T%H%M%S")


def _written(second: NDArray[np.int64], form: str) -> pl.Series:
    return pl.Series(second * 1_000_000).cast(pl.Datetime("us")).dt.strftime(form)


def escaped(names: pl.Series) -> pl.Series:
    """Names of users as they begin a session's id: what marks its end there does not occur in them."""
    if not names.str.contains_any(["%", ":", "@"]).any():
        return names
    plain = names.str.replace_all("%", "%25", literal=True).str.replace_all(":", "%3A", literal=True)
    return plain.str.replace_all("@", "%40", literal=True)


def _ids_by_row(
    keys: NDArray[np.int64],
    user: NDArray[np.int32],
    time_us: NDArray[np.int64],
    given: pl.Series | None,
    names: pl.Series,
) -> pl.Series:
    first = np.flatnonzero((keys >= 0) & (np.diff(_forward(keys), prepend=-1) != 0))
    stamped = _stamped(pl.Series(user[first]), pl.Series(time_us[first]), names)
    by_gap = stamped.extend_constant(None, 1).gather(np.where(keys < 0, len(stamped), keys))
    if given is None:
        return by_gap
    frame = pl.DataFrame({"user": escaped(names).gather(user), "given": given, "gap": by_gap})
    return frame.select(pl.coalesce(pl.concat_str("user", pl.lit(":"), "given"), "gap").alias("id"))["id"]


def _forward(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys with the last one above -1 in place of each -1; they only grow, so it is the largest so far. [n]"""
    return np.maximum.accumulate(keys) if len(keys) else keys


def _join_known(ids: pl.Series, keys: NDArray[np.int64], known: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"id": ids, "group": keys, "known": known})
    free = pl.col("group") >= 0
    before = pl.col("known").forward_fill().over("group")
    after = pl.col("known").backward_fill().over("group")
    joined = pl.when(free).then(pl.coalesce(before, after, "id"))
    return frame.select(joined.otherwise(pl.coalesce("known", "id")).alias("id"))["id"]


def split_starts(starts_us: NDArray[np.int64], validation: float, test: float) -> tuple[int, int]:
    """Session starts from which validation and test begin.

    Args:
        starts_us: Start of every session, microseconds since 1970. int64 [S].
        validation: Share of sessions before test, in (0, 1).
        test: Share of the latest sessions, in (0, 1).

    Returns:
        Two times in microseconds: the first of validation and the first of test. Sessions that start together
        are never parted.

    Raises:
        ValueError: One of the splits would be empty.
    """
    count = len(starts_us)
    places = [min(round(count * share), count - 1) for share in (1 - validation - test, 1 - test)]
    cuts = [int(start) for start in np.partition(starts_us, places)[places]]
    before = [int(np.count_nonzero(starts_us < start)) for start in cuts]
    sizes = np.diff(before, prepend=0, append=count)  # [3]
    if sizes.min() <= 0:
        got = ", ".join(f"{name} {max(size, 0)}" for name, size in zip(SPLITS, sizes, strict=True))
        raise ValueError(
            f"ingest: expected sessions in each of train, validation and test, got {got} by start time. "
            "Give a longer log, or raise ingest.validation_fraction and ingest.test_fraction."
        )
    return cuts[0], cuts[1]


def split_numbers(
    start_us: NDArray[np.int64], validation_from_us: int, test_from_us: int
) -> NDArray[np.int8]:
    """Index into ``SPLITS`` of sessions by the time they start. int8 [S]"""
    return ((start_us >= validation_from_us) | (start_us >= test_from_us)).astype(np.int8) + (
        start_us >= test_from_us
    ).astype(np.int8)
