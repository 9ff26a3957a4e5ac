"""Tastes: what an item's likeness to what was taken adds to its scores.

A user's tastes are told by few behaviours. With few weights, one a score and a source, they are found in a short log; a
bilinear form of items and states that is learned from scratch finds next to nothing of them.
"""

import torch
from torch import Tensor, nn

from rl.simulator.innovations import reached
from rl.simulator.reach import UNBOUNDED, within_reach


class Tastes(nn.Module):
    """Directions of taste, and what each of H scores makes of likeness in them.

    Sources are the texts of the past, and what surprised in the session: what was taken beyond what anybody takes of
    such slates. Taking as much as anybody does from slates that hold nothing else is no surprise. A user who takes more
    of everything surprises in whatever is shown; so surprises beyond the log's range go on by their logarithm, as
    learned sums do.
    """

    most: Tensor  # [K] length of a task's mean surprise beyond which only its logarithm counts; see ``bound_sums``

    def __init__(self, text_width: int, taste_width: int, parents: tuple[int, ...], num_scores: int) -> None:
        """Directions start at the first of the texts' own."""
        super().__init__()
        self.parents = parents
        self.directions = nn.Parameter(torch.eye(text_width, taste_width))
        self.past = nn.Parameter(torch.zeros(num_scores))
        self.surprise = nn.Parameter(torch.zeros(num_scores, len(parents)))
        self.register_buffer("most", torch.full((len(parents),), UNBOUNDED))
        self.few = nn.Parameter(torch.ones(len(parents)))  # how much few surprises are shrunk, as a softplus

    @property
    def state_width(self) -> int:
        """Width of the sum of surprises, [K, Q + 1]."""
        return len(self.parents) * (self.directions.shape[1] + 1)

    def step(self, tastes: Tensor, rates: Tensor, responses: Tensor, slates: bool) -> Tensor:
        """What a slate adds to the sum: surprises by task, the taste and how much was to be expected.

        Args:
            tastes: Of the items shown. float32 [..., L, Q].
            rates: How often they are taken, among those that had their chance. float32 [..., L, K].
            responses: To them. float32 [..., L, K].
            slates: The log holds slates; in one without, only what was acted on had its chance.

        Returns:
            float32 [..., K * (Q + 1)].
        """
        shown = torch.ones_like(responses[..., 0]) if slates else responses.amax(-1)
        expected = rates * reached(shown, responses, self.parents)
        beyond = torch.einsum("...lk,...lq->...kq", responses - expected, tastes)
        return torch.cat([beyond, expected.sum(-2)[..., None]], -1).flatten(-2)

    def mean_surprise(self, surprises: Tensor) -> Tensor:
        """Surprises over what was to be expected, shrunk while it is little. [..., K * (Q + 1)] -> [..., K, Q]."""
        surprises = surprises.view(*surprises.shape[:-1], len(self.parents), self.directions.shape[1] + 1)
        return surprises[..., :-1] / (surprises[..., -1:] + nn.functional.softplus(self.few)[:, None])

    def asked(self, surprises: Tensor, past: Tensor) -> Tensor:
        """The taste that each score asks for.

        Args:
            surprises: Their sum. float32 [..., K * (Q + 1)].
            past: Texts of the past. float32 [..., text_width].

        Returns:
            float32 [..., H, Q].
        """
        mean = self.mean_surprise(surprises)
        mean = within_reach(mean, mean.norm(dim=-1, keepdim=True) / self.most[:, None])
        asked: Tensor = torch.einsum("hk,...kq->...hq", self.surprise, mean)
        return asked + self.past[:, None] * (past @ self.directions)[..., None, :]
