"""Advantages against slow references."""

import numpy as np
import pytest
import torch

from rl.policy.advantage import clipped_objective, generalised_advantages, position_advantages


def slow_advantages(rewards, values, ended, leaving, discount, decay):
    """Eq. 16 as written: the decayed sum of later surpluses, up to the end of the session; luck taken out."""
    num_sessions, num_steps, num_tasks = rewards.shape
    out = np.zeros(rewards.shape)
    for b in range(num_sessions):
        for t in range(num_steps):
            for k in range(num_tasks):
                factor = 1.0
                for u in range(t, num_steps):
                    follows = 0.0 if ended[b, u] else values[b, u + 1, k]
                    luck = discount * (leaving[b, u] - ended[b, u]) * values[b, u, k]
                    out[b, t, k] += factor * (rewards[b, u, k] + discount * follows - values[b, u, k] - luck)
                    if ended[b, u]:
                        break
                    factor *= discount * decay
    return out


def test_generalised_advantages_against_slow_reference():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 7, 2))
    leaving = rng.random((3, 6))
    ended = rng.random((3, 6)) < leaving

    fast = generalised_advantages(*map(torch.tensor, (rewards, values, ended, leaving)), 0.9, 0.8)

    assert ended.any()
    assert np.allclose(fast.numpy(), slow_advantages(rewards, values, ended, leaving, 0.9, 0.8))


def test_taking_out_the_luck_of_who_leaves_changes_no_mean():
    num_sessions, discount = 40_000, 0.9
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(1, 5, 2, generator=generator), 5 * torch.rand(1, 6, 2, generator=generator)
    leaving = torch.rand(1, 5, generator=generator).expand(num_sessions, -1)
    ended = torch.rand(num_sessions, 5, generator=generator) < leaving
    same = (rewards.expand(num_sessions, -1, -1), values.expand(num_sessions, -1, -1), ended)

    with_luck = generalised_advantages(*same, ended.float(), discount, 1.0)
    without = generalised_advantages(*same, leaving, discount, 1.0)

    error = (with_luck - without).std(0) / num_sessions**0.5
    assert ((with_luck - without).mean(0).abs() < 4 * error).all()


def test_where_only_leaving_is_random_no_luck_is_left():
    reward, leaving, discount = 1.0, 0.2, 0.9
    worth = reward / (1 - discount * (1 - leaving))  # the same before every slate
    ended = torch.rand(50, 8, generator=torch.Generator().manual_seed(0)) < leaving
    world = (torch.full((50, 8, 1), reward), torch.full((50, 9, 1), worth), ended)

    with_luck = generalised_advantages(*world, ended.float(), discount, 1.0)
    without = generalised_advantages(*world, torch.full((50, 8), leaving), discount, 1.0)

    assert with_luck.std() > 0.5
    assert without.abs().max() < 1e-5


def test_generalised_advantages_when_undecayed_are_returns_less_values():
    rewards = torch.tensor([[[1.0], [2.0], [4.0]]])
    values = torch.tensor([[[0.5], [1.0], [1.5], [100.0]]])
    ended = torch.tensor([[False, False, True]])

    advantages = generalised_advantages(rewards, values, ended, ended.float(), discount=1.0, decay=1.0)

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
