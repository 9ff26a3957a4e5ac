"""The policy's start: learn from the log which items a session goes on to, for every mix of tasks."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.sessions import SessionLog
from rl.policy.config import CloneConfig
from rl.policy.network import SlatePolicy
from rl.tasks import Tasks

MAX_HELD = 4096  # validation targets a task that are looked at
_SHIFTS = (-30.0, *(0.5 * step for step in range(-12, 5)))  # nats that unmet items are moved by
_AT_ONCE = 512  # of them; their scores of the whole catalogue are held in memory


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
        self, targets: Targets, tasks: Tasks, config: CloneConfig, dice: np.random.Generator
    ) -> None:
        self.targets, self.near_share, self.dice = targets, config.near_share, dice
        self.rows = [np.flatnonzero(targets.task == k) for k in range(len(tasks))]
        self.alpha = np.array(
            [max(w, 0.02) if len(r) else 0.0 for w, r in zip(tasks.weights, self.rows, strict=True)]
        )
        self.alpha *= config.weight_concentration * len(tasks)

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
        before = np.where(self.dice.random(count) < self.near_share, first, earlier)
        return rows, before, weights.astype(np.float32)


@dataclass(frozen=True)
class Questions:
    """What to ask the policy, and which answers there were."""

    log: SessionLog
    targets: Targets
    first_met: Tensor  # int64 [N] see ``first_meetings``

    def logits(
        self, policy: SlatePolicy, rows: NDArray[np.int64], before: NDArray[np.int64], weights: Tensor
    ) -> Tensor:
        """Scores of all items in the states before the targets at these rows. float32 [B, N].

        Those of the session so far score -inf: a target is none of them, and telling them apart from all others
        would cost the policy more of its width than any taste.
        """
        states = self.log.states(self.targets.session[rows], before, policy.shape.history_length)
        history = torch.from_numpy(states.history_items)
        logits = policy.logits(
            torch.from_numpy(states.past), history, torch.from_numpy(states.history_tasks), weights
        )
        touched = torch.zeros(len(logits), policy.shape.num_items + 1, dtype=torch.bool)
        touched[torch.arange(len(logits))[:, None], history] = True  # -1, an empty place, marks the last
        return logits.masked_fill(touched[:, :-1], -torch.inf)

    def loss(
        self, policy: SlatePolicy, rows: NDArray[np.int64], before: NDArray[np.int64], weights: Tensor
    ) -> Tensor:
        """Cross-entropy over items that the log had met by then and the session had not touched, nats."""
        unmet = self.first_met > torch.from_numpy(self.targets.session[rows])[:, None]  # [B, N]
        logits = self.logits(policy, rows, before, weights).masked_fill(unmet, -torch.inf)
        return nn.functional.cross_entropy(logits, torch.from_numpy(self.targets.item[rows]))


def first_meetings(log: SessionLog, num_items: int) -> NDArray[np.int64]:
    """Session of the train split in which each item was first acted on or shown; S where in none. int64 [N]."""
    session = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    items = log.items
    if log.slates is not None:
        place, _ = np.nonzero(log.slates.items >= 0)
        session = np.concatenate([session, log.slates.session[place]])
        items = np.concatenate([items, log.slates.items[log.slates.items >= 0]])
    known = np.isin(session, log.sessions("train"))
    first = np.full(num_items, len(log), dtype=np.int64)
    np.minimum.at(first, items[known], session[known])
    return first


def train_clone(
    policy: SlatePolicy, log: SessionLog, tasks: Tasks, config: CloneConfig, seed: int
) -> list[dict[str, float]]:
    """Train the policy in place on the log's train split; keep the pass that is best on validation.

    Each of ``config.forgetting`` is tried. Where the best comes in the first half, the log is small: training starts
    anew, with half the passes and steps.

    Every later acted-on item is a target; the task is drawn from random task weights that the policy sees, so that
    its heads answer every mix. Loss is the cross-entropy over the catalogue, without the items that the session has
    touched, and those that came into the log only later: nobody turned them down. What no train session met is known
    by its text alone.

    Returns:
        A record a pass: ``loss/train`` and ``loss/validation``, nats a target.

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
    met = torch.from_numpy(first_meetings(log, policy.shape.num_items))
    lessons = Questions(log, targets, met)
    held = Questions(log, collect_targets(log, log.sessions("validation"), tasks), met)
    sampler = _Sampler(targets, tasks, config, dice)
    start = copy.deepcopy(policy.state_dict())
    history: list[dict[str, float]] = []
    best, best_loss = start, float("inf")
    for forgetting in config.forgetting:
        num_epochs = config.num_epochs
        while num_epochs:
            policy.load_state_dict(start)
            losses = []
            for record in _passes(policy, lessons, held, sampler, tasks, config, num_epochs, forgetting):
                losses.append(record["loss/validation"])
                history.append(record)
                if losses[-1] < best_loss:
                    best, best_loss = copy.deepcopy(policy.state_dict()), losses[-1]
            if int(np.argmin(losses)) + 1 > num_epochs // 2:
                break
            num_epochs //= 2  # what the schedule had not settled yet may be better settled
    policy.load_state_dict(best)
    policy.eval()
    place_newcomers(policy, held, tasks, config.newcomer_price)
    return history


