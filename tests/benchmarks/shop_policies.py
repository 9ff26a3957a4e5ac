"""Policies for the made-up shop whose chance of any slate is known, and their logs, many sessions at a time.

Every policy draws its slates by Plackett-Luce from a fixed score of each item plus an interest in each topic that
follows what the user viewed in the session; with some chance a slate is the logging policy's instead. Everything that
the chance of a slate depends on is in the log, as it would be for a real policy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.shop.people import put, rows
from pipelines.shop.world import ShopWorld

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SLATE_LENGTH, MAX_STEPS = 5, 40  # the made-up shop's defaults
TASK_WEIGHTS = np.array([0.2, 0.3, 0.5])  # of view, cart and purchase
FADE = 0.8  # of the views of a topic, a step


@dataclass(frozen=True)
class Policy:
    """Scores of items, interest in topics already viewed, and the share of slates left to the logging policy."""

    name: str
    scores: Floats  # [N]
    interest: float = 0.0  # added to an item's score for each view of its topic so far, faded
    kept: float = 0.0  # in [0, 1)


@dataclass(frozen=True)
class ShopSlates:
    """R slates of S sessions, by session and step."""

    session: Ints  # [R]
    items: Ints  # [R, L]
    rewards: Floats  # [R, 1 + K] weighted, then each task's
    viewed: Floats  # [R, T] views of each topic before the slate, faded
    num_sessions: int

    @property
    def returns(self) -> Floats:
        """Return of each session. float64 [S, 1 + K]."""
        columns = [np.bincount(self.session, column, self.num_sessions) for column in self.rewards.T]
        return np.stack(columns, axis=1)


def slate_log_chance(world: ShopWorld, policy: Policy, logging: Policy, log: ShopSlates) -> Floats:
    """Log-probability of each logged slate under a policy. float64 [R]."""
    own = _plackett_luce_log_chance(world, policy, log.items, log.viewed)
    if not policy.kept:
        return own
    other = _plackett_luce_log_chance(world, logging, log.items, log.viewed)
    return np.asarray(np.logaddexp(np.log1p(-policy.kept) + own, np.log(policy.kept) + other))


def play(
    world: ShopWorld,
    policy: Policy,
    logging: Policy,
    num_sessions: int,
    seed: int | tuple[int, ...],
    visitors_seed: int | tuple[int, ...] | None = None,
    watch: bool = True,
) -> ShopSlates:
    """Sessions of as many newcomers under a policy.

    Args:
        world: The shop.
        policy: Which is played.
        logging: Which plays the slates that the policy leaves to it.
        num_sessions: S, one a user, so that sessions are independent.
        seed: Of slates and answers.
        visitors_seed: Of who comes; None is the seed's.
        watch: Keep count of the views; without, only policies without interest may play.
    """
    dice = np.random.default_rng(seed)
    people = world.newcomers(
        num_sessions, dice if visitors_seed is None else np.random.default_rng(visitors_seed)
    )
    topic, num_topics = world.catalogue.topic, len(world.catalogue.centres)
    alive, viewed, parts = np.arange(num_sessions), np.zeros((num_sessions, num_topics)), []
    for _ in range(MAX_STEPS):
        now, seen = rows(people, alive), viewed[alive]
        slates = _draw(world, policy, seen, dice)
        kept = dice.random(len(alive)) < policy.kept
        if kept.any():
            slates[kept] = _draw(world, logging, seen[kept], dice)
        answer = world.answer(now, slates, dice)
        put(people, alive, now)
        tasks = answer.responses.sum(axis=1, dtype=np.float64)  # [B, K]
        parts.append((alive, slates, np.column_stack([tasks @ TASK_WEIGHTS, tasks]), seen))
        if watch:
            places = np.arange(len(alive))[:, None] * num_topics + topic[slates]  # [B, L]
            views = np.bincount(places.ravel(), answer.responses[..., 0].ravel(), seen.size)
            viewed[alive] = FADE * seen + views.reshape(seen.shape)
        alive = alive[~answer.ended]
        if not len(alive):
            break
    session, items, rewards, seen = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(session, kind="stable")
    return ShopSlates(session[order], items[order], rewards[order], seen[order], num_sessions)


def _topic_interest(policy: Policy, viewed: Floats) -> Floats:
    """What the views so far multiply a topic's weights by. [B, T]."""
    return np.exp(policy.interest * np.minimum(viewed, 3.0))


def _plackett_luce_log_chance(world: ShopWorld, policy: Policy, items: Ints, viewed: Floats) -> Floats:
    topic, weight = world.catalogue.topic, np.exp(policy.scores - policy.scores.max())
    total, shown = np.full(len(items), weight.sum()), weight[items]  # [R], [R, L]
    if policy.interest:
        factor = _topic_interest(policy, viewed)  # [R, T]
        total = factor @ np.bincount(topic, weight, viewed.shape[1])
        shown = shown * np.take_along_axis(factor, topic[items], axis=1)
    above = shown.cumsum(axis=1) - shown
    return np.asarray(np.log(shown / (total[:, None] - above)).sum(axis=1))


def _draw(world: ShopWorld, policy: Policy, viewed: Floats, dice: np.random.Generator) -> Ints:
    """Slates by Plackett-Luce: draw a topic, an item in it, and again where the slate has it already. [B, L]."""
    topic, weight = world.catalogue.topic, np.exp(policy.scores - policy.scores.max())
    mass = np.bincount(topic, weight, viewed.shape[1])
    by_topic = np.argsort(topic, kind="stable")
    ends = np.cumsum(weight[by_topic])  # the topics' items, one after the other
    start = np.concatenate([[0.0], np.cumsum(mass)])
    chance = np.cumsum(_topic_interest(policy, viewed) * mass, axis=1)  # [B, T]
    slates = np.full((len(viewed), SLATE_LENGTH), -1, dtype=np.int64)
    for position in range(SLATE_LENGTH):
        left = np.arange(len(viewed))
        while len(left):
            if policy.interest:
                aim = dice.random(len(left)) * chance[left, -1]
                picked = (chance[left] <= aim[:, None]).sum(axis=1).clip(max=len(mass) - 1)
                place = np.searchsorted(
                    ends, start[picked] + dice.random(len(left)) * mass[picked], side="right"
                )
            else:  # one table for all
                place = np.searchsorted(ends, dice.random(len(left)) * ends[-1], side="right")
            item = by_topic[place.clip(max=len(weight) - 1)]
            again = np.zeros(len(left), dtype=np.bool_)
            for above in range(position):
                again |= slates[left, above] == item
            slates[left[~again], position] = item[~again]
            left = left[again]
    return slates
