"""A simulation whose best policy is known: of 8 items, the past names the one that pays."""

import torch

NUM_ITEMS = 8
NUM_TASKS = 2
SLATE_LENGTH = 2
HISTORY_LENGTH = 3
SUMMARY_WIDTH = 2
SESSION_STEPS = 4


class StepResult:
    def __init__(self, rewards, ended, finished):
        self.rewards, self.ended, self.leaving, self.finished = rewards, ended, ended.float(), finished


class ShopOfEight:
    """The good item pays 1 at the first position and 0.5 at the second; 4 slates a session."""

    num_items, num_tasks, slate_length = NUM_ITEMS, NUM_TASKS, SLATE_LENGTH

    def __init__(self, num_sessions, seed):
        self.num_sessions, self.seed = num_sessions, seed
        self.random = torch.Generator().manual_seed(seed)
        self.good = torch.zeros(num_sessions, dtype=torch.int64)
        self.steps = torch.zeros(num_sessions, dtype=torch.int64)
        self.returns = torch.zeros(num_sessions, NUM_TASKS)
        self.task_weights = torch.tensor([0.5, 0.5]).expand(num_sessions, -1)

    def reset(self):
        self._begin(torch.ones(self.num_sessions, dtype=torch.bool))
        self.steps = torch.randint(SESSION_STEPS, (self.num_sessions,), generator=self.random)
        return self.observe()

    def observe(self):
        size = self.num_sessions
        return {
            "past": torch.eye(NUM_ITEMS)[self.good],
            "history_items": torch.full((size, HISTORY_LENGTH), -1),
            "history_tasks": torch.full((size, HISTORY_LENGTH), -1),
            "summary": torch.stack([self.steps / SESSION_STEPS, torch.ones(size)], -1),
            "task_weights": torch.tensor([0.5, 0.5]).expand(size, -1),
        }

    def step(self, slates):
        hit = (slates == self.good[:, None]).float() * torch.tensor([1.0, 0.5])
        rewards = torch.stack([hit, 2 * hit], -1)  # [B, L, K]
        self.returns += rewards.sum(1)
        self.steps += 1
        ended = self.steps >= SESSION_STEPS
        finished = {
            "returns": self.returns[ended].clone(),
            "lengths": self.steps[ended].clone(),
            "task_weights": torch.tensor([0.5, 0.5]).expand(int(ended.sum()), -1),
        }
        self._begin(ended)
        return StepResult(rewards, ended, finished)

    def _begin(self, which):
        count = int(which.sum())
        self.good[which] = torch.randint(NUM_ITEMS, (count,), generator=self.random)
        self.steps[which] = 0
        self.returns[which] = 0.0


class ShopWithReturns(ShopOfEight):
    """There what pays is also sent back: the second task costs what the first one earns, and has no weight."""

    def observe(self):
        return super().observe() | {"task_weights": torch.tensor([1.0, 0.0]).expand(self.num_sessions, -1)}

    def step(self, slates):
        result = super().step(slates)
        sign = torch.tensor([1.0, -0.5])
        finished = result.finished | {"returns": result.finished["returns"] * sign}
        return StepResult(result.rewards * sign, result.ended, finished)


def load_item_embeddings():
    return torch.eye(NUM_ITEMS)
