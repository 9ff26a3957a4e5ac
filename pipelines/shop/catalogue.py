"""The made-up shop's catalogue: items with hidden properties that their readable text hints at."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.people import unit

TOPICS: dict[str, tuple[str, ...]] = {
    "running gear": ("running shoes", "trail vest", "sport socks", "pace watch"),
    "coffee": ("espresso beans", "pour-over kettle", "burr grinder", "milk frother"),
    "garden": ("tomato seedlings", "pruning shears", "raised bed", "watering can"),
    "board games": ("strategy game", "card game", "puzzle box", "dice set"),
    "skin care": ("face cream", "clay mask", "sun lotion", "cleansing oil"),
    "camping": ("two-person tent", "sleeping bag", "gas stove", "head torch"),
    "crime novels": ("detective novel", "noir thriller", "courtroom drama", "spy story"),
    "cycling": ("bike helmet", "repair kit", "handlebar bag", "cycling jersey"),
    "kitchen": ("cast-iron pan", "chef's knife", "mixing bowl", "baking tray"),
    "music": ("vinyl record", "studio headphones", "ukulele", "turntable"),
    "baby": ("baby carrier", "wooden rattle", "muslin cloths", "night light"),
    "home office": ("desk lamp", "standing desk", "notebook set", "ergonomic chair"),
}
BRANDS = ("Alder", "Borea", "Cinder", "Dovetail", "Ember & Oak", "Fjord", "Gilt", "Harbour")
PLAIN = ("Hand-finished", "Lasting", "Well-tested", "Solid", "Repairable", "Trusted")
MIDDLING = ("Classic", "Everyday", "New", "Compact", "Light", "Popular")
BAIT = ("FLASH DEAL!!! Unbelievable", "You won't believe this", "90% OFF today only:", "Last chance!!! Viral")
TASTE_WIDTH = 16


@dataclass(frozen=True)
class Catalogue:
    """Items as the shop's owner sees them (``table``), and what only the world knows."""

    table: pl.DataFrame  # item_id, title, category, brand, price, group; sorted by item_id
    topic: NDArray[np.int64]  # [N]
    taste: NDArray[np.float64]  # [N, W] unit vectors that users' tastes meet
    bait: NDArray[np.float64]  # [N] in (0, 1): draws views now, sours later
    appeal: NDArray[np.float64]  # [N] draws everybody
    centres: NDArray[np.float64]  # [T, W] the topics' directions

    def __len__(self) -> int:
        return len(self.topic)


def make_catalogue(num_items: int, dice: np.random.Generator, price_scale: float = 1.0) -> Catalogue:
    """A catalogue of ``num_items`` items over twelve topics; prices are around 25 times ``price_scale``."""
    names = list(TOPICS)
    centres = unit(dice.normal(size=(len(names), TASTE_WIDTH)))
    topic = dice.integers(0, len(names), num_items)
    taste = unit(centres[topic] + 0.12 * dice.normal(size=(num_items, TASTE_WIDTH)))
    bait = dice.beta(0.8, 1.2, num_items)
    titles = []
    for t, b in zip(topic, bait, strict=True):
        words = BAIT if b > 0.6 else MIDDLING if b > 0.3 else PLAIN
        nouns = TOPICS[names[t]]
        titles.append(f"{words[dice.integers(len(words))]} {nouns[dice.integers(len(nouns))]}")
    table = pl.DataFrame(
        {
            "item_id": [f"item-{i:05d}" for i in range(num_items)],
            "title": titles,
            "category": [names[t] for t in topic],
            "brand": [BRANDS[i] for i in dice.integers(0, len(BRANDS), num_items)],
            "price": np.round(price_scale * np.exp(dice.normal(3.2, 0.7, num_items)), 2),
            "group": np.where(dice.random(num_items) < 0.3, "marketplace", "own"),
        }
    )
    return Catalogue(table, topic, taste, bait, dice.normal(size=num_items), centres)
