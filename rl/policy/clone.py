"""The policy's start: learn from the log which items a session goes on to, for every mix of tasks."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.sessions import SessionLog
from rl.policy.config import CloneConfig
from rl.policy.network import SlatePolicy
from rl.tasks import Tasks


@dataclass(frozen=True)
class Targets:
    """Acted-on items that a state may be asked for: one a session, item and task."""

    session: NDArray[np.int64]  # [G]
    first: NDArray[np.int64]  # [G] behaviours of the session before the item was first touched
    item: NDArray[np.int64]  # [G]
    task: NDArray[np.int64]  # [G]

    def __len__(self) -> int:
        return len(self.item)


def collect_targets(log: SessionLog, sessions: NDArray[np.int64], tasks: Tasks) -> Targets:
    """Targets of the sessions. Items of cost tasks alone are none: nobody wants them recommended."""
    wanted = np.zeros(len(log), dtype=bool)
    wanted[sessions] = True
    session = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    place = np.arange(len(session)) - log.offsets[session]
    num_items = int(log.items.max(initial=0)) + 1
    pair = session * num_items + log.items
    _, start, inverse = np.unique(pair, return_index=True, return_inverse=True)
    first = place[start][inverse] if len(pair) else place
    keep = wanted[session] & (tasks.signs[log.tasks] > 0)
    key = pair[keep] * len(tasks) + log.tasks[keep]
    _, once = np.unique(key, return_index=True)
    return Targets(session[keep][once], first[keep][once], log.items[keep][once], log.tasks[keep][once])


class _Sampler:
    """Draws targets by task, and a state before each."""

    def __init__(
        self, targets: Targets, tasks: Tasks, concentration: float, dice: np.random.Generator
    ) -> None:
        self.targets, self.dice = targets, dice
        self.rows = [np.flatnonzero(targets.task == k) for k in range(len(tasks))]
        self.alpha = np.array(
            [max(w, 0.02) if len(r) else 0.0 for w, r in zip(tasks.weights, self.rows, strict=True)]
        )
        self.alpha *= concentration * len(tasks)

    def draw(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Target rows [B], behaviours known [B], task weights [B, K]."""
        weights = np.zeros((count, len(self.alpha)))
        some = self.alpha > 0
        weights[:, some] = self.dice.dirichlet(self.alpha[some], count)
        task = (self.dice.random((count, 1)) < weights.cumsum(1)).argmax(1)
        rows = np.empty(count, dtype=np.int64)
        for k, available in enumerate(self.rows):
            mine = task == k
            if mine.any():
                rows[mine] = self.dice.choice(available, int(mine.sum()))
        first = self.targets.first[rows]
        earlier = (self.dice.random(count) * (first + 1)).astype(np.int64)
        before = np.where(
            self.dice.random(count) < 0.5, first, earlier
        )  # half right before, half further back
        return rows, before, weights.astype(np.float32)


def train_clone(
    policy: SlatePolicy, log: SessionLog, tasks: Tasks, config: CloneConfig, seed: int
) -> list[dict[str, float]]:
    """Train the policy in place on the log's train split; keep the epoch that is best on validation.

    Every later acted-on item is a target; the task is drawn from random task weights that the policy sees, so that
    its heads answer every mix. Loss is the cross-entropy over the whole catalogue.

    Returns:
        A record an epoch: ``loss/train`` and ``loss/validation``, nats a target.

    Raises:
        ValueError: The train split has no target.
    """
    torch.manual_seed(seed)
    dice = np.random.default_rng(seed)
    targets = collect_targets(log, log.sessions("train"), tasks)
    if not len(targets):
        raise ValueError(
            "train: expected behaviours of a wanted task in the train split, got none. Check rl.tasks."
        )
    held = collect_targets(log, log.sessions("validation"), tasks)
    sampler = _Sampler(targets, tasks, config.weight_concentration, dice)
    steps = max(1, min(len(targets), config.max_targets) // config.batch_size)
    optimiser = torch.optim.AdamW(
        policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=max(config.num_epochs * steps, 11), pct_start=0.1
    )  # at 10 steps torch divides by a rise of none
    history: list[dict[str, float]] = []
    best, best_loss = copy.deepcopy(policy.state_dict()), float("inf")
    for epoch in range(config.num_epochs):
        policy.train()
        total = 0.0
        for _ in range(steps):
            rows, before, weights = sampler.draw(config.batch_size)
            loss = _loss(policy, log, targets, rows, before, torch.from_numpy(weights))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(policy.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) / steps
        validation = validation_loss(policy, log, held, tasks) if len(held) else total
        history.append({"epoch": float(epoch), "loss/train": total, "loss/validation": validation})
        if validation < best_loss:
            best, best_loss = copy.deepcopy(policy.state_dict()), validation
    policy.load_state_dict(best)
    policy.eval()
    return history


def _loss(
    policy: SlatePolicy,
    log: SessionLog,
    targets: Targets,
    rows: NDArray[np.int64],
    before: NDArray[np.int64],
    weights: Tensor,
) -> Tensor:
    states = log.states(targets.session[rows], before, policy.shape.history_length)
    logits = policy.logits(
        torch.from_numpy(states.past),
        torch.from_numpy(states.history_items),
        torch.from_numpy(states.history_tasks),
        weights,
    )
    return nn.functional.cross_entropy(logits, torch.from_numpy(targets.item[rows]))


@torch.no_grad()
def validation_loss(policy: SlatePolicy, log: SessionLog, targets: Targets, tasks: Tasks) -> float:
    """Mean cross-entropy of the next item at the configured task weights, tasks weighted by them."""
    policy.eval()
    total, share = 0.0, 0.0
    for task, weight in enumerate(tasks.weights):
        rows = np.flatnonzero(targets.task == task)[:4096]
        if not len(rows) or weight <= 0:
            continue
        weights = torch.from_numpy(tasks.weights).expand(len(rows), -1)
        total += float(weight) * float(_loss(policy, log, targets, rows, targets.first[rows], weights))
        share += float(weight)
    return total / max(share, 1e-9)
