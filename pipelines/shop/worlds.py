"""The made-up worlds, and what each of them must answer."""

from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.clothes import ClothesWorld
from pipelines.shop.config import ShopConfig
from pipelines.shop.people import Answer
from pipelines.shop.reader import ReaderWorld
from pipelines.shop.school import SchoolWorld
from pipelines.shop.world import ShopWorld
from rl.tasks import Tasks


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
    "clothes": ClothesWorld,
    "reader": ReaderWorld,
    "school": SchoolWorld,
}


def check_tasks(name: str, tasks: Tasks) -> None:
    """Whether a world can pay these tasks.

    Raises:
        ValueError: They are not the world's own, in the funnel's order, or one is to pay a price that it has not.
    """
    world = WORLDS[name]
    if tasks.behaviours != world.tasks:
        raise ValueError(
            f"rl.tasks: the made-up {name} has {', '.join(world.tasks)}, each after the one before it; "
            f"got {', '.join(tasks.behaviours)}. Change weights only, as rl.tasks.{world.tasks[-1]}.weight=3"
            f"{'' if name == 'shop' else f', and take the tasks from --config {name}.yaml'}."
        )
    for task, pays in zip(tasks.behaviours, tasks.pays_value, strict=True):
        if pays and task != world.pays_price:
            priced = f"only {world.pays_price} has a price" if world.pays_price else "nothing has a price"
            raise ValueError(f"rl.tasks.{task}.pays: expected response, as {priced} in the made-up {name}.")


def open_world(config: ShopConfig, dice: np.random.Generator) -> World:
    """The world that the settings name."""
    return WORLDS[config.world].open(config, dice)
