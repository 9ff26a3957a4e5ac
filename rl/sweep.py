"""The search over task weights and settings: its space and its Pareto front."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Axis(BaseModel):
    """Where the values of one key come from; exactly one of the three is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uniform: tuple[float, float] | None = Field(None, description="Lowest and highest; all equally likely.")
    log_uniform: tuple[float, float] | None = Field(
        None, description="Lowest and highest, above 0; all powers equally likely."
    )
    choice: tuple[Any, ...] | None = Field(None, description="The values themselves, each equally likely.")

    @model_validator(mode="after")
    def _check(self) -> "Axis":
        given = [name for name in ("uniform", "log_uniform", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected exactly one of uniform, log_uniform and choice")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("expected at least one value in choice")
            return self
        low, high = self.ends
        if not low < high:
            raise ValueError(f"expected {given[0]} as [lowest, highest] with lowest < highest")
        if given == ["log_uniform"] and low <= 0:
            raise ValueError("expected log_uniform above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all: the lowest and the highest, or every choice."""
        return self.uniform or self.log_uniform or self.choice or ()


class SweepConfig(BaseModel):
    """What `sweep` tries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_trials: int = Field(8, ge=1, description="Policies trained at most.")
    scheduler: Literal["asha", "random"] = Field(
        "asha", description="asha stops weak trials early; random none."
    )
    grace_iterations: int = Field(10, ge=1, description="PPO iterations before ASHA may stop a trial.")
    concurrent_trials: int = Field(2, ge=1, description="Trials at once, a CPU each.")
    space: dict[str, Axis] = Field(
        {},
        description="Dotted key to {uniform: [a, b]}, {log_uniform: [a, b]} or {choice: [...]}; "
        "empty draws every task's weight from 0 to 1.",
    )


def search_space(sweep: SweepConfig, task_names: Iterable[str]) -> dict[str, Axis]:
    """Axis by dotted key; without one in the config, the weight of every task from 0 to 1."""
    return sweep.space or {f"rl.tasks.{name}.weight": Axis(uniform=(0.0, 1.0)) for name in task_names}


def pareto_mask(returns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which trials no other trial beats: as good in every task and better in one.

    Args:
        returns: Mean signed return of each trial and task, larger is better. float64 [n, K].

    Returns:
        bool [n]. Equal trials are all in or all out.
    """
    as_good = np.all(
        returns[:, None] >= returns[None], axis=-1
    )  # [n, n]: row is as good as column everywhere
    better = np.any(returns[:, None] > returns[None], axis=-1)  # [n, n]
    return np.asarray(~np.any(as_good & better, axis=0))  # [n]
