"""Linear running sums of a session's steps at several decays."""

import torch
from torch import Tensor

DECAYS = (0.5, 0.8, 0.95, 1.0)


def _weights(like: Tensor) -> tuple[Tensor, Tensor]:
    """Decays, and what a step weighs in each. Two float32 [R].

    A sum that forgets nothing has a step's full weight: a small one would have to be made up for by large weights
    that read it, and weight decay would shrink what builds up over a session to next to nothing.
    """
    decays = torch.tensor(DECAYS, device=like.device)
    return decays, torch.where(decays < 1, 1 - decays, torch.ones_like(decays))


def sum_up(steps: Tensor) -> Tensor:
    """Sums after every step of a session. float32 [S, T, C] -> [S, T, R * C]."""
    decays, scale = _weights(steps)
    time = torch.arange(steps.shape[1], device=steps.device)
    age = time[:, None] - time
    kernel = torch.where(age >= 0, decays[:, None, None] ** age.clamp_min(0), torch.zeros(()))  # [R, T, T]
    return torch.einsum("rts,bsc->btrc", kernel * scale[:, None, None], steps).flatten(2)


def add_step(sums: Tensor, step: Tensor) -> Tensor:
    """Sums [B, R * C] after one more step [B, C]."""
    decays, scale = _weights(step)
    by_decay = sums.view(len(sums), len(DECAYS), -1)
    return (by_decay * decays[:, None] + step[:, None] * scale[:, None]).flatten(1)
