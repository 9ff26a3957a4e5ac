"""Costs kept at or below a limit: a price for each, that rises while too much is spent and falls while it is not."""

import torch
from torch import Tensor, nn

from rl.policy.moments import average

_FIRST_PRICE = 0.1  # in task weights, which sum to 1
_STEP = 0.1  # of the logarithm of a price, a round, at twice the limit or at no cost
_PUSH = 1.5  # of the same logarithm while that lasts: it takes out the swings of the step alone
_LEAST, _MOST = 1e-4, 1e4


class LimitPrices(nn.Module):
    """Lagrange multipliers of the limits, moved once a round by how far the round's sessions were from them.

    They move by factors, so that it does not matter in which unit a cost is counted.

    Source:
        Stooke, Achiam and Abbeel 2020, "Responsive safety in reinforcement learning by PID Lagrangian methods",
        arXiv:2007.03964: integral and proportional terms, here of the logarithm.
    """

    limits: Tensor
    levels: Tensor
    prices: Tensor

    def __init__(self, limits: Tensor) -> None:
        """``limits`` are of the mean cost a session, infinite where there is none. float32 [K]."""
        super().__init__()
        self.register_buffer("limits", limits)
        self.register_buffer("levels", torch.full_like(limits, _FIRST_PRICE))
        self.register_buffer("prices", torch.where(limits.isfinite(), _FIRST_PRICE, 0.0))

    @torch.no_grad()
    def follow(self, rewards: Tensor, ended: Tensor) -> None:
        """Move the prices after a round; one in which no session ended tells nothing.

        Args:
            rewards: Costs are negative. float32 [B, S, L, K].
            ended: Whether the session ended with the step. bool [B, S].
        """
        spent, count = average(-rewards.sum((0, 1, 2))), average(ended.float().sum())
        if count == 0:
            return
        excess = (spent / count / self.limits - 1).clamp(-1, 1)
        self.levels.mul_((_STEP * excess).exp()).clamp_(_LEAST, _MOST)
        priced = self.levels * (_PUSH * excess).exp()
        self.prices.copy_(torch.where(self.limits.isfinite(), priced, 0.0))
