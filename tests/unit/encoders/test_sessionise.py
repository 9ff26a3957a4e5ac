from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.sessionise import SPLITS, sessionise, split_numbers, split_starts

START = datetime(2020, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000


def ids(
    rows: list[tuple[str, str | None, int]], gap_s: int, known: list[str | None] | None = None
) -> list[str]:
    """Session of each of the rows (user, session the log names, second), which are sorted by user and time."""
    names = sorted({user for user, _, _ in rows})
    found = sessionise(
        np.array([names.index(user) for user, _, _ in rows], dtype=np.int32),
        np.array([START_US + second * 1_000_000 for _, _, second in rows], dtype=np.int64),
        pl.Series([name for _, name, _ in rows], dtype=pl.String)
        if any(name for _, name, _ in rows)
        else None,
        pl.Series(names),
        gap_s,
        None if known is None else pl.Series(known, dtype=pl.String),
    )
    order = [
        (int(user), int(start), name)
        for user, start, name in zip(found.user, found.start_us, found.ids, strict=True)
    ]
    assert order == sorted(order)
    return [found.ids[int(row)] for row in found.row]


def test_a_pause_longer_than_the_gap_starts_a_session() -> None:
    assert ids([("a", None, 0), ("a", None, 10), ("a", None, 21), ("b", None, 22)], gap_s=10) == [
        "a@20200101T000000",
        "a@20200101T000000",
        "a@20200101T000021",
        "b@20200101T000022",
    ]


def test_named_sessions_stay_whole_and_apart_by_user() -> None:
    rows = [("a", "s", 0), ("a", "t", 5), ("a", None, 6), ("a", "s", 9), ("a", None, 9), ("b", "s", 1)]

    assert ids(rows, gap_s=1) == ["a:s", "a:t", "a@20200101T000006", "a:s", "a@20200101T000009", "b:s"]


def test_user_and_session_names_cannot_be_confused() -> None:
    assert len(set(ids([("a", "b:c", 0), ("a:b", "c", 0), ("a@20200101T000000", None, 0)], gap_s=1))) == 3


def test_new_rows_join_the_known_session_that_no_pause_parts_them_from() -> None:
    rows = [("a", None, second) for second in (0, 5, 10, 15, 40, 100)]

    joined = ids(rows, gap_s=10, known=[None, "old", None, None, None, None])

    assert joined == ["old"] * 4 + ["a@20200101T000040", "a@20200101T000140"]


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

    assert ids([(u, None, s) for u, s in acts], gap_s) == expected
    assert ids([(u, None, s) for u, s in acts], gap_s, known=[None] * len(acts)) == expected


def test_splits_follow_start_time_and_keep_ties_together() -> None:
    starts = np.array([9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8], dtype=np.int64)

    validation, test = split_starts(starts, 0.25, 0.25)
    labels = [SPLITS[number] for number in split_numbers(starts, validation, test)]

    assert (validation, test) == (6, 8)  # a quarter of twelve would part the three that start at 8
    assert dict(zip(starts.tolist(), labels, strict=True)) == {
        **dict.fromkeys(range(6), "train"),
        **dict.fromkeys((6, 7), "validation"),
        **dict.fromkeys((8, 9), "test"),
    }


def test_an_empty_split_is_an_error_that_says_which() -> None:
    with pytest.raises(ValueError, match="got train 0, validation 0, test 4 by start time"):
        split_starts(np.array([5, 5, 5, 5]), 0.1, 0.2)
