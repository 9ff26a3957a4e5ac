"""Pasts of sessions, against a slow reference that looks at all rows for each session."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from encoders.pasts import past_texts
from encoders.text import EMPTY_PAST, past_text

TEXTS = {item: f"thing {item}" for item in "abcdefgh"}
ROW = tuple[str, str, str, str, int]  # user, session, item, behaviour, minute


def test_past_texts_by_hand() -> None:
    rows = [
        ("u", "s1", "a", "view", 0),
        ("u", "s1", "a", "purchase", 1),
        ("u", "s2", "b", "impression", 60),
        ("u", "s2", "b", "cart", 61),
        ("v", "s3", "c", "view", 5),
        ("w", "s4", "d", "impression", 7),
    ]

    out = past_texts(_table(rows), TEXTS, history_items=20)

    assert dict(zip(out.session_ids, out.sessions, strict=True)) == {
        "s1": EMPTY_PAST,
        "s2": "purchased: thing a",
        "s3": EMPTY_PAST,
        "s4": EMPTY_PAST,
    }
    assert dict(zip(out.user_ids, out.users, strict=True)) == {
        "u": "purchased: thing a. added to cart: thing b",
        "v": "viewed: thing c",
        "w": EMPTY_PAST,
    }


def test_past_texts_when_sessions_overlap_know_nothing_later() -> None:
    rows = [("u", "long", "a", "view", 0), ("u", "short", "b", "view", 5), ("u", "long", "c", "view", 9)]

    out = past_texts(_table(rows), TEXTS, history_items=20)

    assert dict(zip(out.session_ids, out.sessions, strict=True)) == {
        "long": EMPTY_PAST,
        "short": "viewed: thing a",
    }


@pytest.mark.parametrize("seed", range(5))
def test_past_texts_equal_a_slow_reference(seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        (
            f"u{u}",
            f"u{u}s{rng.randrange(4)}",
            rng.choice("abcdefgh"),
            rng.choice(BEHAVIOURS),
            rng.randrange(30),
        )
        for u in (rng.randrange(3) for _ in range(80))
    ]
    table = _table(rows)

    out = past_texts(table, TEXTS, history_items=3)

    assert dict(zip(out.session_ids, out.sessions, strict=True)) == _slow(rows, 3)


BEHAVIOURS = ("view", "cart", "purchase", "impression")


def _slow(rows: list[ROW], history_items: int) -> dict[str, str]:
    out = {}
    for session in {row[1] for row in rows}:
        start = min(row[4] for row in rows if row[1] == session)
        user = next(row[0] for row in rows if row[1] == session)
        before = [r for r in rows if r[0] == user and r[4] < start and r[3] != "impression"]
        before.sort(key=lambda r: r[4])
        out[session] = past_text([(r[3], TEXTS[r[2]]) for r in before], history_items)
    return out


def test_past_texts_when_an_item_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="expected items of the item table, got 'zebra'"):
        past_texts(_table([("u", "s", "zebra", "view", 0)]), TEXTS, 20)


def _table(rows: list[ROW]) -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        [(*row[:4], start + timedelta(minutes=row[4])) for row in rows],
        schema={
            "user_id": pl.String,
            "session_id": pl.String,
            "item_id": pl.String,
            "behaviour": pl.String,
            "timestamp": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )
