"""Candidates of a large catalogue: a random part that stands for the whole.

An item is drawn with a chance that follows how likely the policy is to show it, and its score is raised by minus
the log of that chance. Sums over the candidates are then unbiased for sums over the catalogue (Horvitz-Thompson):
an item that is sure to be drawn counts once, one of a hundred alike counts for all of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_EVEN_SHARE = 0.1  # of the chances, spread over all items, so that none stays unseen


class Candidates(NamedTuple):
    """C items of the catalogue."""

    items: Tensor  # int64 [C], ascending
    offsets: Tensor  # float32 [C], at least 0: minus the log of the item's chance to be drawn


def inclusion_chances(wanted: Tensor, count: int) -> Tensor:
    """Each item's chance to be among the candidates, as near to proportional as chances of at most 1 allow.

    Args:
        wanted: How often the policy would show each item, at least 0, not all 0. float32 [N].
        count: C, below N.

    Returns:
        In (0, 1], summing to C. float64 [N].
    """
    share = wanted.double()
    share = (1 - _EVEN_SHARE) * share / share.sum() + _EVEN_SHARE / len(share)
    chances = share * count
    while (chances > 1).any():  # the sure ones leave the rest more room each time; few rounds suffice
        sure = chances >= 1
        left = count - int(sure.sum())
        chances = torch.where(sure, torch.ones_like(share), share * (left / share[~sure].sum()))
    return chances


def draw_candidates(wanted: Tensor, count: int, generator: torch.Generator | None = None) -> Candidates:
    """Exactly ``count`` items, each with its inclusion chance: systematic draws over a random order.

    Args:
        wanted: How often the policy would show each item. float32 [N].
        count: C, below N.
        generator: Source of randomness; None takes torch's own.

    Source:
        Madow 1949, "On the theory of systematic sampling, II".
    """
    chances = inclusion_chances(wanted, count)
    order = torch.randperm(len(chances), generator=generator, device=chances.device)
    upper = chances[order].cumsum(0)
    upper = upper * (count / upper[-1])  # rounding must not cost the last one
    start = torch.rand((), generator=generator, dtype=upper.dtype, device=upper.device)
    points = torch.arange(count, dtype=upper.dtype, device=upper.device) + start
    hit = torch.searchsorted(upper, points, right=True).clamp_max(len(chances) - 1)
    items = order[hit].sort().values
    items = items[items.diff(prepend=items.new_full((1,), -1)) > 0]
    return Candidates(items, -chances[items].log().float())
