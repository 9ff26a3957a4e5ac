"""Sizes of a response model."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from rl.simulator.config import SimulatorConfig
from rl.simulator.steps import Steps


class ResponseShape(BaseModel):
    """Sizes and settings that rebuild a response model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["slate", "next_item"]  # fitted on slates, or on items acted on
    num_items: int
    slate_length: int
    feature_width: int  # of the fixed item features
    past_width: int  # of the fixed past features
    likeness_width: int  # of the texts, of items and pasts, that are compared
    taste_width: int  # of the tastes read from them
    parents: tuple[int, ...]  # [K]
    item_width: int
    sum_width: int
    innovations: bool  # whether what was not expected is summed up too
    hidden: int
    dropout: float
    value_scale: tuple[float, ...]  # [K] mean logged value of a response
    value_cap: tuple[float, ...]  # [K] largest logged value


def response_shape(
    config: SimulatorConfig,
    steps: Steps,
    parents: tuple[int, ...],
    num_items: int,
    widths: tuple[int, int],
    slates: bool,
) -> ResponseShape:
    """The shape of a model for these steps; ``widths`` are those of the fixed item and past features."""
    fired = (steps.responses > 0).float()
    count = fired.sum((0, 1, 2)).clamp_min(1)
    mean = (steps.values.clamp_min(0) * fired).sum((0, 1, 2)) / count
    cap = (steps.values.clamp_min(0) * fired).amax((0, 1, 2))
    return ResponseShape(
        mode="slate" if slates else "next_item",
        num_items=num_items,
        slate_length=steps.items.shape[2],
        feature_width=widths[0],
        past_width=widths[1],
        likeness_width=config.compared_width,
        taste_width=config.taste_width,
        parents=parents,
        item_width=config.item_width,
        sum_width=config.sum_width,
        innovations=config.innovations,
        hidden=config.hidden,
        dropout=config.dropout,
        value_scale=tuple(float(v) if v > 0 else 1.0 for v in mean),
        value_cap=tuple(float(v) if v > 0 else 1.0 for v in cap),
    )
