"""Importance weights, and what they say of an estimate's worth."""

import numpy as np
import pytest

from encoders.sessions import LoggedSlates
from rl.evaluation.off_policy.diagnostics import diagnose, propensity_calibration, unsupported_share
from rl.evaluation.off_policy.weights import (
    build_steps,
    clipped,
    cumulative_weights,
    effective_sample_size,
    importance_weights,
    optimistically_shrunk,
    position_weights,
    shrunk,
    slate_rewards,
)
from rl.tasks import TaskConfig, build_tasks


def test_rewards_are_signed_and_pay_value_where_the_task_says_so():
    tasks = build_tasks(
        {"view": TaskConfig(), "watch": TaskConfig(pays="value"), "return": TaskConfig(cost=True)}
    )
    slates = LoggedSlates(
        session=np.array([0]),
        items=np.array([[3, 4]]),
        responses=np.array([[[1, 1, 0], [0, 1, 1]]], dtype=np.float32),
        values=np.array([[[9, 30, 0], [0, 12, 5]]], dtype=np.float32),
        propensities=np.ones((1, 2)),
        behaviours_before=np.array([0]),
    )

    assert slate_rewards(slates, tasks).tolist() == [[1, 42, -1]]


def test_weight_is_of_the_whole_slate_and_leaves_empty_places_out():
    items = np.array([[1, 2], [3, -1], [4, 5]])
    target = np.log([[0.5, 0.4], [0.3, 1.0], [0.5, 0.5]])
    propensities = np.array([[0.25, 0.2], [0.6, np.nan], [0.5, np.nan]])

    weights = importance_weights(target, propensities, items)

    assert weights[:2] == pytest.approx([4.0, 0.5])
    assert np.isnan(weights[2])
    assert position_weights(target, propensities, items)[0] == pytest.approx([2.0, 2.0])


def test_propensity_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="propensity: expected in"):
        importance_weights(np.zeros((1, 1)), np.array([[0.0]]), np.array([[2]]))
    with pytest.raises(ValueError, match="of one shape"):
        importance_weights(np.zeros((1, 2)), np.array([[0.5]]), np.array([[2]]))


def test_cumulative_weights_multiply_within_a_session_and_start_anew():
    steps = build_steps(np.array([7, 7, 7, 2, 2]))

    assert cumulative_weights(np.array([2.0, 3.0, 0.5, 4.0, 1.0]), steps).tolist() == [2, 6, 3, 4, 4]
    assert steps.step.tolist() == [0, 1, 2, 0, 1]
    assert steps.sums(np.array([1.0, 1, 1, 10, 20])).tolist() == [3, 30]


def test_weights_are_tamed_as_their_formulas_say():
    weights = np.array([0.5, 1.0, 100.0])

    assert clipped(weights, 10).tolist() == [0.5, 1, 10]
    assert shrunk(weights, 0.1) == pytest.approx([0.5 / 0.95, 1, 100 / 10.9])
    assert optimistically_shrunk(weights, 4) == pytest.approx([2 / 4.25, 4 / 5, 400 / 10_004])
    assert optimistically_shrunk(weights, np.inf) is weights


def verdict_of(weights: np.ndarray) -> str:
    return diagnose(weights, build_steps(np.arange(len(weights)))).verdict()


@pytest.mark.parametrize(
    ("spread", "word"), [(0.2, "Good"), (1.2, "Fair"), (1.9, "Poor"), (3.5, "Worthless")]
)
def test_verdict_falls_with_the_effective_sample_size(spread, word):
    weights = np.exp(spread * np.random.default_rng(1).normal(size=4000) - spread**2 / 2)

    verdict = verdict_of(weights)

    assert verdict.startswith(word)
    assert f"{effective_sample_size(weights):,.0f}" in verdict


def test_missing_support_is_seen_in_weights_that_do_not_reach_one():
    dice = np.random.default_rng(2)
    action = dice.integers(0, 4, size=3000)
    target = np.array([0.2, 0.2, 0.2, 0.2])  # a fifth of what it does is an action never logged

    verdict = verdict_of(target[action] / 0.25)

    assert verdict.startswith("Not to be used")
    assert "0.800" in verdict


def test_tail_and_largest_weights_are_shares_of_all_weight():
    weights = np.ones(200)
    weights[3] = 801.0

    found = diagnose(weights, build_steps(np.arange(200)))

    assert found.largest_weight == 801
    assert found.largest_share == pytest.approx(801 / 1000)
    assert found.tail_share == pytest.approx(802 / 1000)


def test_items_never_shown_are_unsupported():
    target = np.array([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0]])

    assert unsupported_share(target, np.array([[0, -1], [0, 1]]), 3) == pytest.approx(0.1)


@pytest.mark.parametrize(("told", "side"), [(1.0, 0), (0.8, 1), (1.25, -1)])
def test_calibration_shows_propensities_that_are_not_what_was_done(told, side):
    dice, chance = np.random.default_rng(3), np.array([0.4, 0.3, 0.2, 0.1])
    items = dice.choice(4, p=chance, size=(5000, 1))

    found = propensity_calibration(told * chance[items], items, 4, build_steps(np.arange(5000) // 5))

    assert found.mean == pytest.approx(1 / told, rel=0.05)
    assert found.n == 1000
    sides = (found.low > 1) - (found.high < 1)
    assert sides == side
