"""A made-up clothes shop: brands that look best on the page sell best, and come back.

The shop of ``world.py``, with a fourth response. A brand's looks draw views, and through them purchases; the same looks
disappoint at home. So purchases and returns are at odds, and what to show depends on what a return costs.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.shop.catalogue import BRANDS, Catalogue, make_catalogue
from pipelines.shop.config import ShopConfig
from pipelines.shop.people import sigmoid
from pipelines.shop.world import ShopWorld, Visitors

RETURN_LEVEL, DISAPPOINTMENT = (
    -1.0,
    1.5,
)  # logit of an average brand's return given a purchase, and of its looks


class ClothesWorld(ShopWorld):
    """The shop's truth, and which purchases are sent back."""

    tasks: tuple[str, ...] = (*ShopWorld.tasks, "return")

    def __init__(
        self, catalogue: Catalogue, looks: NDArray[np.float64], carry_over: float = 1.0, rarity: float = 1.0
    ) -> None:
        """``looks`` are each item's, by brand, [N]: mean 0, deviation 1."""
        drawn = replace(catalogue, appeal=0.5 * catalogue.appeal + 2.0 * looks)
        super().__init__(drawn, carry_over, rarity)
        self.looks = looks

    @classmethod
    def open(cls, config: ShopConfig, dice: np.random.Generator) -> "ClothesWorld":
        """A shop with a catalogue and brands of its own."""
        catalogue = make_catalogue(config.num_items, dice, config.price_scale)
        spread = dice.permutation(np.linspace(-1.5, 1.5, len(BRANDS)))
        looks = spread[[BRANDS.index(brand) for brand in catalogue.table["brand"]]]
        return cls(catalogue, looks, config.carry_over, config.rarity)

    def probabilities(
        self, visitors: Visitors, items: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """As the shop's, and of sending the purchase back. float64 [B, L, K]."""
        chances = super().probabilities(visitors, items)
        looks = self.looks if items is None else self.looks[items]
        returns = chances[..., -1] * sigmoid(RETURN_LEVEL + DISAPPOINTMENT * looks)
        return np.concatenate([chances, returns[..., None]], -1)
