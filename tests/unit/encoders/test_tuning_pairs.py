"""Histories with their next items, items together, popularity: small enough to check by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from encoders.tuning_pairs import items_together, log_popularity, next_items

TEXTS = {"a": "red shoe", "b": "blue lamp", "c": "green phone", "d": "red shoe"}
INDEX = {"a": 0, "b": 1, "c": 2, "d": 3}
ROWS = [  # user, session, item, behaviour, minute, split
    ("u", "s1", "a", "view", 0, "train"),
    ("u", "s1", "b", "cart", 1, "train"),
    ("u", "s2", "c", "impression", 9, "train"),
    ("u", "s2", "c", "view", 10, "validation"),
    ("u", "s2", "b", "purchase", 10, "validation"),
    ("u", "s2", "d", "view", 11, "validation"),
    ("v", "s3", "c", "view", 5, "train"),
]


def test_next_items_follow_what_came_strictly_before() -> None:
    found = next_items(_rows(), TEXTS, INDEX, history_items=20, per_session=9, seed=0)

    # a and c begin a user's log; at minute 10 neither of two acts knows the other
    assert found["train"].history == ["viewed: red shoe"]
    assert found["train"].item.tolist() == [1]
    earlier = "added to cart: blue lamp. viewed: red shoe"
    assert found["validation"].history[:2] == [earlier, earlier]
    assert found["validation"].history[2].startswith("purchased: blue lamp. viewed: green phone")
    assert found["validation"].item.tolist() == [2, 1, 3]
    assert found["validation"].user == ["u", "u", "u"]


def test_next_items_draw_at_most_so_many_moments_of_a_session() -> None:
    rows = pl.concat([_rows(), *(_rows(f"x{i}") for i in range(9))])

    found = next_items(rows, TEXTS, INDEX, history_items=20, per_session=1, seed=0)

    assert len(found["train"]) < 10
    again = next_items(rows, TEXTS, INDEX, history_items=20, per_session=1, seed=0)
    assert found["train"].history == again["train"].history


def test_items_together_are_different_items_of_one_session() -> None:
    pairs = items_together(_rows(), INDEX, per_session=5, seed=0)

    sessions = [{0, 1}, {2, 1, 3}]
    assert len(pairs) == 2
    assert all(any(set(pair) <= session for session in sessions) for pair in pairs.tolist())
    assert all(first != second for first, second in pairs.tolist())
    assert len(items_together(_rows(), INDEX, per_session=1, seed=3)) == 2


def test_items_together_where_no_session_has_two_are_none() -> None:
    assert items_together(_rows().head(1), INDEX, per_session=5, seed=0).shape == (0, 2)


def test_log_popularity_counts_each_item_once_more() -> None:
    shares = np.exp(log_popularity(np.array([0, 0, 2]), 3))

    np.testing.assert_allclose(shares, [3 / 6, 1 / 6, 2 / 6])


def _rows(prefix: str = "") -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        (prefix + user, prefix + session, item, behaviour, start + timedelta(minutes=minute), split)
        for user, session, item, behaviour, minute, split in ROWS
    ]
    columns = ["user_id", "session_id", "item_id", "behaviour", "timestamp", "split"]
    return pl.DataFrame(rows, schema=columns, orient="row")
