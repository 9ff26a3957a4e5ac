"""A run's candidate on the slates that the log shows, for the off-policy estimators."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.sessions import SPLITS, LoggedSlates, SessionLog
from encoders.state import States
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.players import load_policy
from rl.evaluation.logged import Target, known_sessions
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import sample_slates, slate_log_prob
from rl.tasks import Tasks, build_tasks

BATCH = 1024  # states asked at once
NUM_DRAWN = 4  # slates that the candidate draws in each logged state


def logged_slates(log: SessionLog) -> LoggedSlates | None:
    """Logged slates of the test sessions all of whose propensities are known; None where there are none."""
    if log.slates is None:
        return None
    slates = _rows(log.slates, np.flatnonzero(log.split[log.slates.session] == SPLITS.index("test")))
    slates = _rows(slates, known_sessions(slates))
    return slates if len(slates.session) else None


def logged_target(
    run: RunDirectory, config: Config, log: SessionLog, slates: LoggedSlates, name: str
) -> Target:
    """What a trained policy would have done on logged slates, at the configured task weights.

    Args:
        run: With finished train.
        config: Its history length and tasks.
        log: The slates' own.
        slates: R slates.
        name: ``clone`` or ``ppo``.
    """
    states = log.states(slates.session, slates.behaviours_before, config.rl.history_length)
    asked = _Asked(load_policy(run, name), states, slates.items, build_tasks(config.rl.tasks))
    return Target(asked.log_probs(), asked.drawn(config.seed), asked.expect)


@dataclass(frozen=True)
class _Asked:
    """A policy asked in R states, a batch at a time: its scores of the whole catalogue are never all held."""

    policy: SlatePolicy
    states: States
    items: NDArray[np.int64]  # [R, L]
    tasks: Tasks

    def log_probs(self) -> NDArray[np.float64]:
        """Of each logged item at its position given those above. float64 [R, L]."""
        parts = [
            slate_log_prob(logits.double(), torch.from_numpy(self.items[rows]))
            for rows, logits in self._logits()
        ]
        return torch.cat(parts).numpy()

    def drawn(self, seed: int) -> NDArray[np.int64]:
        """Slates drawn in each state. int64 [R, NUM_DRAWN, L]."""
        dice, length = torch.Generator().manual_seed(seed), self.items.shape[1]
        parts = [
            torch.stack([sample_slates(logits, length, dice) for _ in range(NUM_DRAWN)], dim=1)
            for _, logits in self._logits()
        ]
        return torch.cat(parts).numpy()

    def expect(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean of item values [N, K] at each position given the logged items above. float64 [r, L, K]."""
        columns = torch.from_numpy(values)  # [N, K]
        parts = [
            _expectation(logits.double(), torch.from_numpy(self.items[part]), columns)
            for part, logits in self._logits(rows)
        ]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def _logits(self, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        rows = np.arange(len(self.items)) if rows is None else rows
        keys, weights = self.policy.item_keys(), torch.from_numpy(self.tasks.weights)
        for part in np.split(rows, range(BATCH, len(rows), BATCH)):
            states = self.states.rows(part)
            yield (
                part,
                self.policy.logits(
                    torch.from_numpy(states.past),
                    torch.from_numpy(states.history_items),
                    torch.from_numpy(states.history_tasks),
                    weights.expand(len(part), -1),
                    keys=keys,
                ),
            )


def _expectation(logits: Tensor, slates: Tensor, values: Tensor) -> Tensor:
    """Mean of values [N, K] over the choice at each position of slates [B, L], given those above. float64 [B, L, K]."""
    probs = torch.softmax(logits, -1)  # [B, N]
    shown = probs.gather(-1, slates.clamp_min(0)) * (slates >= 0)  # [B, L]
    taken = shown.unsqueeze(-1) * values[slates.clamp_min(0)]  # [B, L, K]
    left = (1 - (shown.cumsum(-1) - shown)).clamp_min(1e-12)  # [B, L]
    return ((probs @ values).unsqueeze(-2) - (taken.cumsum(-2) - taken)) / left.unsqueeze(-1)


def _rows(slates: LoggedSlates, rows: NDArray[np.int64]) -> LoggedSlates:
    return replace(slates, **{name: values[rows] for name, values in vars(slates).items()})