def _passes(
    policy: SlatePolicy,
    lessons: Questions,
    held: Questions,
    sampler: _Sampler,
    tasks: Tasks,
    config: CloneConfig,
    num_epochs: int,
    forgetting: float,
) -> Iterator[dict[str, float]]:
    """Train for so many passes on one schedule, fewer of them in smaller steps. The record of each pass."""
    steps = max(1, min(len(lessons.targets), config.max_targets) // config.batch_size)
    rate = config.learning_rate * num_epochs / config.num_epochs
    decay = forgetting / (rate * steps)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=max(num_epochs * steps, 11), pct_start=0.1
    )  # at 10 steps torch divides by a rise of none
    for epoch in range(num_epochs):
        policy.train()
        total = 0.0
        for _ in range(steps):
            rows, before, weights = sampler.draw(config.batch_size)
            loss = lessons.loss(policy, rows, before, torch.from_numpy(weights))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(policy.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) / steps
        policy.eval()
        validation = _validation_loss(policy, held, tasks)
        validation = total if validation is None else validation
        yield {"epoch": float(epoch), "loss/train": total, "loss/validation": validation}


def _held_rows(questions: Questions, tasks: Tasks, met: bool) -> list[tuple[float, NDArray[np.int64]]]:
    """Of each task that counts its weight and its first targets; ``met`` leaves out items unmet in training."""
    targets = questions.targets
    known = questions.first_met.numpy()[targets.item] < len(questions.log)
    kept = known if met else np.ones(len(targets), dtype=bool)
    rows = [np.flatnonzero((targets.task == task) & kept)[:MAX_HELD] for task in range(len(tasks))]
    return [(float(w), r) for w, r in zip(tasks.weights, rows, strict=True) if w > 0 and len(r)]


@torch.no_grad()
def _validation_loss(policy: SlatePolicy, held: Questions, tasks: Tasks) -> float | None:
    """Mean cross-entropy of the next met item at the configured task weights, by task weight; None without any."""
    total, share = 0.0, 0.0
    for weight, rows in _held_rows(held, tasks, met=True):
        for part in _parts(rows):
            weights = torch.from_numpy(tasks.weights).expand(len(part), -1)
            loss = held.loss(policy, part, held.targets.first[part], weights)
            total += weight * float(loss) * len(part) / len(rows)
        share += weight
    return total / share if share else None


@torch.no_grad()
def place_newcomers(policy: SlatePolicy, held: Questions, tasks: Tasks, price: float) -> None:
    """Raise all items that training never met as far as validation's NDCG@10 allows: it may lose the price, a share.

    Text ranks them among themselves, but whether the unmet are news or shelf-warmers differs from log to log.
    """
    unmet = held.first_met == len(held.log)  # [N]
    parts = _held_rows(held, tasks, met=False)
    if not unmet.any() or not parts:
        return
    gains = torch.zeros(len(_SHIFTS))
    for weight, rows in parts:
        for part in _parts(rows):
            weights = torch.from_numpy(tasks.weights).expand(len(part), -1)
            logits = held.logits(policy, part, held.targets.first[part], weights)
            target = torch.from_numpy(held.targets.item[part])[:, None]
            for place, shift in enumerate(_SHIFTS):
                moved = logits + shift * unmet
                above = (moved > moved.gather(1, target)).sum(1)
                gains[place] += weight / len(rows) * ((above < 10) / torch.log2(above + 2.0)).sum()
    affordable = (gains >= (1 - price) * gains.max()).nonzero()
    policy.id_bias[unmet] += _SHIFTS[int(affordable[-1])]


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
