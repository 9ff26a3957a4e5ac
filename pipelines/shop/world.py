"""The made-up shop's users: hidden tastes, satiation, souring and trust, and how they answer slates.

Views feed carts, carts feed purchases. Bait draws views now, but sours the rest of the session, costs the trust that
purchases need, and drives users out. Topics satiate. So the best slate for the next step is not the best policy.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.catalogue import TASTE_WIDTH, Catalogue, make_catalogue
from pipelines.shop.config import ShopConfig
from pipelines.shop.people import Answer, draw_funnel, of_items, sigmoid

BAIT_PUSH, NOISE = 0.2, 1.0  # of the logging policy's scores
PRICES, BONUSES = (0.0, 0.5, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0)  # that the planner is searched among
POSITION_COST = 0.15  # of a view's logit, a position
VIEW_LEVEL, LEAVE_LEVEL = -1.7, -3.3  # logits of an average item's view, and of leaving
TRUST_START, TRUST_SPREAD = 0.5, 0.3  # of newcomers
TRUST_KEPT = 0.9  # of what was won or lost, from one session to the next


@dataclass
class Visitors:
    """Hidden state of B sessions under way."""

    taste: NDArray[np.float64]  # [B, W]
    trust: NDArray[np.float64]  # [B] in [0, 1.2]
    satiation: NDArray[np.float64]  # [B, T]
    sourness: NDArray[np.float64]  # [B]


class ShopWorld:
    """The truth: answers slates of any policy."""

    tasks: tuple[str, ...] = ("view", "cart", "purchase")
    pays_price: str | None = "purchase"
    # Coefficients of ``foresight``.
    plans: tuple[tuple[float, ...], ...] = tuple((bonus, price) for price, bonus in product(PRICES, BONUSES))

    def __init__(self, catalogue: Catalogue, carry_over: float = 1.0, rarity: float = 1.0) -> None:
        """``carry_over`` scales in [0, 1] what a slate changes of the user's state and of the chance of leaving.

        ``rarity`` divides the chance of the last response given the one before it.
        """
        self.catalogue = catalogue
        self.carry_over, self.rarity = carry_over, rarity

    @classmethod
    def open(cls, config: ShopConfig, dice: np.random.Generator) -> "ShopWorld":
        """A shop with a catalogue of its own."""
        return cls(
            make_catalogue(config.num_items, dice, config.price_scale), config.carry_over, config.rarity
        )

    @property
    def table(self) -> pl.DataFrame:
        """The items as the shop's owner sees them."""
        return self.catalogue.table

    def logging_scores(self, dice: np.random.Generator) -> NDArray[np.float64]:
        """Scores of a shop that shows what draws views, with noise enough to learn from. [N]."""
        shelf = self.catalogue
        noise = NOISE * dice.normal(size=len(shelf))
        scores: NDArray[np.float64] = BAIT_PUSH * shelf.bait + 0.5 * shelf.appeal + noise
        return scores

    def newcomers(self, count: int, dice: np.random.Generator) -> Visitors:
        """Users with two favourite topics each; some trust the shop, some do not."""
        centres = self.catalogue.centres
        liked, also = dice.integers(0, len(centres), (2, count))
        noise = 0.08 * dice.normal(size=(count, TASTE_WIDTH))
        return Visitors(
            taste=0.55 * centres[liked] + 0.35 * centres[also] + noise,
            trust=np.clip(dice.normal(TRUST_START, TRUST_SPREAD, count), 0, 1),
            satiation=np.zeros((count, len(centres))),
            sourness=np.zeros(count),
        )

    def return_later(self, visitors: Visitors, dice: np.random.Generator) -> Visitors:
        """The same users at their next session: taste drifts, trust fades a little, the rest is forgotten."""
        drift = 0.05 * dice.normal(size=visitors.taste.shape)
        return Visitors(
            taste=visitors.taste + drift,
            trust=TRUST_START + TRUST_KEPT * (visitors.trust - TRUST_START),
            satiation=np.zeros_like(visitors.satiation),
            sourness=np.zeros_like(visitors.sourness),
        )

    def probabilities(
        self, visitors: Visitors, items: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Chance of each task at the first position: view, cart and purchase.

        Args:
            visitors: B users.
            items: Which items, [B, L]; None is every item of the catalogue, L = N.

        Returns:
            float64 [B, L, K].
        """
        shelf = self.catalogue
        every = items is None
        chosen = slice(None) if items is None else items
        bait, appeal, topic = shelf.bait[chosen], shelf.appeal[chosen], shelf.topic[chosen]  # [B, L] or [N]
        taste = shelf.taste[chosen]
        match = (
            visitors.taste @ taste.T if every else np.einsum("blw,bw->bl", taste, visitors.taste)
        )  # [B, L]
        sated = of_items(visitors.satiation, topic)
        trust = visitors.trust[:, None]
        tired = 1.2 * sated + 1.2 * visitors.sourness[:, None]
        view = sigmoid(VIEW_LEVEL + 2.2 * match + 1.4 * bait + 0.4 * appeal - tired)
        cart = view * sigmoid(-1.6 + 1.5 * match + 1.8 * trust - 0.8 * bait)
        purchase = cart * sigmoid(-2.2 + 3.2 * trust + 0.5 * match) / self.rarity
        return np.stack([view, cart, purchase], -1)

    def answer(self, visitors: Visitors, slates: NDArray[np.int64], dice: np.random.Generator) -> Answer:
        """Responses to the slates; moves the visitors' hidden states on.

        Args:
            visitors: B users; changed in place.
            slates: Items shown, first position first. int64 [B, L].
            dice: Random numbers.
        """
        fired = draw_funnel(self.probabilities(visitors, slates), POSITION_COST, dice)  # [B, L, K]
        leaving = self._move(visitors, slates, fired[..., 0])
        ended = dice.random(len(slates)) < leaving
        return Answer(fired.astype(np.float32), ended, leaving.astype(np.float32))

    def foresight(self, visitors: Visitors) -> NDArray[np.float64]:
        """What the planner adds beside the next step: views that fit the taste, less the bait in views. [B, N, 2]."""
        shelf = self.catalogue
        view = self.probabilities(visitors)[..., 0]
        return np.stack([view * (visitors.taste @ shelf.taste.T), -view * shelf.bait], -1)

    def _move(
        self, visitors: Visitors, slates: NDArray[np.int64], views: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Updates hidden states after views [B, L]; returns each user's chance of leaving, [B]."""
        shelf = self.catalogue
        seen = views.astype(np.float64)
        count = seen.sum(1)
        taste, bait = shelf.taste[slates], shelf.bait[slates]  # [B, L, W], [B, L]
        match = (taste * visitors.taste[:, None]).sum(-1)
        mean_match = (match * seen).sum(1) / np.maximum(count, 1)
        worst_bait = (bait * seen).max(1)
        step = (taste * seen[..., None]).sum(1) / np.maximum(count, 1)[:, None]
        viewed = (count > 0)[:, None]
        kept = self.carry_over
        moved = (1 - 0.07 * kept) * visitors.taste + 0.12 * kept * step
        visitors.taste = np.where(viewed, moved, visitors.taste)
        visitors.satiation *= 0.85
        places = np.arange(len(slates))[:, None] * len(shelf.centres) + shelf.topic[slates]  # [B, L]
        views = np.bincount(places.ravel(), 0.2 * kept * seen.ravel(), visitors.satiation.size)
        visitors.satiation += views.reshape(visitors.satiation.shape)
        visitors.sourness = 0.8 * visitors.sourness + 0.6 * kept * worst_bait
        gain = 0.12 * (1 - bait) * sigmoid(2 * match) - 0.2 * bait**2
        visitors.trust = np.clip(visitors.trust + kept * (gain * seen).sum(1), 0, 1.2)
        bored = 0.6 * (count == 0)
        leave = (
            LEAVE_LEVEL + 1.1 * visitors.sourness + kept * (bored - 0.5 * mean_match) - 0.5 * visitors.trust
        )
        return sigmoid(leave)
