"""Tasks: the objectives of a policy, and how behaviours pay for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class TaskConfig(BaseModel):
    """One objective. Its name is its key under ``rl.tasks``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    behaviour: str | None = Field(None, description="Behaviour that pays; None is the task's own name.")
    weight: float = Field(1.0, ge=0, description="Share in the weighted return, relative to the other tasks.")
    after: str | None = Field(
        None, description="Task that comes first in the funnel; None for a task of its own."
    )
    pays: Literal["response", "value"] = Field(
        "response", description="1 a response, or the response's value."
    )
    cost: bool = Field(False, description="Whether responses are unwanted: they then pay negatively.")
    at_most: float | None = Field(
        None,
        gt=0,
        description="Of a cost: what a session may pay of it on average; PPO prices it until it stays below.",
    )


@dataclass(frozen=True)
class Tasks:
    """The tasks of a run in order: K of them, parents before children."""

    names: tuple[str, ...]
    behaviours: tuple[str, ...]
    weights: NDArray[np.float32]  # [K], sums to 1
    parents: tuple[int, ...]  # index of the task before it in the funnel, or -1
    signs: NDArray[np.float32]  # [K], -1 for costs
    pays_value: NDArray[np.bool_]  # [K]
    limits: NDArray[np.float32]  # [K] of a cost's mean a session, infinite where there is none

    def __len__(self) -> int:
        return len(self.names)

    @property
    def index(self) -> dict[str, int]:
        """Task index by behaviour."""
        return {behaviour: k for k, behaviour in enumerate(self.behaviours)}


def build_tasks(configs: Mapping[str, TaskConfig]) -> Tasks:
    """Tasks in funnel order.

    Raises:
        ValueError: There is none, all weights are 0, a parent is unknown, the funnel has a cycle, or what is wanted
            has a limit.
    """
    if not configs:
        raise ValueError(
            "rl.tasks: expected at least one task, got none. Name one, as rl.tasks.view.weight=1."
        )
    if not any(config.weight > 0 for config in configs.values()):
        raise ValueError("rl.tasks: expected a weight above 0, got 0 for every task. Raise one of them.")
    for name, config in configs.items():
        if config.at_most is not None and not config.cost:
            raise ValueError(
                f"rl.tasks.{name}.at_most: expected a limit of a cost, but the task is wanted. Set its cost=true."
            )
    names: list[str] = []
    while len(names) < len(configs):
        ready = [n for n, c in configs.items() if n not in names and (c.after is None or c.after in names)]
        if not ready:
            stuck = next(n for n in configs if n not in names)
            raise ValueError(
                f"rl.tasks.{stuck}.after: expected one of {', '.join(configs)} without a cycle, "
                f"got {configs[stuck].after!r}."
            )
        names += ready
    weights = np.array([configs[n].weight for n in names], dtype=np.float32)
    afters = [configs[n].after for n in names]
    return Tasks(
        names=tuple(names),
        behaviours=tuple(configs[n].behaviour or n for n in names),
        weights=weights / weights.sum(),
        parents=tuple(-1 if after is None else names.index(after) for after in afters),
        signs=np.array([-1.0 if configs[n].cost else 1.0 for n in names], dtype=np.float32),
        pays_value=np.array([configs[n].pays == "value" for n in names]),
        limits=np.array([configs[n].at_most or np.inf for n in names], dtype=np.float32),
    )
