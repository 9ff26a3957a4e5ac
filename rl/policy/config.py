"""Settings of the policy, its clone start and PPO."""

from pydantic import BaseModel, ConfigDict, Field


class CloneConfig(BaseModel):
    """The policy's start: learned from the log's acted-on items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_epochs: int = Field(12, ge=1, description="Passes over the log's states.")


class PPOSettings(BaseModel):
    """Multi-task PPO against the simulator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_iterations: int = Field(120, ge=1, description="Rounds of sampling and learning.")
    num_env_runners: int = Field(0, ge=0, description="Remote samplers; 0 samples in the driver.")
    num_learners: int = Field(0, ge=0, description="Remote learners; 0 learns in the driver.")
    num_gpus_per_learner: float = Field(0.0, ge=0, description="GPUs a learner.")
