"""Linear running sums of a session's steps at several decays."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RunningSums:
    """R sums, each with its decay and with what a step weighs in it."""

    decays: tuple[float, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.decays)

    def sum_up(self, steps: Tensor) -> Tensor:
        """Sums after every step of a session. float32 [S, T, C] -> [S, T, R * C]."""
        time = torch.arange(steps.shape[1], device=steps.device)
        age = time[:, None] - time
        decays, weights = (part[..., None] for part in self._columns(steps))
        kernel = torch.where(age >= 0, decays ** age.clamp_min(0), torch.zeros(()))  # [R, T, T]
        return torch.einsum("rts,bsc->btrc", kernel * weights, steps).flatten(2)

    def add(self, sums: Tensor, step: Tensor) -> Tensor:
        """Sums [B, R * C] after one more step [B, C]."""
        decays, weights = self._columns(step)
        by_decay = sums.view(len(sums), len(self), step.shape[-1])
        return (by_decay * decays + step[:, None] * weights).flatten(1)

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Decays and weights, float32 [R, 1] each."""
        decays, weights = (torch.tensor(row, device=like.device) for row in (self.decays, self.weights))
        return decays[:, None], weights[:, None]


# Weights that make uncorrelated steps add up to a variance of one, so that no sum is favoured by its scale: a small one
# has to be made up for by large weights that read it, which weight decay and few steps of the optimiser do not allow.
# What forgets nothing adds up a dozen steps or so.
LEARNED = RunningSums((0.5, 0.8, 0.95, 1.0), (0.866, 0.6, 0.312, 0.3))
RECENT = RunningSums((0.8, 0.95), (0.2, 0.05))  # means of what was taken of late
