"""How many more slates, or how much exploration: against what a larger or another log then shows."""

import numpy as np
import pytest
from scipy import stats

from rl.evaluation.off_policy.planning import SHARES, Question, exploration_needed, growth_needed


def test_growth_is_the_power_formula():
    question = Question(effect=0.1, confidence=0.95, power=0.8)

    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)
    assert growth_needed(0.1 / z, question) == pytest.approx(1)
    assert growth_needed(0.2 / z, question) == pytest.approx(4)


def test_log_grown_as_planned_shows_the_effect_about_as_often_as_promised():
    dice, question = np.random.default_rng(0), Question(effect=0.1, confidence=0.95, power=0.8)
    n = round(200 * growth_needed(1 / np.sqrt(200), question))

    shown = [dice.normal(0.1, 1, size=n) for _ in range(1000)]

    share = np.mean([x.mean() - 1.645 * x.std() / np.sqrt(n) > 0 for x in shown])
    assert share == pytest.approx(0.8, abs=0.05)


def two_armed(sessions: int, target: np.ndarray, logging: np.ndarray, seed: int):
    dice = np.random.default_rng(seed)
    arm = dice.choice(2, p=logging, size=sessions)
    return target[arm] / logging[arm], dice.normal(arm, 1.0)


def test_near_policy_needs_the_least_exploration_and_a_far_one_more():
    question = Question(effect=0.3, confidence=0.95)
    near = exploration_needed(*two_armed(5000, np.array([0.4, 0.6]), np.array([0.6, 0.4]), 1), question, 0.1)
    far = exploration_needed(
        *two_armed(5000, np.array([0.005, 0.995]), np.array([0.995, 0.005]), 1), question, 0.1
    )

    assert near.share == SHARES[0]
    assert far.share > near.share
    assert far.growth <= 1


def test_planned_error_is_what_the_mixture_then_has():
    target, logging, share = np.array([0.05, 0.95]), np.array([0.95, 0.05]), 0.2
    weights, returns = two_armed(200_000, target, logging, 2)
    mixture = (1 - share) * logging + share * target
    arm_weights = (target - logging) / mixture
    dice = np.random.default_rng(3)
    arm = dice.choice(2, p=mixture, size=400_000)
    values = arm_weights[arm] * (dice.normal(arm, 1.0) - returns.mean())
    error = values.std() / np.sqrt(len(weights))
    planned = np.sqrt(
        ((weights - 1) ** 2 * (returns - returns.mean()) ** 2 / (1 - share + share * weights)).mean()
        / len(weights)
    )

    assert planned == pytest.approx(error, rel=0.2)


def test_what_the_log_never_shows_counts_at_its_bound():
    returns = np.random.default_rng(4).normal(size=4000)
    question = Question(effect=0.1, confidence=0.95)

    none_shown = exploration_needed(np.zeros(4000), returns, question, 0.1)

    assert none_shown.share >= 0.2  # an experiment of two arms needs about (2.49 / 0.1)^2 / share sessions
    assert exploration_needed(np.ones(4000), returns, question, 0.1).share == SHARES[0]


def test_question_too_hard_for_half_the_traffic_asks_for_a_longer_log():
    returns = np.random.default_rng(5).normal(size=400)

    needed = exploration_needed(np.zeros(400), returns, Question(effect=0.05, confidence=0.95), 0.1)

    assert needed.share == SHARES[-1]
    assert needed.growth > 5
