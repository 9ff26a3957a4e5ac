"""Innovations: what a step brought beyond what was expected of it, and how open it was.

A running sum credits a response to an item with the same effect whoever gave it. What it does to a user may hang on
where the user stands: an exercise teaches those for whom it is neither too easy nor too hard. So a first guess of each
response, made without innovations, is held against what came, and the sums of both tell later steps about it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def reached(shown: Tensor, responses: Tensor, parents: Sequence[int]) -> Tensor:
    """Whether each task had its chance: the item was shown, or the response before it in the funnel came.

    Args:
        shown: Whether there is an item. float32 [..., L].
        responses: float32 [..., L, K].
        parents: Task before each in the funnel, -1 for the first ones. K of them.

    Returns:
        float32 [..., L, K].
    """
    return torch.stack([shown if parent < 0 else responses[..., parent] for parent in parents], -1)


def innovations(chances: Tensor, had_chance: Tensor, responses: Tensor) -> Tensor:
    """Of each task, what came beyond the first guess, and how open that was.

    Args:
        chances: The first guess of each response, given that it had its chance. float32 [..., L, K].
        had_chance: As ``reached``. float32 [..., L, K].
        responses: float32 [..., L, K].

    Returns:
        Sums over the slate. Openness is a Bernoulli's variance, 1 where it is even. float32 [..., 2 K].

    Source:
        The first half is Kalman's innovation (Kalman 1960, doi:10.1115/1.3662552), without its gain, which is learned.
    """
    beyond = had_chance * (responses - chances)
    openness = had_chance * 4 * chances * (1 - chances)
    return torch.cat([beyond.sum(-2), openness.sum(-2)], -1)
