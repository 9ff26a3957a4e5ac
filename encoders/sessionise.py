"""Sessions of a log, and their split into train, validation and test by time."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


def sessionise(behaviours: pl.DataFrame, gap_s: int) -> pl.DataFrame:
    """Behaviours with ``session_id`` and ``session_start``, sorted by user, session start and time.

    A session the log names is ``user:session``, so that two users who share a name have two sessions. Where
    it names none, a pause longer than ``gap_s`` starts one, named ``user@start``.

    Args:
        behaviours: Columns user_id, given_session (nullable), timestamp (us, UTC); sorted by user and time.
        gap_s: Longest pause within a session, seconds.

    Returns:
        The same rows with the two columns added; rows of equal time keep their order.
    """
    user = (
        pl.col("user_id").str.replace_all("%", "%25").str.replace_all(":", "%3A").str.replace_all("@", "%40")
    )
    given = behaviours.filter(pl.col("given_session").is_not_null())
    given = given.with_columns(
        pl.concat_str(user, pl.lit(":"), "given_session").alias("session_id"),
        pl.col("timestamp").min().over("user_id", "given_session").alias("session_start"),
    )
    time = pl.col("timestamp")
    pause = (time - time.shift(1)) > pl.duration(seconds=gap_s)
    starts = (pl.col("user_id") != pl.col("user_id").shift(1)) | pause
    by_gap = behaviours.filter(pl.col("given_session").is_null())
    by_gap = by_gap.with_columns(
        pl.when(starts.fill_null(True)).then(time).forward_fill().alias("session_start")
    )
    stamp = pl.col("session_start").dt.strftime("%Y%m%dT%H%M%S")
    by_gap = by_gap.with_columns(pl.concat_str(user, pl.lit("@"), stamp).alias("session_id"))
    both = pl.concat([given, by_gap.select(given.columns)])
    return both.sort("user_id", "session_start", "session_id", "timestamp", maintain_order=True)


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
    starts = np.sort(starts_us)  # [S]
    cuts = [
        int(starts[min(round(len(starts) * share), len(starts) - 1)])
        for share in (1 - validation - test, 1 - test)
    ]
    sizes = np.diff(np.searchsorted(starts, cuts), prepend=0, append=len(starts))  # [3]
    if sizes.min() <= 0:
        got = ", ".join(f"{name} {max(size, 0)}" for name, size in zip(SPLITS, sizes, strict=True))
        raise ValueError(
            f"ingest: expected sessions in each of train, validation and test, got {got} by start time. "
            "Give a longer log, or raise ingest.validation_fraction and ingest.test_fraction."
        )
    return cuts[0], cuts[1]


def label_splits(session_start: pl.Expr, validation_from_us: int, test_from_us: int) -> pl.Expr:
    """``train``, ``validation`` or ``test`` by the time a session starts."""
    start = session_start.dt.timestamp("us")
    later = pl.when(start >= validation_from_us).then(pl.lit("validation")).otherwise(pl.lit("train"))
    return pl.when(start >= test_from_us).then(pl.lit("test")).otherwise(later)
