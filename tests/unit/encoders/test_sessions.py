from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from encoders.sessions import SessionLog, build_session_log
from encoders.state import session_history

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = {"view": 0, "purchase": 1}


def rows(*entries: tuple[str, str, str, int, str | None, int | None, float | None]) -> pl.DataFrame:
    """(session, item, behaviour, second, request, position, propensity), all of one user."""
    return pl.DataFrame(
        {
            "user_id": ["u"] * len(entries),
            "session_id": [e[0] for e in entries],
            "item_id": [e[1] for e in entries],
            "behaviour": [e[2] for e in entries],
            "timestamp": [START + timedelta(seconds=e[3]) for e in entries],
            "value": [None] * len(entries),
            "request_id": [e[4] for e in entries],
            "position": [e[5] for e in entries],
            "propensity": [e[6] for e in entries],
            "split": ["train" if e[0] == "a" else "test" for e in entries],
        },
        schema_overrides={"value": pl.Float32, "request_id": pl.String, "position": pl.Int16},
    )


def build(frame: pl.DataFrame) -> SessionLog:
    pasts = {s: np.zeros(2, dtype=np.float32) for s in frame["session_id"].unique()}
    return build_session_log(frame, {"x": 0, "y": 1, "z": 2}, pasts, TASKS)


def test_sessions_come_in_order_of_start_time() -> None:
    log = build(rows(("b", "y", "view", 500, None, None, None), ("a", "x", "view", 0, None, None, None)))

    assert log.session_ids == ["a", "b"]
    assert log.offsets.tolist() == [0, 1, 2]
    assert log.items.tolist() == [0, 1]
    assert log.sessions("test").tolist() == [1]
    assert log.slates is None


def test_slates_know_their_responses_and_what_came_before() -> None:
    log = build(
        rows(
            ("a", "x", "impression", 0, "r1", 0, 0.5),
            ("a", "y", "impression", 0, "r1", 1, 0.25),
            ("a", "y", "view", 5, "r1", None, None),
            ("a", "y", "purchase", 6, "r1", None, None),
            ("a", "z", "impression", 60, "r2", 0, 0.1),
        )
    )

    slates = log.slates
    assert slates is not None
    assert slates.items.tolist() == [[0, 1], [2, -1]]
    assert slates.responses[0].tolist() == [[0, 0], [1, 1]]
    assert slates.responses[1].sum() == 0
    assert slates.behaviours_before.tolist() == [0, 2]
    assert slates.propensities[0].tolist() == [0.5, 0.25]
    assert np.isnan(slates.propensities[1, 1])


def test_states_hold_the_latest_behaviours_right_aligned() -> None:
    log = build(
        rows(
            ("a", "x", "view", 0, None, None, None),
            ("a", "y", "view", 1, None, None, None),
            ("a", "y", "purchase", 2, None, None, None),
            ("b", "z", "view", 900, None, None, None),
        )
    )

    states = log.states(np.array([0, 0, 1]), np.array([1, 3, 0]), 2)

    assert states.history_items.tolist() == [[-1, 0], [1, 1], [-1, -1]]
    assert states.history_tasks.tolist() == [[-1, 0], [0, 1], [-1, -1]]
    for row, (items, tasks) in enumerate([([0], [0]), ([0, 1, 1], [0, 0, 1]), ([], [])]):
        one = session_history(items, tasks, 2)  # what the service builds
        assert one[0].tolist() == states.history_items[row].tolist()
        assert one[1].tolist() == states.history_tasks[row].tolist()


def test_missing_past_is_named() -> None:
    frame = rows(("a", "x", "view", 0, None, None, None))

    with pytest.raises(ValueError, match="expected a past for every session, 'a' has none"):
        build_session_log(frame, {"x": 0}, {}, TASKS)


def test_history_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="expected as many tasks as items, got 1 and 2"):
        session_history([1, 2], [0], 4)
