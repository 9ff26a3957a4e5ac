"""A simulation in which slates are also paid for being diverse, and pay for groups shown beyond their limits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rl.levers import DIVERSITY, EXPOSURE, LeversConfig
from rl.simulator.simulation import Simulation, StepResult
from rl.simulator.trace import Observation

_SHARE_MEMORY = 0.9  # of the running exposure a slate later
_UNIT_MEMORY = 0.99  # of the running worth of a slate


def slate_diversity(vectors: Tensor, slates: Tensor) -> Tensor:
    """What each position adds to its slate's diversity: its least distance to an item above, over L - 1.

    Args:
        vectors: Item vectors of length 1. float32 [N, D].
        slates: int64 [B, L].

    Returns:
        In [0, 1 / (L - 1)], 0 at the first position; a slate's sum is 1 when its items are at right angles or
        beyond. float32 [B, L].
    """
    shown = vectors[slates]  # [B, L, D]
    above = torch.ones(slates.shape[1:] * 2, dtype=torch.bool).tril(-1)  # [L, L]
    likeness = (shown @ shown.transpose(-1, -2)).clamp(0, 1).masked_fill(~above, 0.0)
    distance = 1 - likeness.amax(-1)  # [B, L]
    distance[:, 0] = 0.0
    return distance / max(1, slates.shape[1] - 1)


class ExposurePrices:
    """A price a group that rises while its share of shown items is above the limit, and falls below it."""

    def __init__(self, groups: Tensor, limits: Tensor, step: float) -> None:
        self.groups = groups  # int64 [N], -1 for items of a group without limit
        self.limits = limits  # float32 [G]
        self.step = step
        self.prices = torch.zeros(len(limits))
        self.shares = limits.clone()

    def charge(self, slates: Tensor) -> Tensor:
        """Rewards, at most 0, of slates [B, L]; then moves shares and prices on. float32 [B, L]."""
        group = self.groups[slates]  # [B, L]
        costs = torch.cat([self.prices, torch.zeros(1)])[group]  # -1 picks the last: free
        counts = torch.bincount(group[group >= 0], minlength=len(self.limits)).float()
        self.shares = _SHARE_MEMORY * self.shares + (1 - _SHARE_MEMORY) * counts / slates.numel()
        self.prices = (self.prices + self.step * (self.shares - self.limits)).clamp_min(0)
        return -costs


class LeveredSimulation:
    """As the simulation, with a task more for each lever; task weights are followed by the levers' weights.

    Levers pay in units of the running worth of a slate, its mean weighted reward, whatever the tasks pay.
    """

    def __init__(
        self, simulation: Simulation, levers: LeversConfig, vectors: Tensor, groups: Sequence[str | None]
    ) -> None:
        """Wraps.

        Args:
            simulation: What answers.
            levers: At least one of them in training.
            vectors: Item vectors, any length. float32 [N, D].
            groups: Group of each item.

        Raises:
            ValueError: A limit is for a group that no item has.
        """
        self.simulation = simulation
        self.num_items, self.slate_length = simulation.num_items, simulation.slate_length
        self.names = tuple(levers.tasks)
        self.weights = torch.tensor(list(levers.tasks.values()))  # [J]
        self.vectors = F.normalize(vectors, dim=-1)
        self.prices = exposure_prices(levers, groups) if EXPOSURE in self.names else None
        self.returns = torch.zeros(simulation.num_sessions, len(self.names))
        self.unit: float | None = None

    def reset(self) -> Observation:
        """Begin all sessions anew."""
        self.simulation.reset()
        self.returns.zero_()
        return self.observe()

    def observe(self) -> Observation:
        """As the simulation's, task weights [B, K + J]."""
        observation = self.simulation.observe()
        weights = observation["task_weights"]
        return observation | {"task_weights": torch.cat([weights, self.weights.expand(len(weights), -1)], -1)}

    @torch.no_grad()
    def step(self, slates: Tensor) -> StepResult:
        """As the simulation's, rewards [B, L, K + J]."""
        task_weights = self.simulation.task_weights.clone()
        result = self.simulation.step(slates)
        worth = float((result.rewards.sum(1) * task_weights).sum(-1).abs().mean())
        self.unit = worth if self.unit is None else _UNIT_MEMORY * self.unit + (1 - _UNIT_MEMORY) * worth
        rewards = self.unit * self._lever_rewards(slates)  # [B, L, J]
        self.returns += rewards.sum(1)
        ended = result.ended
        finished = dict(result.finished)
        finished["returns"] = torch.cat([finished["returns"], self.returns[ended]], -1)
        weights = self.weights.expand(int(ended.sum()), -1)
        finished["task_weights"] = torch.cat([finished["task_weights"], weights], -1)
        self.returns[ended] = 0.0
        return StepResult(torch.cat([result.rewards, rewards], -1), ended, result.leaving, finished)

    def _lever_rewards(self, slates: Tensor) -> Tensor:
        rewards = []
        for name in self.names:
            if name == DIVERSITY:
                rewards.append(slate_diversity(self.vectors, slates))
            else:
                assert self.prices is not None
                rewards.append(self.prices.charge(slates))
        return torch.stack(rewards, -1)


def exposure_prices(levers: LeversConfig, groups: Sequence[str | None]) -> ExposurePrices:
    """Prices of the limited groups.

    Raises:
        ValueError: A limit is for a group that no item has.
    """
    limits = levers.exposure_limits
    return ExposurePrices(
        limited_groups(levers, groups), torch.tensor(list(limits.values())), levers.exposure_step
    )


def limited_groups(levers: LeversConfig, groups: Sequence[str | None]) -> Tensor:
    """Each item's place among the limited groups, -1 for none. int64 [N].

    Raises:
        ValueError: A limit is for a group that no item has.
    """
    order = {group: index for index, group in enumerate(levers.exposure_limits)}
    missing = set(order) - set(groups)
    if missing:
        known = sorted({group for group in groups if group is not None})
        raise ValueError(
            f"rl.levers.exposure_limits: expected groups of the item table ({', '.join(known[:8])}), "
            f"got {sorted(missing)[0]!r}. Correct the name."
        )
    return torch.tensor([order.get(group, -1) if group is not None else -1 for group in groups])
