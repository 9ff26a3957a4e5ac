"""The cross-fitted reward model: effects by hand, and that no session predicts itself."""

import numpy as np
import pytest

from rl.evaluation.off_policy.reward_model import cross_fitted, fit_item_rewards


def test_effects_are_shrunk_means():
    items = np.array([[0, 1], [0, 2], [1, 0]])
    rewards = np.array([[1.0, 0], [1, 0], [0, 0]])[..., None]

    model = fit_item_rewards(items, rewards, num_items=4, prior_shows=3.0)

    mean = 2 / 6
    assert model.position[:, 0] == pytest.approx([2 / 3 / mean, 0])
    assert model.item[0, 0] == pytest.approx((2 + 3 * mean) / (2 * 2 + 0 + 3))
    assert model.item[3, 0] == pytest.approx(mean)
    assert model.logged(np.array([[0, -1]]))[0, 1, 0] == 0


def test_predictions_come_from_other_sessions():
    items = np.array([[0], [0], [1], [1]])
    rewards = np.array([[5.0], [5], [1], [1]])[..., None]
    sessions = np.array([3, 3, 8, 8])

    logged, target = cross_fitted(
        items, rewards, sessions, 2, lambda rows, values: np.ones((len(rows), 1, 1)) * values.mean()
    )

    assert logged[:2, 0, 0] == pytest.approx([1, 1])  # what session 8 earned: item 0 is unknown to it
    assert logged[2:, 0, 0] == pytest.approx([5, 5])
    assert target[:, 0, 0] == pytest.approx([1, 1, 5, 5])
    with pytest.raises(ValueError, match="at least two sessions"):
        cross_fitted(items[:2], rewards[:2], sessions[:2], 2, lambda rows, values: values)


def test_model_learns_which_items_earn():
    dice = np.random.default_rng(0)
    truth, fade = dice.uniform(0.05, 0.6, size=20), np.array([1.0, 0.7, 0.4])
    items = np.argsort(dice.random((20_000, 20)), axis=1)[:, :3]
    rewards = (dice.random(items.shape) < truth[items] * fade).astype(float)[..., None]

    logged, _ = cross_fitted(
        items, rewards, np.arange(20_000), 20, lambda rows, values: np.zeros((len(rows), 3, 1))
    )

    assert np.abs(logged[..., 0] - truth[items] * fade).mean() < 0.02
