"""The search over task weights and settings: its space and its Pareto front."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SweepConfig(BaseModel):
    """What `sweep` tries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_trials: int = Field(8, ge=1, description="Policies trained at most.")
    scheduler: Literal["asha", "random"] = Field("asha", description="asha stops weak trials early; random none.")
    grace_iterations: int = Field(10, ge=1, description="PPO iterations before ASHA may stop a trial.")
    concurrent_trials: int = Field(2, ge=1, description="Trials at once.")
