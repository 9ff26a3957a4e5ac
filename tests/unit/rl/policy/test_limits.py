"""Prices of limited costs."""

import itertools

import pytest
import torch

from rl.policy.limits import LimitPrices
from rl.tasks import TaskConfig, build_tasks


def a_round(cost: float, sessions: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Four sessions of two steps; each costs so much of the second task."""
    rewards = torch.zeros(sessions, 2, 3, 2)
    rewards[..., 0] = 1.0
    rewards[:, 0, 1, 1] = -cost
    ended = torch.tensor([[False, True]]).expand(sessions, -1)
    return rewards, ended


def prices_after(costs: list[float]) -> list[float]:
    prices = LimitPrices(torch.tensor([float("inf"), 0.5]))
    seen = [float(prices.prices[1])]
    for cost in costs:
        prices.follow(*a_round(cost))
        assert prices.prices[0] == 0
        seen.append(float(prices.prices[1]))
    return seen


def test_price_rises_while_too_much_is_spent_and_falls_while_too_little() -> None:
    above = prices_after([0.8] * 5)
    below = prices_after([0.2] * 5)

    assert all(later > earlier for earlier, later in itertools.pairwise(above))
    assert all(later < earlier for earlier, later in itertools.pairwise(below))


def test_price_stands_at_the_limit_whatever_the_unit() -> None:
    assert prices_after([0.5] * 3) == pytest.approx([0.1] * 4)
    small = LimitPrices(torch.tensor([float("inf"), 0.5e-3]))
    small.follow(*a_round(0.8e-3))
    assert float(small.prices[1]) == pytest.approx(prices_after([0.8])[1])


def test_round_in_which_no_session_ended_tells_nothing() -> None:
    prices = LimitPrices(torch.tensor([float("inf"), 0.5]))
    rewards, ended = a_round(5.0)

    prices.follow(rewards, torch.zeros_like(ended))

    assert float(prices.prices[1]) == pytest.approx(0.1)


def test_only_costs_have_limits() -> None:
    tasks = build_tasks({"buy": TaskConfig(), "return": TaskConfig(cost=True, weight=0, at_most=0.2)})

    assert tasks.limits.tolist() == pytest.approx([float("inf"), 0.2])
    with pytest.raises(ValueError, match=r"rl\.tasks\.buy\.at_most: expected a limit of a cost"):
        build_tasks({"buy": TaskConfig(at_most=1.0)})
