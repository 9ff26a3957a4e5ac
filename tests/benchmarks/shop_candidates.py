"""Candidates for the gate: policies of many kinds, near the logging policy and far from it, better and worse."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.shop.catalogue import make_catalogue
from pipelines.shop.logging_policy import logging_scores
from pipelines.shop.world import ShopWorld
from tests.benchmarks.shop_policies import Policy

Floats = NDArray[np.float64]
NUM_ITEMS = 240  # the made-up shop's default


def open_shop(seed: int) -> tuple[ShopWorld, Policy]:
    """A shop and its logging policy, as ``make_shop`` opens it."""
    dice = np.random.default_rng(seed)
    world = ShopWorld(make_catalogue(NUM_ITEMS, dice))
    return world, Policy("logging", logging_scores(world.catalogue, dice))


def coverage_candidates(world: ShopWorld, logging: Policy) -> list[Policy]:
    """Six fixed policies: from near to as far as the gate still listens to, better and worse."""
    shelf, base, dice = world.catalogue, logging.scores, np.random.default_rng(1)
    chance = dice.normal(size=len(shelf))
    return [
        Policy("a little less bait", base - 0.05 * _unit(shelf.bait)),
        Policy("less bait", base - 0.12 * _unit(shelf.bait)),
        Policy("more bait", base + 0.15 * _unit(shelf.bait)),
        Policy("flatter", base - 0.14 * _unit(base)),
        Policy("chance", base + 0.11 * _unit(chance)),
        Policy("follows interest, half kept", base - 0.15 * _unit(shelf.bait), interest=0.2, kept=0.5),
    ]


def gate_candidates(world: ShopWorld, logging: Policy, seed: int) -> Iterator[Policy]:
    """Endless candidates: a direction, or a mixture of two; a strength; perhaps interest; perhaps slates kept."""
    dice = np.random.default_rng(seed)
    directions = _directions(world, logging.scores, dice)
    names = list(directions)
    number = 0
    while True:
        first, second = (names[dice.integers(len(names))] for _ in range(2))
        share = dice.choice([0.0, 0.0, 0.3, 0.6])
        direction = _unit((1 - share) * directions[first]() + share * directions[second]())
        strength = float(np.exp(dice.uniform(np.log(0.03), np.log(1.2))))
        interest = float(dice.choice([0.0, 0.0, -0.2, 0.1, 0.3]))
        kept = float(dice.choice([0.0, 0.0, 0.0, 0.3, 0.6]))
        kind = first if share == 0 else f"{first} and {second}"
        yield Policy(f"{number} {kind} {strength:.2f}", logging.scores + strength * direction, interest, kept)
        number += 1


def _directions(world: ShopWorld, base: Floats, dice: np.random.Generator) -> dict[str, Callable[[], Floats]]:
    shelf = world.catalogue

    def topics() -> Floats:
        return np.asarray(dice.normal(size=len(shelf.centres))[shelf.topic])

    return {
        "less bait": lambda: -shelf.bait,
        "much less bait": lambda: -(shelf.bait**2),
        "more bait": lambda: shelf.bait,
        "appeal": lambda: shelf.appeal,
        "appeal without bait": lambda: shelf.appeal - 2 * shelf.bait,
        "sharper": lambda: base,
        "flatter": lambda: -base,
        "some topics": topics,
        "chance": lambda: dice.normal(size=len(base)),
    }


def _unit(direction: Floats) -> Floats:
    """Mean 0 and standard deviation 1 over the items."""
    return np.asarray((direction - direction.mean()) / direction.std())
