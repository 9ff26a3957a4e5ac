"""Tastes: what an item's likeness to what was taken adds to its scores.

A user's tastes are told by few behaviours. With few weights, one a score and a source, they are found in a short log; a
bilinear form of items and states that is learned from scratch finds next to nothing of them.
"""

import torch
from torch import Tensor, nn

from rl.simulator.innovations import reached
from rl.simulator.reach import UNBOUNDED, within_reach
from rl.simulator.running_sums import RECENT


class Tastes(nn.Module):
    """Directions of taste, and what each of H scores makes of likeness in them.

    Three sources. The texts of the past. What surprised in the session: a ridge regression, on what was shown, of what
    was taken beyond what anybody takes of it; so to show more of a liked kind does not make it seem more liked. And
    what was taken of late, however often it was shown: users tire of it, and it grows on them. What surprises may be
    that a user takes more of everything; so all but the past go on by their logarithm beyond the log's range, as
    learned sums do.
    """

    most: Tensor  # [1 + R K] lengths of ``known`` beyond which only the logarithm counts; see ``bound_sums``

    def __init__(self, text_width: int, taste_width: int, parents: tuple[int, ...], num_scores: int) -> None:
        """Directions start at the first of the texts' own."""
        super().__init__()
        self.parents, self.width = parents, taste_width
        sources = 1 + len(RECENT) * len(parents)
        self.directions = nn.Parameter(torch.eye(text_width, taste_width))
        self.past = nn.Parameter(torch.zeros(num_scores))
        self.likes = nn.Parameter(torch.zeros(num_scores, sources))
        even = torch.full((2, len(parents)), 0.54)  # 1 as a softplus
        # How much each task tells: what was taken, and what was to be expected of it.
        self.tells = nn.Parameter(even)
        self.few = nn.Parameter(torch.ones(()))  # the ridge, as a softplus
        self.register_buffer("most", torch.full((sources,), UNBOUNDED))

    @property
    def scalars(self) -> list[nn.Parameter]:
        """The few weights beside the directions."""
        return [self.past, self.likes, self.tells, self.few]

    @property
    def _widths(self) -> list[int]:
        """Of a state's parts: surprises [Q], what was expected [Q, Q], what was taken of late [R, K, Q]."""
        width = self.width
        return [width, width * width, len(RECENT) * len(self.parents) * width]

    @property
    def state_width(self) -> int:
        """Width of a state."""
        return sum(self._widths)

    def step(self, tastes: Tensor, rates: Tensor, responses: Tensor, slates: bool) -> Tensor:
        """What a slate tells: surprises, what was to be expected, and the mean taste of what each task took.

        Args:
            tastes: Of the items shown. float32 [..., L, Q].
            rates: How often they are taken, among those that had their chance. float32 [..., L, K].
            responses: To them. float32 [..., L, K].
            slates: The log holds slates; in one without, only what was acted on had its chance.

        Returns:
            float32 [..., Q + Q Q + K Q].
        """
        shown = torch.ones_like(responses[..., 0]) if slates else responses.amax(-1)
        expected = rates * reached(shown, responses, self.parents)
        taken, known = nn.functional.softplus(self.tells)
        beyond = ((responses - expected) @ taken)[..., None, :] @ tastes  # [..., 1, Q]
        moment = (tastes * (expected @ known)[..., None]).mT @ tastes  # [..., Q, Q]
        mean = responses.mT @ tastes / responses.sum(-2).clamp_min(1)[..., None]  # [..., K, Q]
        return torch.cat([beyond.flatten(-2), moment.flatten(-2), mean.flatten(-2)], -1)

    def sum_up(self, steps: Tensor) -> Tensor:
        """States after every step of a session, of what ``step`` told. float32 [S, T, ...] -> [S, T, state_width]."""
        told, taken = self._parted(steps)
        return torch.cat([told.cumsum(1), RECENT.sum_up(taken)], -1)

    def add(self, state: Tensor, step: Tensor) -> Tensor:
        """The state after one more step. float32 [B, state_width]."""
        (told, taken), (more, now) = self._parted(state), self._parted(step)
        return torch.cat([told + more, RECENT.add(taken, now)], 1)

    def _parted(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """What is told, summed without end, and what was taken, of a state or a step."""
        end = sum(self._widths[:2])
        return whole[..., :end], whole[..., end:]

    def known(self, state: Tensor) -> Tensor:
        """The taste that surprised, shrunk while little was shown, and what was taken of late. [..., 1 + R K, Q]."""
        surprises, moment, taken = torch.split(state, self._widths, -1)
        ridge = nn.functional.softplus(self.few) * torch.eye(self.width)
        taste = torch.linalg.solve(moment.view(*state.shape[:-1], *ridge.shape) + ridge, surprises)
        sources = (len(RECENT) * len(self.parents), self.width)
        return torch.cat([taste[..., None, :], taken.view(*state.shape[:-1], *sources)], -2)

    def asked(self, state: Tensor, past: Tensor) -> Tensor:
        """The taste that each score asks for.

        Args:
            state: float32 [..., state_width].
            past: Texts of the past. float32 [..., text_width].

        Returns:
            float32 [..., H, Q].
        """
        known = self.known(state)
        known = within_reach(known, known.norm(dim=-1, keepdim=True) / self.most[:, None])
        asked: Tensor = self.likes @ known
        return asked + self.past[:, None] * (past @ self.directions)[..., None, :]
