"""Levers: what a slate shall be beside good. Settings of diversity and of exposure limits an item group."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

DIVERSITY, EXPOSURE = "diversity", "exposure"


class LeversConfig(BaseModel):
    """Diversity and fairness, in training and at ranking time. All are off by default, for each has its price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    diversity: float = Field(
        0.0,
        ge=0,
        description="In training: worth of a slate all of whose items differ fully, in mean slates' weighted reward.",
    )
    exposure_limits: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="Largest share of shown items by item group, in training and at ranking time."
    )
    exposure_step: float = Field(
        0.01,
        gt=0,
        description="Rise of an item's price a slate for a share 1 above its limit, in mean slates' weighted reward.",
    )
    ranking_loss: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="At ranking time: share of the best slate's worth that may be given for diversity.",
    )

    @property
    def in_training(self) -> bool:
        """Whether training has tasks of levers."""
        return self.diversity > 0 or bool(self.exposure_limits)

    @property
    def tasks(self) -> dict[str, float]:
        """Weight of each lever's task in training, beside the tasks' own, which sum to 1."""
        weights = {DIVERSITY: self.diversity} if self.diversity > 0 else {}
        return weights | ({EXPOSURE: 1.0} if self.exposure_limits else {})  # its prices are in reward already
