"""Keeping tasks from drowning each other: how the tasks' gradients share one actor."""

import torch
from torch import Tensor, nn

from rl.policy.config import Balance
from rl.policy.moments import average, moments

_RATE = 0.1  # share of a round in running deviations
_STEP = 0.1  # of the logarithm of a factor, a round, at e times too much or too little
_RESTORING = 0.5  # GradNorm's alpha: how much more a task that lags behind may pull
_LEAST = 1e-6
_MOST = 1e4  # times the least factor that the largest may be


class TaskBalance(nn.Module):
    """Factors on the task weights, moved once a round; all are 1 where weights are fixed, and under PCGrad.

    ``uncertainty`` divides by the deviation of the critic's error on each task. It is where the learned variances of
    Kendall et al. settle for a Gaussian likelihood, so nothing is left to learn by gradient.

    ``gradnorm`` moves factors until every task pulls equally hard at the actor's query for the same weight, and those
    whose reward has grown least a little harder.

    Sources:
        Kendall, Gal and Cipolla 2018, arXiv:1705.07115, eq. 10, the optimum in sigma.
        Chen et al. 2018, arXiv:1711.02257; steps here are of a factor's logarithm, and what grows is the reward.
    """

    factors: Tensor
    variance: Tensor
    first_rewards: Tensor
    rewards: Tensor
    num_rounds: Tensor

    def __init__(self, method: Balance, num_tasks: int) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("factors", torch.ones(num_tasks))
        for name in ("variance", "first_rewards", "rewards"):
            self.register_buffer(name, torch.zeros(num_tasks))
        self.register_buffer("num_rounds", torch.zeros(()))

    @torch.no_grad()
    def follow(self, advantages: Tensor, rewards: Tensor) -> None:
        """Note a round.

        Args:
            advantages: Which are the critic's errors on the returns. float32 [M, K].
            rewards: float32 [M, L, K].
        """
        if self.method not in ("uncertainty", "gradnorm"):
            return
        mean, variance = moments(advantages)
        first = self.num_rounds == 0
        self.variance.lerp_(variance + mean.square(), 1.0 if first else _RATE)
        reward = average(rewards.sum(1).mean(0))
        self.rewards.lerp_(reward, 1.0 if first else _RATE)
        if first:
            self.first_rewards.copy_(reward)
        self.num_rounds.add_(1)
        if self.method == "uncertainty":
            deviation = self.variance.sqrt()
            self._set(1 / deviation.clamp_min(max(float(deviation.max()) / _MOST, _LEAST)))

    @torch.no_grad()
    def restore(self, norms: Tensor) -> None:
        """Move GradNorm's factors.

        Args:
            norms: Of each task's gradient, its factor included, for the same task weight. A task that did not pull
                keeps its factor. float32 [K].
        """
        pulls = norms > _LEAST * norms.max().clamp_min(_LEAST)
        if int(pulls.sum()) < 2:
            return
        grown = self.rewards.abs().clamp_min(_LEAST) / self.first_rewards.abs().clamp_min(_LEAST)
        grown = torch.where(self.rewards < 0, 1 / grown, grown)  # of a cost, less is more
        lag = (1 / grown).clamp(0.1, 10)
        target = norms[pulls].mean() * (lag / lag[pulls].mean()) ** _RESTORING
        error = torch.where(pulls, (target / norms.clamp_min(_LEAST)).log().clamp(-1, 1), 0.0)
        self._set(self.factors * (_STEP * error).exp())

    def _set(self, factors: Tensor) -> None:
        factors = factors / factors.mean()
        self.factors.copy_(factors.clamp(float(factors.max()) / _MOST))


def project_conflicts(gradients: Tensor, orders: Tensor) -> Tensor:
    """Sum of the tasks' gradients, each without what works against another's.

    Args:
        gradients: float32 [K, P].
        orders: In which a task's gradient meets the others. int64 [K, K], each row a permutation.

    Returns:
        float32 [P].

    Source:
        Yu et al. 2020, arXiv:2001.06782, algorithm 1. All projections are combinations of the given gradients, so their
        products with each other are all that is needed.
    """
    products = (gradients @ gradients.T).double()  # [K, K]
    shares = torch.eye(len(gradients), dtype=torch.float64, device=gradients.device)  # [K, K]
    for task, order in enumerate(orders.tolist()):
        for other in order:
            along = shares[task] @ products[other]
            if other != task and along < 0:
                shares[task, other] -= along / products[other, other]
    return shares.sum(0).to(gradients.dtype) @ gradients
