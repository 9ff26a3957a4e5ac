"""The state a policy sees. This module builds it for training and for service alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class States:
    """What is known when a slate is chosen: the user's past, and the session so far."""

    past: NDArray[np.float32]  # [B, D] language-model embedding of the past before this session
    history_items: NDArray[np.int64]  # [B, H] item index, oldest first, right-aligned, -1 where empty
    history_tasks: NDArray[np.int64]  # [B, H] task index of the behaviour, -1 where empty

    def __len__(self) -> int:
        return len(self.past)

    def rows(self, index: NDArray[np.int64] | slice) -> "States":
        """The states at these rows."""
        return States(self.past[index], self.history_items[index], self.history_tasks[index])


def session_history(
    items: Sequence[int], tasks: Sequence[int], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The latest ``length`` behaviours of a session, right-aligned and padded with -1.

    Args:
        items: Item index of each behaviour, oldest first.
        tasks: Task index of each behaviour.
        length: H.

    Returns:
        Item and task indices, each int64 [H].

    Raises:
        ValueError: The two differ in length.
    """
    if len(items) != len(tasks):
        raise ValueError(f"history: expected as many tasks as items, got {len(tasks)} and {len(items)}.")
    out = np.full((2, length), -1, dtype=np.int64)  # [2, H]
    kept = min(len(items), length)
    if kept:
        out[0, -kept:] = items[-kept:]
        out[1, -kept:] = tasks[-kept:]
    return out[0], out[1]
