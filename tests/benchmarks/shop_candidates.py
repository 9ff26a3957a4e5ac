"""Candidates for the gate: policies of many kinds, near the logging policy and far from it, better and worse."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.shop.catalogue import make_catalogue
from pipelines.shop.world import ShopWorld
from rl.evaluation.off_policy.weights import build_steps
from tests.benchmarks.shop_policies import Policy, play

Floats = NDArray[np.float64]
NUM_ITEMS = 240  # the made-up shop's default


def open_shop(seed: int) -> tuple[ShopWorld, Policy]:
    """A shop and its logging policy, as ``make_shop`` opens it."""
    dice = np.random.default_rng(seed)
    world = ShopWorld(make_catalogue(NUM_ITEMS, dice))
    return world, Policy("logging", world.logging_scores(dice))


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
    """Endless candidates: a direction, or a mixture of two; a strength; perhaps interest; perhaps slates kept.

    Half of the directions would improve the shop, and half are anything; strengths reach from the logging policy's
    neighbour to policies that hardly share a slate with it.
    """
    dice = np.random.default_rng(seed)
    improving = _improving_directions(world, logging, seed)
    any_direction = _directions(world, logging.scores, dice)
    number = 0
    while True:
        first, second = (_pick(improving if dice.random() < 0.5 else any_direction, dice) for _ in range(2))
        share = dice.choice([0.0, 0.0, 0.3, 0.6])
        direction = _unit((1 - share) * _unit(first[1]()) + share * _unit(second[1]()))
        strength = float(np.exp(dice.uniform(np.log(0.03), np.log(0.8))))
        interest = float(dice.choice([0.0, 0.0, -0.2, 0.1, 0.3]))
        kept = float(dice.choice([0.0, 0.0, 0.0, 0.3, 0.6]))
        kind = first[0] if share == 0 else f"{first[0]} and {second[0]}"
        scores = logging.scores + strength * direction
        yield Policy(f"{number} {kind} {strength:.2f}", scores, interest, kept)
        number += 1


def _pick(
    directions: dict[str, Callable[[], Floats]], dice: np.random.Generator
) -> tuple[str, Callable[[], Floats]]:
    names = list(directions)
    name = names[dice.integers(len(names))]
    return name, directions[name]


def _improving_directions(world: ShopWorld, logging: Policy, seed: int) -> dict[str, Callable[[], Floats]]:
    """What a learner would find in a log: which items the sessions that see them earn most after, and bait's price."""
    shelf = world.catalogue
    log = play(world, logging, logging, 20_000, (seed, 104))
    steps = build_steps(log.session)
    so_far = log.rewards[:, 0].cumsum()
    ends = np.append(np.flatnonzero(steps.step == 0)[1:], len(so_far)) - 1  # last slate of each session
    to_go = so_far[ends][steps.session] - so_far + log.rewards[:, 0]  # [R]
    shows = np.bincount(log.items.ravel(), minlength=len(shelf))
    worth = np.bincount(log.items.ravel(), np.repeat(to_go, log.items.shape[1]), len(shelf)) / np.maximum(
        shows, 1
    )
    rank = worth.argsort().argsort() / len(worth)
    return {
        "less bait": lambda: -shelf.bait,
        "much less bait": lambda: -(shelf.bait**2),
        "appeal without bait": lambda: shelf.appeal - 2 * shelf.bait,
        "what pays later": lambda: rank,
    }


def _directions(world: ShopWorld, base: Floats, dice: np.random.Generator) -> dict[str, Callable[[], Floats]]:
    shelf = world.catalogue

    def topics() -> Floats:
        return np.asarray(dice.normal(size=len(shelf.centres))[shelf.topic])

    return {
        "more bait": lambda: shelf.bait,
        "appeal": lambda: shelf.appeal,
        "sharper": lambda: base,
        "flatter": lambda: -base,
        "some topics": topics,
        "chance": lambda: dice.normal(size=len(base)),
    }


def _unit(direction: Floats) -> Floats:
    """Mean 0 and standard deviation 1 over the items."""
    return np.asarray((direction - direction.mean()) / direction.std())
