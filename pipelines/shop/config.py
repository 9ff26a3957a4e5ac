"""Settings of the made-up shop, and of the other made-up worlds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ShopConfig(BaseModel):
    """Size of the made-up shop and of its log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: Literal["shop", "clothes", "reader", "school"] = Field(
        "shop", description="Who is made up: a shop's customers, or a clothes shop's, readers, pupils."
    )
    num_items: int = Field(240, ge=2, description="Catalogue size, N.")
    num_users: int = Field(3000, ge=2, description="Users in the log.")
    num_sessions: int = Field(8000, ge=10, description="Logged sessions.")
    slate_length: int = Field(5, ge=1, description="Items a logged slate shows, L.")
    carry_over: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Strength of what a slate leaves behind; at 0 the next step is all there is.",
    )
    exploration: float = Field(
        1.0,
        gt=0,
        description="Temperature of the logging policy's draws; low ones show the same items always.",
    )
    rarity: float = Field(
        1.0, ge=1, description="Divides the chance of a purchase (a save, a mastery) given what comes before."
    )
    price_scale: float = Field(1.0, gt=0, description="Factor on all prices.")
    max_steps: int = Field(40, ge=1, description="Slates a session has at most.")
