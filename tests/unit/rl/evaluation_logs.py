"""Small session logs for the tests of evaluation."""

from collections.abc import Sequence

import numpy as np

from encoders.sessions import LoggedSlates, SessionLog
from rl.tasks import TaskConfig, Tasks, build_tasks

TASKS: Tasks = build_tasks(
    {
        "view": TaskConfig(weight=1),
        "purchase": TaskConfig(weight=3),
        "return": TaskConfig(weight=1, cost=True),
    }
)


def session_log(
    sessions: Sequence[Sequence[tuple[int, int]]],
    splits: Sequence[int],
    users: Sequence[str] | None = None,
    slates: LoggedSlates | None = None,
    width: int = 2,
) -> SessionLog:
    """A log of sessions given as lists of (item, task)."""
    rows = [row for session in sessions for row in session]
    count = len(sessions)
    return SessionLog(
        session_ids=[f"s{i}" for i in range(count)],
        user_ids=list(users or [f"u{i}" for i in range(count)]),
        split=np.array(splits, dtype=np.int8),
        past=np.arange(count * width, dtype=np.float32).reshape(count, width),
        offsets=np.cumsum([0] + [len(s) for s in sessions]).astype(np.int64),
        items=np.array([r[0] for r in rows], dtype=np.int64),
        tasks=np.array([r[1] for r in rows], dtype=np.int64),
        values=np.zeros(len(rows), dtype=np.float32),
        slates=slates,
    )
