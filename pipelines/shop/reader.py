"""A made-up reader: interests grow with what is read, slowly with deep articles and hardly with light ones.

Opening feeds reading, reading feeds saving. Light articles are opened by anybody now, teach nothing and tire; deep ones
are opened by those who already care, and make them care more. Only who cares much saves. So the best slate for the next
step entertains, and the best policy builds an interest first.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.config import ShopConfig
from pipelines.shop.people import Answer, draw_funnel, of_items, sigmoid

SUBJECTS: dict[str, tuple[str, ...]] = {
    "astronomy": ("the outer planets", "dark matter", "a new telescope", "the birth of stars"),
    "economics": ("inflation", "the price of housing", "central banks", "trade between regions"),
    "football": ("the title race", "a young keeper", "the transfer window", "pressing high"),
    "gardens": ("wild meadows", "old apple trees", "soil life", "roses in winter"),
    "history": ("the silk road", "medieval towns", "a lost archive", "the first railways"),
    "health": ("sleep", "walking", "the gut", "sunlight"),
    "law": ("a privacy ruling", "the tenancy act", "jury trials", "patents on seeds"),
    "music": ("the string quartet", "a jazz revival", "home recording", "folk singers"),
    "oceans": ("coral reefs", "deep-sea vents", "tides and energy", "whale song"),
    "robotics": ("soft grippers", "warehouse robots", "walking machines", "robot surgeons"),
    "theatre": ("a new Hamlet", "stage light", "the fringe", "masks"),
    "weather": ("the jet stream", "hail", "a dry spring", "forecasting floods"),
}
LIGHT = ("10 pictures you must see:", "Quiz:", "What stars say about", "In 60 seconds:")
MIDDLING = ("News of", "A look at", "Five notes on", "Our guide to")
DEEP = ("The long read:", "In depth:", "An essay on", "How we came to understand")
POSITION_COST = 0.15  # of an opening's logit, a position
OPEN_LEVEL, LEAVE_LEVEL = -2.3, -3.0  # logits of an average article's opening, and of leaving
FIRST_INTEREST, OTHER_INTEREST = 0.6, 0.15  # of newcomers, in [0, 1.5]
MOST_INTEREST = 1.5
DEPTH_PENALTY, NOISE = 0.2, 1.0  # of the logging policy's scores
GROWTHS, CALMS = (0.0, 0.5, 1.0, 2.0), (0.0, 0.25, 0.5, 1.0)  # that the planner is searched among


@dataclass(frozen=True)
class Articles:
    """Articles as their publisher sees them (``table``), and what only the world knows."""

    table: pl.DataFrame  # item_id, title, category, author, group; sorted by item_id
    subject: NDArray[np.int64]  # [N]
    depth: NDArray[np.float64]  # [N] in (0, 1)
    appeal: NDArray[np.float64]  # [N] draws everybody


@dataclass
class Readers:
    """Hidden state of B sessions under way."""

    interest: NDArray[np.float64]  # [B, T] by subject, in [0, MOST_INTEREST]
    fatigue: NDArray[np.float64]  # [B] of light reading


def make_articles(num_items: int, dice: np.random.Generator) -> Articles:
    """``num_items`` articles over twelve subjects."""
    names = list(SUBJECTS)
    subject = dice.integers(0, len(names), num_items)
    depth = dice.beta(0.9, 1.1, num_items)
    titles = []
    for t, d in zip(subject, depth, strict=True):
        words = DEEP if d > 0.6 else MIDDLING if d > 0.3 else LIGHT
        about = SUBJECTS[names[t]]
        titles.append(f"{words[dice.integers(len(words))]} {about[dice.integers(len(about))]}")
    table = pl.DataFrame(
        {
            "item_id": [f"item-{i:05d}" for i in range(num_items)],
            "title": titles,
            "category": [names[t] for t in subject],
            "author": [f"Author {i}" for i in dice.integers(0, 20, num_items)],
            "group": np.where(dice.random(num_items) < 0.3, "agency", "own"),
        }
    )
    return Articles(table, subject, depth, dice.normal(size=num_items))


class ReaderWorld:
    """The truth: answers slates of any policy."""

    tasks: tuple[str, ...] = ("open", "read", "save")
    pays_price: str | None = None
    # Coefficients of ``foresight``.
    plans: tuple[tuple[float, ...], ...] = tuple(product(GROWTHS, CALMS))

    def __init__(self, articles: Articles, carry_over: float = 1.0, rarity: float = 1.0) -> None:
        """``carry_over`` scales in [0, 1] what a slate changes of the reader's state and of the chance of leaving.

        ``rarity`` divides the chance of the last response given the one before it.
        """
        self.articles = articles
        self.carry_over, self.rarity = carry_over, rarity

    @classmethod
    def open(cls, config: ShopConfig, dice: np.random.Generator) -> "ReaderWorld":
        """A publisher with articles of its own."""
        return cls(make_articles(config.num_items, dice), config.carry_over, config.rarity)

    @property
    def table(self) -> pl.DataFrame:
        """The articles as their publisher sees them."""
        return self.articles.table

    def logging_scores(self, dice: np.random.Generator) -> NDArray[np.float64]:
        """Scores of a publisher that shows what is opened, with noise enough to learn from. [N]."""
        shelf = self.articles
        noise = NOISE * dice.normal(size=len(shelf.depth))
        scores: NDArray[np.float64] = 0.5 * shelf.appeal - DEPTH_PENALTY * shelf.depth + noise
        return scores

    def newcomers(self, count: int, dice: np.random.Generator) -> Readers:
        """Readers who care for two subjects, some more and some less, and little for the others."""
        interest = np.clip(dice.normal(OTHER_INTEREST, 0.1, (count, len(SUBJECTS))), 0, MOST_INTEREST)
        for _ in range(2):
            liked = dice.integers(0, len(SUBJECTS), count)
            interest[np.arange(count), liked] = np.clip(dice.normal(FIRST_INTEREST, 0.25, count), 0, 1.2)
        return Readers(interest, np.zeros(count))

    def return_later(self, visitors: Readers, dice: np.random.Generator) -> Readers:
        """The same readers at their next session: interests fade a little and drift, fatigue is gone."""
        drift = 0.03 * dice.normal(size=visitors.interest.shape)
        kept = OTHER_INTEREST + 0.85 * (visitors.interest - OTHER_INTEREST)
        return Readers(np.clip(kept + drift, 0, MOST_INTEREST), np.zeros(len(visitors.fatigue)))

    def probabilities(self, visitors: Readers, items: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Chance of each task at the first position: open, read and save.

        Args:
            visitors: B readers.
            items: Which articles, [B, L]; None is every article, L = N.

        Returns:
            float64 [B, L, K].
        """
        shelf = self.articles
        chosen = slice(None) if items is None else items
        depth, appeal = shelf.depth[chosen], shelf.appeal[chosen]  # [B, L] or [N]
        cares = of_items(visitors.interest, shelf.subject[chosen])  # [B, L]
        opens = sigmoid(
            OPEN_LEVEL + 1.8 * cares + 1.3 * (1 - depth) + 0.4 * appeal - 0.8 * visitors.fatigue[:, None]
        )
        reads = opens * sigmoid(-1.2 + 2.2 * cares - 0.8 * depth)
        saves = reads * sigmoid(-3.6 + 3.0 * cares * (0.4 + depth)) / self.rarity
        return np.stack([opens, reads, saves], -1)

    def foresight(self, visitors: Readers) -> NDArray[np.float64]:
        """What the planner adds up beside the next step: interest grown, less light reading. [B, N, 2]."""
        shelf = self.articles
        opens = self.probabilities(visitors)[..., 0]
        room = MOST_INTEREST - visitors.interest[:, shelf.subject]
        return np.stack([opens * shelf.depth * room, -opens * (1 - shelf.depth)], -1)

    def answer(self, visitors: Readers, slates: NDArray[np.int64], dice: np.random.Generator) -> Answer:
        """Responses to the slates; moves the readers' hidden states on.

        Args:
            visitors: B readers; changed in place.
            slates: Articles shown, first position first. int64 [B, L].
            dice: Random numbers.
        """
        fired = draw_funnel(self.probabilities(visitors, slates), POSITION_COST, dice)  # [B, L, K]
        leaving = self._move(visitors, slates, fired)
        ended = dice.random(len(slates)) < leaving
        return Answer(fired.astype(np.float32), ended, leaving.astype(np.float32))

    def _move(
        self, visitors: Readers, slates: NDArray[np.int64], fired: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Updates hidden states after responses [B, L, K]; returns each reader's chance of leaving, [B]."""
        shelf, kept = self.articles, self.carry_over
        opened, read = fired[..., 0].astype(np.float64), fired[..., 1].astype(np.float64)
        depth, subject = shelf.depth[slates], shelf.subject[slates]
        places = np.arange(len(slates))[:, None] * len(SUBJECTS) + subject  # [B, L]
        grown = 0.3 * kept * depth * (0.4 * opened + 0.6 * read)
        growth = np.bincount(places.ravel(), grown.ravel(), visitors.interest.size)
        room = np.clip(1 - visitors.interest / MOST_INTEREST, 0, 1)
        visitors.interest += growth.reshape(room.shape) * room
        visitors.interest -= 0.01 * kept * (visitors.interest - OTHER_INTEREST)
        light = (opened * (1 - depth)).sum(1)
        visitors.fatigue = 0.8 * visitors.fatigue + 0.25 * kept * light
        leave = (
            LEAVE_LEVEL
            + 0.8 * visitors.fatigue
            + kept * (0.6 * (opened.sum(1) == 0) - 0.5 * read.sum(1) - 0.5 * visitors.interest.max(1))
        )
        return sigmoid(leave)
