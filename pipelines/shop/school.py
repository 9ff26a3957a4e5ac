"""A made-up school: exercises just above a pupil's skill teach most, and are failed most.

Trying feeds solving, solving feeds mastering, and only hard exercises are mastered. Easy ones are solved now and
teach nothing; those far too hard only discourage. So the best slate for the next step keeps pupils where they are,
and the best policy lets them fail a little, until hard lessons pay.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.config import ShopConfig
from pipelines.shop.people import Answer, draw_funnel, of_items, sigmoid

SUBJECTS: dict[str, tuple[str, ...]] = {
    "algebra": ("linear equations", "factoring", "inequalities", "sequences"),
    "biology": ("the cell", "heredity", "food webs", "enzymes"),
    "chemistry": ("acids and bases", "the periodic table", "reaction rates", "bonding"),
    "geography": ("rivers", "climate zones", "city growth", "maps"),
    "geometry": ("triangles", "circles", "vectors", "solids"),
    "grammar": ("clauses", "tenses", "punctuation", "word order"),
    "physics": ("forces", "circuits", "waves", "heat"),
    "programming": ("loops", "lists", "recursion", "testing"),
}
EASY = ("Warm-up:", "First steps in", "Easy practice:", "Quick check:")
MIDDLING = ("Practice:", "Worksheet on", "Lesson exercise:", "Review of")
HARD = ("Challenge:", "Contest problem on", "Advanced:", "Hard proof in")
POSITION_COST = 0.15  # of a try's logit, a position
TRY_LEVEL, LEAVE_LEVEL = -1.5, -3.0  # logits of an average exercise's try, and of leaving
FIRST_SKILL, SKILL_SPREAD = 0.2, 0.06  # of newcomers, in [0, 1]
ADVANCED = 0.2  # share of newcomers who know more already
MOST_ADVANCED = 0.95  # skill of the best of them
KEPT = 0.3  # share of what a session taught that is still known at the next
LEVEL_PENALTY, NOISE = 0.3, 1.0  # of the logging policy's scores
LESSONS, COMFORTS = (0.0, 1.0, 2.0, 4.0, 8.0), (0.0, 0.1, 0.25)  # that the planner is searched among


@dataclass(frozen=True)
class Exercises:
    """Exercises as the teacher sees them (``table``), and what only the world knows."""

    table: pl.DataFrame  # item_id, title, category, group; sorted by item_id
    subject: NDArray[np.int64]  # [N]
    level: NDArray[np.float64]  # [N] in (0, 1), on the scale of skill
    appeal: NDArray[np.float64]  # [N] draws everybody


@dataclass
class Pupils:
    """Hidden state of B sessions under way."""

    skill: NDArray[np.float64]  # [B] in [0, 1]
    origin: NDArray[np.float64]  # [B] the skill that they came to school with
    liking: NDArray[np.float64]  # [B, T] by subject
    courage: NDArray[np.float64]  # [B] won by solving, lost by failing
    boredom: NDArray[np.float64]  # [B] of what was solved with ease


def make_exercises(num_items: int, dice: np.random.Generator) -> Exercises:
    """``num_items`` exercises over eight subjects."""
    names = list(SUBJECTS)
    subject = dice.integers(0, len(names), num_items)
    level = dice.random(num_items)
    titles = []
    for t, hard in zip(subject, level, strict=True):
        words = HARD if hard > 0.65 else MIDDLING if hard > 0.35 else EASY
        about = SUBJECTS[names[t]]
        titles.append(f"{words[dice.integers(len(words))]} {about[dice.integers(len(about))]}")
    table = pl.DataFrame(
        {
            "item_id": [f"item-{i:05d}" for i in range(num_items)],
            "title": titles,
            "category": [names[t] for t in subject],
            "group": np.where(dice.random(num_items) < 0.3, "licensed", "own"),
        }
    )
    return Exercises(table, subject, level, dice.normal(size=num_items))


class SchoolWorld:
    """The truth: answers slates of any policy."""

    tasks: tuple[str, ...] = ("try", "solve", "master")
    pays_price: str | None = None
    # Coefficients of ``foresight``.
    plans: tuple[tuple[float, ...], ...] = tuple(product(LESSONS, COMFORTS))

    def __init__(self, exercises: Exercises, carry_over: float = 1.0, rarity: float = 1.0) -> None:
        """``carry_over`` scales in [0, 1] what a slate changes of the pupil's state and of the chance of leaving.

        ``rarity`` divides the chance of the last response given the one before it.
        """
        self.exercises = exercises
        self.carry_over, self.rarity = carry_over, rarity

    @classmethod
    def open(cls, config: ShopConfig, dice: np.random.Generator) -> "SchoolWorld":
        """A school with exercises of its own."""
        return cls(make_exercises(config.num_items, dice), config.carry_over, config.rarity)

    @property
    def table(self) -> pl.DataFrame:
        """The exercises as the teacher sees them."""
        return self.exercises.table

    def logging_scores(self, dice: np.random.Generator) -> NDArray[np.float64]:
        """Scores of a teacher who prefers what is solved, with noise enough to learn from. [N]."""
        shelf = self.exercises
        noise = NOISE * dice.normal(size=len(shelf.level))
        scores: NDArray[np.float64] = 0.5 * shelf.appeal - LEVEL_PENALTY * shelf.level + noise
        return scores

    def newcomers(self, count: int, dice: np.random.Generator) -> Pupils:
        """Pupils of little skill and some of every other, each with subjects that they like more than others."""
        skill = np.clip(dice.normal(FIRST_SKILL, SKILL_SPREAD, count), 0, 1)
        advanced = dice.random(count) < ADVANCED
        skill[advanced] = dice.uniform(FIRST_SKILL, MOST_ADVANCED, int(advanced.sum()))
        return Pupils(
            skill=skill,
            origin=skill.copy(),
            liking=0.5 * dice.normal(size=(count, len(SUBJECTS))),
            courage=np.zeros(count),
            boredom=np.zeros(count),
        )

    def return_later(self, visitors: Pupils, dice: np.random.Generator) -> Pupils:
        """The same pupils at their next session: most of what was learned is forgotten, the mood is new."""
        skill = visitors.origin + KEPT * (visitors.skill - visitors.origin)
        liking = visitors.liking + 0.05 * dice.normal(size=visitors.liking.shape)
        calm = np.zeros(len(skill))
        return Pupils(np.clip(skill, 0, 1), visitors.origin.copy(), liking, calm, calm.copy())

    def _gap(self, visitors: Pupils, items: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """How far exercises [B, L], or all, lie above the pupils' skill. [B, L]."""
        level = self.exercises.level if items is None else self.exercises.level[items]
        return level - visitors.skill[:, None]

    def probabilities(self, visitors: Pupils, items: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Chance of each task at the first position: try, solve and master.

        Args:
            visitors: B pupils.
            items: Which exercises, [B, L]; None is every exercise, L = N.

        Returns:
            float64 [B, L, K].
        """
        shelf, gap = self.exercises, self._gap(visitors, items)
        chosen = slice(None) if items is None else items
        level, appeal = shelf.level[chosen], shelf.appeal[chosen]  # [B, L] or [N]
        likes = of_items(visitors.liking, shelf.subject[chosen])
        mood = (0.8 * visitors.courage - 0.6 * visitors.boredom)[:, None]
        tries = sigmoid(TRY_LEVEL + likes + 0.4 * appeal - np.maximum(gap, 0) + mood)
        solves = tries * sigmoid(1.5 - 10.0 * gap)
        masters = solves * sigmoid(-12.0 + 16.0 * level) / self.rarity
        return np.stack([tries, solves, masters], -1)

    def foresight(self, visitors: Pupils) -> NDArray[np.float64]:
        """What the planner adds up beside the next step: skill to be won, and success. [B, N, 2]."""
        chances = self.probabilities(visitors)
        lesson = chances[..., 0] * self._lesson(self._gap(visitors, None))
        room = 1.1 - visitors.skill[:, None]
        return np.stack([lesson * room, chances[..., 1]], -1)

    def answer(self, visitors: Pupils, slates: NDArray[np.int64], dice: np.random.Generator) -> Answer:
        """Responses to the slates; moves the pupils' hidden states on.

        Args:
            visitors: B pupils; changed in place.
            slates: Exercises shown, first position first. int64 [B, L].
            dice: Random numbers.
        """
        fired = draw_funnel(self.probabilities(visitors, slates), POSITION_COST, dice)  # [B, L, K]
        leaving = self._move(visitors, slates, fired)
        ended = dice.random(len(slates)) < leaving
        return Answer(fired.astype(np.float32), ended, leaving.astype(np.float32))

    def _lesson(self, gap: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a try teaches, by how far the exercise lies above the skill: most a little above, solved or not."""
        taught: NDArray[np.float64] = 0.15 * np.exp(-(((gap - 0.25) / 0.08) ** 2))
        return taught

    def _move(
        self, visitors: Pupils, slates: NDArray[np.int64], fired: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Updates hidden states after responses [B, L, K]; returns each pupil's chance of leaving, [B]."""
        kept = self.carry_over
        tried, solved = fired[..., 0].astype(np.float64), fired[..., 1].astype(np.float64)
        gap = self._gap(visitors, slates)
        taught = kept * tried * self._lesson(gap)
        eased = (solved * np.clip(-3 * gap, 0, 1)).sum(1)
        visitors.skill = np.clip(visitors.skill + taught.sum(1) * (1.1 - visitors.skill), 0, 1)
        failed = (tried - solved).sum(1)
        moved = 0.15 * np.minimum(solved.sum(1), 2) - 0.1 * failed
        visitors.courage = np.clip(0.8 * visitors.courage + kept * moved, -1.5, 1)
        visitors.boredom = 0.8 * visitors.boredom + 0.3 * kept * eased
        leave = LEAVE_LEVEL + kept * (0.6 * (tried.sum(1) == 0) - visitors.courage + visitors.boredom)
        return sigmoid(leave)
