"""Settings of the response model and of the simulator."""

from pydantic import BaseModel, ConfigDict, Field


class SimulatorConfig(BaseModel):
    """How responses and leaving are learned from the log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_members: int = Field(4, ge=1, description="Models of the training ensemble.")
    pessimism: float = Field(0.5, ge=0, description="Standard deviations of the ensemble taken off the reward.")
    max_steps: int = Field(40, ge=1, description="Slates a simulated session has at most.")
