"""Advantages against slow references."""

import numpy as np
import pytest
import torch

from rl.policy.advantage import clipped_objective, generalised_advantages, position_advantages


def slow_advantages(rewards, values, ended, discount, decay):
    """Eq. 16 as written: the decayed sum of later surpluses, up to the end of the session."""
    num_sessions, num_steps, num_tasks = rewards.shape
    out = np.zeros(rewards.shape)
    for b in range(num_sessions):
        for t in range(num_steps):
            for k in range(num_tasks):
                factor = 1.0
                for u in range(t, num_steps):
                    follows = 0.0 if ended[b, u] else values[b, u + 1, k]
                    out[b, t, k] += factor * (rewards[b, u, k] + discount * follows - values[b, u, k])
                    if ended[b, u]:
                        break
                    factor *= discount * decay
    return out


def test_generalised_advantages_against_slow_reference():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 7, 2))
    ended = rng.random((3, 6)) < 0.3

    fast = generalised_advantages(
        torch.tensor(rewards), torch.tensor(values), torch.tensor(ended), discount=0.9, decay=0.8
    )

    assert ended.any()
    assert np.allclose(fast.numpy(), slow_advantages(rewards, values, ended, 0.9, 0.8))


def test_generalised_advantages_when_undecayed_are_returns_less_values():
    rewards = torch.tensor([[[1.0], [2.0], [4.0]]])
    values = torch.tensor([[[0.5], [1.0], [1.5], [100.0]]])
    ended = torch.tensor([[False, False, True]])

    advantages = generalised_advantages(rewards, values, ended, discount=1.0, decay=1.0)

    assert advantages.flatten().tolist() == pytest.approx([6.5, 5.0, 2.5])


def test_position_advantages_take_out_the_luck_of_other_positions():
    rewards = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])  # M 1, L 2, K 2
    expected = torch.tensor([[[0.5, 0.0], [0.5, 1.0]]])
    task_weights = torch.tensor([[0.75, 0.25]])
    advantages = torch.tensor([[2.0, 4.0]])  # 2.5 when weighted

    by_position = position_advantages(advantages, rewards, expected, task_weights).sum(-1)

    # Surplus of position 0: 0.75 * 0.5; of position 1: -0.75 * 0.5 + 0.25 * 2.
    assert by_position[0].tolist() == pytest.approx([2.5 - 0.125, 2.5 - 0.375])


def test_position_advantages_sum_to_the_slates_when_only_rewards_count():
    rewards, expected = torch.rand(4, 3, 2), torch.rand(4, 3, 2)
    task_weights = torch.tensor([[0.5, 0.5]]).expand(4, -1)
    advantages = (rewards - expected).sum(1)  # nothing follows

    by_position = position_advantages(advantages, rewards, expected, task_weights).sum(-1)

    assert torch.allclose(by_position.sum(-1), (advantages * task_weights).sum(-1), atol=1e-6)


def test_clipped_objective_stops_paying_beyond_the_clip():
    log_ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])

    objective = clipped_objective(log_ratio, advantages, clip_range=0.2)

    assert objective[0].tolist() == pytest.approx([1.2, -1.5, 0.5, -0.8])
