"""Rewards of levers, beside a simulation that knows nothing of them."""

import pytest
import torch

from rl.levers import LeversConfig
from rl.simulator.levered import ExposurePrices, LeveredSimulation, limited_groups, slate_diversity
from tests.integration.shop_of_eight import ShopOfEight


def test_diversity_of_a_slate_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])

    diversity = slate_diversity(vectors, torch.tensor([[0, 1, 3], [0, 2, 1]]))

    # 1 is at right angles to 0; 3 is like 1 by 0.8; 2 is the same as 0; 1 differs fully from both.
    assert torch.allclose(diversity, torch.tensor([[0.0, 0.5, 0.1], [0.0, 0.0, 0.5]]))


def test_price_rises_above_the_limit_and_falls_below_it():
    prices = ExposurePrices(torch.tensor([0, 0, -1, -1]), torch.tensor([0.25]), step=0.5)
    crowded, empty = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[2, 3], [3, 2]])

    first = prices.charge(crowded)
    second = prices.charge(crowded)
    price = prices.prices.clone()
    other = prices.charge(torch.tensor([[2, 0]]))
    for _ in range(60):
        prices.charge(empty)

    assert (first == 0).all()
    assert (second < 0).all()
    assert other[0, 0] == 0.0
    assert other[0, 1] == pytest.approx(-price.item())
    assert prices.prices.item() == 0.0


def test_levered_simulation_adds_tasks_and_keeps_the_others():
    levers = LeversConfig(diversity=0.4, exposure_limits={"big": 0.5})
    groups = ["big"] * 4 + [None] * 4
    plain = ShopOfEight(5, seed=3)
    levered = LeveredSimulation(ShopOfEight(5, seed=3), levers, torch.eye(8), groups)
    plain.reset()
    levered.reset()
    plain.good[:] = levered.simulation.good[:] = 3

    unit = None
    for _ in range(4):
        slates = torch.stack([torch.randperm(8)[:2] for _ in range(5)])
        slates[0] = torch.tensor([3, 1])
        expected, result = plain.step(slates), levered.step(slates)

        assert torch.equal(result.rewards[..., :2], expected.rewards)
        worth = float((expected.rewards.sum(1) * 0.5).sum(-1).mean())
        unit = worth if unit is None else 0.99 * unit + 0.01 * worth
        assert torch.allclose(result.rewards[..., 2], torch.tensor([0.0, unit]).expand(5, -1))
        assert result.rewards.shape == (5, 2, 4)
        assert result.finished["returns"].shape == (len(expected.finished["returns"]), 4)
        assert torch.equal(result.finished["returns"][:, :2], expected.finished["returns"])
    observation = levered.observe()
    assert torch.allclose(observation["task_weights"], torch.tensor([0.5, 0.5, 0.4, 1.0]).expand(5, -1))


def test_limit_for_a_group_that_no_item_has():
    with pytest.raises(
        ValueError, match=r"exposure_limits: expected groups of the item table \(big\), got 'small'"
    ):
        limited_groups(LeversConfig(exposure_limits={"small": 0.5}), ["big", None])
