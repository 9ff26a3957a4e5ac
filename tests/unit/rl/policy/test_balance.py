"""How tasks share the actor's gradient."""

import numpy as np
import pytest
import torch

from rl.policy.balance import TaskBalance, project_conflicts


def slow_projection(gradients: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Yu et al. 2020, algorithm 1, as written."""
    total = np.zeros(gradients.shape[1])
    for i, order in enumerate(orders):
        own = gradients[i].copy()
        for j in order:
            if j != i and own @ gradients[j] < 0:
                own -= own @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
        total += own
    return total


@pytest.mark.parametrize("seed", range(5))
def test_projection_against_slow_reference(seed: int) -> None:
    dice = np.random.default_rng(seed)
    gradients = dice.normal(size=(4, 6))
    orders = np.stack([dice.permutation(4) for _ in range(4)])

    fast = project_conflicts(torch.tensor(gradients), torch.tensor(orders))

    assert not np.allclose(fast, gradients.sum(0))  # something was projected
    np.testing.assert_allclose(fast.numpy(), slow_projection(gradients, orders), atol=1e-9)


def test_gradients_that_agree_are_summed_and_none_is_no_harm() -> None:
    gradients = torch.tensor([[1.0, 0.5], [0.2, 1.0], [0.0, 0.0]])
    orders = torch.stack([torch.arange(3)] * 3)

    assert torch.allclose(project_conflicts(gradients, orders), gradients.sum(0))


def test_fixed_weights_and_pcgrad_have_no_factors() -> None:
    for method in ("fixed", "pcgrad"):
        balance = TaskBalance(method, 2)
        balance.follow(torch.randn(100, 2) * torch.tensor([1.0, 50.0]), torch.ones(100, 3, 2))
        assert balance.factors.tolist() == [1.0, 1.0]


def test_uncertainty_weighs_down_what_is_noisy() -> None:
    torch.manual_seed(0)
    balance = TaskBalance("uncertainty", 3)
    for _ in range(30):
        advantages = torch.randn(2000, 3) * torch.tensor([1.0, 100.0, 0.0])  # the last task never pays
        balance.follow(advantages, torch.ones(2000, 3, 3))

    pull = balance.factors[:2] * torch.tensor([1.0, 100.0])
    assert float(pull[0] / pull[1]) == pytest.approx(1.0, rel=0.05)
    assert torch.isfinite(balance.factors).all()


def pulled(rewards: list[float], sizes: torch.Tensor, rounds: int = 200) -> torch.Tensor:
    """Share of each task's pull after GradNorm has settled, where a task's gradient has a size of its own."""
    balance = TaskBalance("gradnorm", len(sizes))
    first = torch.ones(10, 1, len(sizes)) * torch.tensor(rewards).sign()
    for index in range(rounds):
        balance.follow(
            torch.randn(10, len(sizes)), first if index == 0 else torch.tensor(rewards).expand(10, 1, -1)
        )
        balance.restore(balance.factors * sizes)
    pulls = balance.factors * sizes
    return pulls / pulls.sum()


def test_gradnorm_makes_tasks_pull_equally_hard() -> None:
    shares = pulled([1.0, 1.0, 1.0], torch.tensor([1.0, 100.0, 0.05]))

    assert shares.tolist() == pytest.approx([1 / 3] * 3, rel=0.02)


def test_gradnorm_lets_the_task_that_lags_behind_pull_harder() -> None:
    grown, still = pulled([4.0, 1.0], torch.tensor([1.0, 1.0])).tolist()
    assert still / grown == pytest.approx(2.0, rel=0.05)  # the square root of 4

    halved, as_ever = pulled([-0.25, -1.0], torch.tensor([1.0, 1.0])).tolist()  # costs
    assert as_ever / halved == pytest.approx(2.0, rel=0.05)


def test_gradnorm_leaves_a_task_without_gradient_alone() -> None:
    balance = TaskBalance("gradnorm", 3)
    balance.follow(torch.randn(10, 3), torch.ones(10, 1, 3))
    for _ in range(50):
        balance.restore(balance.factors * torch.tensor([1.0, 4.0, 0.0]))

    assert float(balance.factors[0] / balance.factors[1]) == pytest.approx(4.0, rel=0.05)
    assert 0.1 < float(balance.factors[2]) < 10
