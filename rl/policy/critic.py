"""The critic: each task's return, and each position's immediate reward, predicted from the observation.

It serves training alone, so it may see more than the policy does: the simulator's summary of all that was
shown and answered.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl.policy.moments import moments

_LEAST_VARIANCE = 1e-8


class NormalisedHead(nn.Module):
    """A linear head that predicts in units of its targets' spread (PopArt).

    When the targets' moments move, weights are rescaled so that no prediction changes.

    Source:
        Hessel et al. 2019, arXiv:1809.04474.
    """

    mean: Tensor
    variance: Tensor
    num_updates: Tensor

    def __init__(self, width: int, num_outputs: int, rate: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_outputs)
        self.rate = rate
        self.register_buffer("mean", torch.zeros(num_outputs))
        self.register_buffer("variance", torch.ones(num_outputs))
        self.register_buffer("num_updates", torch.zeros(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalised predictions. [B, num_outputs]."""
        output: Tensor = self.linear(hidden)
        return output

    def normalise(self, targets: Tensor) -> Tensor:
        """Targets in the head's units."""
        return (targets - self.mean) / self.variance.sqrt()

    def denormalise(self, predictions: Tensor) -> Tensor:
        """Predictions in units of reward."""
        return predictions * self.variance.sqrt() + self.mean

    @torch.no_grad()
    def track(self, targets: Tensor) -> None:
        """Moves the moments towards those of targets [M, num_outputs]; predictions stay as they are."""
        mean, variance = moments(targets)
        rate = self.rate if self.num_updates > 0 else 1.0
        old_mean, old_scale = self.mean.clone(), self.variance.sqrt()
        self.mean.lerp_(mean, rate)
        self.variance.lerp_(variance, rate).clamp_min_(_LEAST_VARIANCE)
        scale = self.variance.sqrt()
        if self.num_updates > 0:
            self.linear.weight.mul_((old_scale / scale).unsqueeze(-1))
            self.linear.bias.mul_(old_scale).add_(old_mean - self.mean).div_(scale)
        self.num_updates.add_(1)


class Critic(nn.Module):
    """Two hidden layers over the past, the history's mean item text, the summary and the task weights."""

    def __init__(
        self,
        text_width: int,
        summary_width: int,
        num_tasks: int,
        slate_length: int,
        width: int,
        rate: float,
    ) -> None:
        super().__init__()
        self.slate_length = slate_length
        self.num_tasks = num_tasks
        self.text_norm = nn.LayerNorm(2 * text_width, elementwise_affine=False)  # the next layer scales
        self.body = nn.Sequential(
            nn.Linear(2 * text_width + summary_width + num_tasks, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
        )
        self.value_head = NormalisedHead(width, num_tasks, rate)
        self.reward_head = NormalisedHead(width, slate_length * num_tasks, rate)

    def inputs(self, observation: dict[str, Tensor], item_embeddings: Tensor) -> Tensor:
        """What the layers read; it holds no weight, so a round computes it once. float32 [B, width of inputs].

        Args:
            observation: past [B, D], history_items [B, H], summary [B, F], task_weights [B, K].
            item_embeddings: float32 [N, D].
        """
        history = _mean_embedding(observation["history_items"], item_embeddings)  # [B, D]
        text = self.text_norm(torch.cat([observation["past"], history], -1))  # [B, 2D]
        return torch.cat([text, observation["summary"], observation["task_weights"]], -1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised return of each task [B, K], and immediate reward of each position and task [B, L * K]."""
        hidden = self.body(inputs)  # [B, width]
        return self.value_head(hidden), self.reward_head(hidden)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return of each task [B, K], and immediate reward [B, L, K], in units of reward."""
        values, rewards = self(inputs)
        shape = (-1, self.slate_length, self.num_tasks)
        return self.value_head.denormalise(values), self.reward_head.denormalise(rewards).view(shape)


def _mean_embedding(items: Tensor, embeddings: Tensor) -> Tensor:
    """Mean embedding of the items given [B, H], 0 where all are -1. [B, D]."""
    present = (items >= 0).to(embeddings.dtype)  # [B, H]
    total = F.embedding_bag(items.clamp_min(0), embeddings, mode="sum", per_sample_weights=present)
    return total / present.sum(-1, keepdim=True).clamp_min(1.0)
