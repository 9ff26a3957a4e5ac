"""What is seen of sessions under way: by the policy their latest behaviours, by its critic a summary of all shown."""

import torch
from torch import Tensor

Observation = dict[str, Tensor]
SUMMARY_WIDTH = 8  # leading directions of the item features in the critic's summary
SUMMARY_DECAYS = (0.5, 0.8, 0.95, 1.0)


def summary_width(num_tasks: int, feature_width: int) -> int:
    """Width of the observation's ``summary``."""
    return len(SUMMARY_DECAYS) * (2 * min(SUMMARY_WIDTH, feature_width) + num_tasks + 2)


class Trace:
    """What the policy and its critic know of B sessions: history, and a fixed summary of all that was shown."""

    def __init__(self, past: Tensor, features: Tensor, num_tasks: int, history_length: int) -> None:
        self.past = past.clone()
        width = min(SUMMARY_WIDTH, features.shape[1])
        self.features = torch.cat([features[:, :width], torch.zeros(1, width)])  # last row: empty place
        self.length = history_length
        count = len(past)
        self.items = torch.full((count, history_length), -1)
        self.tasks = torch.full((count, history_length), -1)
        self.sums = torch.zeros(count, len(SUMMARY_DECAYS), 2 * width + num_tasks + 2)
        self.steps = torch.zeros(count, dtype=torch.int64)

    def restart(self, rows: Tensor, past: Tensor) -> None:
        """Forget the sessions at these rows."""
        self.past[rows] = past
        self.items[rows] = -1
        self.tasks[rows] = -1
        self.sums[rows] = 0.0
        self.steps[rows] = 0

    def keep(self, rows: Tensor) -> None:
        """Go on with the sessions at these rows alone."""
        self.past, self.items, self.tasks = self.past[rows], self.items[rows], self.tasks[rows]
        self.sums, self.steps = self.sums[rows], self.steps[rows]

    def add(self, slates: Tensor, responses: Tensor) -> None:
        """Note a step: slates [B, L] and responses [B, L, K]."""
        num_tasks = responses.shape[-1]
        fired = (responses > 0).flatten(1)  # [B, L * K], by position, then task
        items = slates[..., None].expand_as(responses).flatten(1)
        tasks = torch.arange(num_tasks).expand_as(responses).flatten(1)
        keep = torch.cat([self.items >= 0, fired], 1)
        order = torch.argsort(keep.to(torch.int8), dim=1, stable=True)[:, -self.length :]
        kept = keep.gather(1, order)
        self.items = torch.where(kept, torch.cat([self.items, items], 1).gather(1, order), -1)
        self.tasks = torch.where(kept, torch.cat([self.tasks, tasks], 1).gather(1, order), -1)
        shown = self.features[slates]  # [B, L, P]
        taken = (shown * responses.amax(-1, keepdim=True)).sum(1)
        counts = responses.sum(1)
        none = (counts.sum(-1, keepdim=True) == 0).float()
        step = torch.cat([shown.mean(1), taken, counts, none, torch.ones_like(none)], -1)
        decays = torch.tensor(SUMMARY_DECAYS)
        scale = torch.where(decays < 1, 1 - decays, torch.full_like(decays, 0.05))
        self.sums = self.sums * decays[:, None] + step[:, None] * scale[:, None]
        self.steps += 1

    def observe(self, task_weights: Tensor) -> Observation:
        """Copies of what is known now."""
        return {
            "past": self.past.clone(),
            "history_items": self.items.clone(),
            "history_tasks": self.tasks.clone(),
            "summary": self.sums.flatten(1),
            "task_weights": task_weights.clone(),
        }
