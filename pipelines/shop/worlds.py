"""The made-up worlds, and what each of them must answer."""

from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.config import ShopConfig
from pipelines.shop.people import Answer
from pipelines.shop.reader import ReaderWorld
from pipelines.shop.school import SchoolWorld
from pipelines.shop.world import ShopWorld


class World(Protocol):
    """The truth: who comes, how they answer slates, and what that leaves behind. Users are a dataclass of arrays."""

    tasks: tuple[str, ...]  # a funnel: each response only after the one before it
    pays_price: str | None  # the response whose value is the item's price
    plans: tuple[tuple[float, ...], ...]  # prices of ``foresight`` that the planner is searched among

    @property
    def table(self) -> pl.DataFrame:
        """The items as their owner sees them, sorted by item_id."""

    def logging_scores(self, dice: np.random.Generator) -> NDArray[np.float64]:
        """Scores by which the policy in service draws its slates. [N]."""

    def newcomers(self, count: int, dice: np.random.Generator) -> Any:
        """As many users at their first session."""

    def return_later(self, visitors: Any, dice: np.random.Generator) -> Any:
        """The same users at their next session."""

    def probabilities(self, visitors: Any, items: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Chance of each task at the first position, of items [B, L] or of all. [B, L, K]."""

    def foresight(self, visitors: Any) -> NDArray[np.float64]:
        """What each item does to the future, by kind: what a planner weighs beside the next step. [B, N, F]."""

    def answer(self, visitors: Any, slates: NDArray[np.int64], dice: np.random.Generator) -> Answer:
        """Responses to slates [B, L]; moves the users' hidden states on, in place."""


WORLDS: dict[str, type[ShopWorld] | type[ReaderWorld] | type[SchoolWorld]] = {
    "shop": ShopWorld,
    "reader": ReaderWorld,
    "school": SchoolWorld,
}


def open_world(config: ShopConfig, dice: np.random.Generator) -> World:
    """The world that the settings name."""
    return WORLDS[config.world].open(config.num_items, dice, config.carry_over)
