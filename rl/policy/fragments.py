"""What a sampler sends to the learners: B sessions over S steps as a few columns, not as lists of steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.policy.candidates import Candidates

STATE_COLUMNS = ("past", "history_items", "history_tasks", "task_weights")  # what the policy sees
OBSERVATION_COLUMNS = (*STATE_COLUMNS, "summary")


@dataclass(frozen=True)
class Fragment:
    """RLlib takes it for an episode: it asks only for the number of steps."""

    columns: Mapping[str, NDArray[np.generic]]
    # past [B, S+1, D], history_items [B, S+1, H], history_tasks [B, S+1, H], summary [B, S+1, F],
    # task_weights [B, S+1, K], slates int64 [B, S, L], log_probs [B, S, L], rewards [B, S, L, K],
    # ended bool [B, S], leaving float32 [B, S] the chance of that
    candidates: Candidates | None = None  # that the slates were drawn from; None for the whole catalogue

    def __len__(self) -> int:
        """Steps of all sessions together."""
        return int(self.columns["ended"].size)

    def env_steps(self) -> int:
        """The same, in RLlib's words."""
        return len(self)

    def agent_steps(self) -> int:
        """The same: each session has one agent."""
        return len(self)

    def split(self, num_parts: int) -> list["Fragment"]:
        """Equal parts by session, so that RLlib never has to cut one for a learner."""
        size = len(self.columns["ended"]) // num_parts
        return [
            Fragment(
                {name: values[i * size : (i + 1) * size] for name, values in self.columns.items()},
                self.candidates,
            )
            for i in range(num_parts)
        ]
