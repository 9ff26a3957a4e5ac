from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.sessionise import label_splits, sessionise, split_starts

START = datetime(2020, 1, 1, tzinfo=UTC)


def log(rows: list[tuple[str, str | None, int]]) -> pl.DataFrame:
    """Sorted rows of (user, session the log names, second); ``n`` is the row's number."""
    frame = pl.DataFrame(rows, schema=["user_id", "given_session", "second"], orient="row").with_row_index(
        "n"
    )
    frame = frame.with_columns(pl.col("given_session").cast(pl.String))
    times = pl.lit(START) + pl.duration(seconds=pl.col("second"))
    return frame.with_columns(times.cast(pl.Datetime("us", "UTC")).alias("timestamp"))


def test_a_pause_longer_than_the_gap_starts_a_session() -> None:
    rows = sessionise(log([("a", None, 0), ("a", None, 10), ("a", None, 21), ("b", None, 22)]), gap_s=10)

    assert rows["session_id"].to_list() == [
        "a@20200101T000000",
        "a@20200101T000000",
        "a@20200101T000021",
        "b@20200101T000022",
    ]


def test_named_sessions_stay_whole_and_apart_by_user() -> None:
    rows = sessionise(log([("a", "s", 0), ("a", "t", 5), ("a", "s", 9), ("b", "s", 1)]), gap_s=1)

    assert rows["session_id"].to_list() == ["a:s", "a:s", "a:t", "b:s"]
    assert rows["n"].to_list() == [0, 2, 1, 3]


def test_user_and_session_names_cannot_be_confused() -> None:
    rows = sessionise(log([("a", "b:c", 0), ("a:b", "c", 0), ("a@20200101T000000", None, 0)]), gap_s=1)

    assert rows["session_id"].n_unique() == 3


def test_equal_times_keep_the_order_of_the_log() -> None:
    assert sessionise(log([("a", None, 3)] * 5), gap_s=1)["n"].to_list() == [0, 1, 2, 3, 4]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), min_size=1, max_size=40),
    st.integers(1, 60),
)
def test_gap_sessions_match_a_slow_reference(acts: list[tuple[str, int]], gap_s: int) -> None:
    acts = sorted(acts)
    expected, last = [], ("", 0)
    for user, second in acts:
        if user != last[0] or second - last[1] > gap_s:
            expected.append(f"{user}@{START + timedelta(seconds=second):%Y%m%dT%H%M%S}")
        else:
            expected.append(expected[-1])
        last = (user, second)

    assert sessionise(log([(u, None, s) for u, s in acts]), gap_s)["session_id"].to_list() == expected


def test_splits_follow_start_time_and_keep_ties_together() -> None:
    starts = np.array([9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8], dtype=np.int64)

    validation, test = split_starts(starts, 0.25, 0.25)
    frame = pl.DataFrame({"start": starts.astype("datetime64[us]")})
    labels = frame.select(label_splits(pl.col("start"), validation, test)).to_series().to_list()

    assert (validation, test) == (6, 8)  # a quarter of twelve would part the three that start at 8
    assert dict(zip(starts.tolist(), labels, strict=True)) == {
        **dict.fromkeys(range(6), "train"),
        **dict.fromkeys((6, 7), "validation"),
        **dict.fromkeys((8, 9), "test"),
    }


def test_an_empty_split_is_an_error_that_says_which() -> None:
    with pytest.raises(ValueError, match="got train 0, validation 0, test 4 by start time"):
        split_starts(np.array([5, 5, 5, 5]), 0.1, 0.2)
