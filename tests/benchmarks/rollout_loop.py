"""A PPO loop in one file: the same simulation, network and loss as ours, and nothing between them.

What RLlib costs is the distance from here. The loss runs over the whole catalogue.
"""

import copy

import torch
from torch import Tensor, nn

from rl.policy.advantage import clipped_objective, generalised_advantages
from rl.policy.config import PPOSettings
from rl.policy.critic import Critic
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import sample_slates, slate_log_prob, slate_terms
from tests.benchmarks.rollout_world import (
    SLATE_LENGTH,
    SUMMARY_WIDTH,
    TASKS,
    TEXT_WIDTH,
    OpenWorld,
    item_embeddings,
    policy_shape,
)


class Loop:
    """``sample()`` then ``learn(batch)`` is a round."""

    def __init__(self, num_items: int, settings: PPOSettings, seed: int) -> None:
        self.settings = settings
        torch.manual_seed(seed)
        self.simulation = OpenWorld(num_items)(settings.num_sessions, seed)
        self.actor = SlatePolicy(policy_shape(num_items), item_embeddings(num_items)).eval()
        self.reference = copy.deepcopy(self.actor).requires_grad_(False)
        with torch.no_grad():
            self.reference_keys = self.reference.item_keys()
        self.critic = Critic(
            TEXT_WIDTH, SUMMARY_WIDTH, len(TASKS), SLATE_LENGTH, settings.critic_width, settings.popart_rate
        )
        self.parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.learning_rate)
        self.observation = self.simulation.observe()
        self.returns: list[Tensor] = []

    @torch.no_grad()
    def sample(self) -> dict[str, Tensor]:
        """Columns [B, S, ...] of a round."""
        keys = self.actor.item_keys()
        steps: list[dict[str, Tensor]] = []
        for _ in range(self.settings.fragment_steps):
            logits = self.actor.logits(*_state(self.observation), keys=keys)
            slates = sample_slates(logits, SLATE_LENGTH)
            result = self.simulation.step(slates)
            steps.append(
                {
                    **self.observation,
                    "slates": slates,
                    "log_probs": slate_log_prob(logits, slates),
                    "rewards": result.rewards,
                    "ended": result.ended,
                    "leaving": result.leaving,
                }
            )
            self.returns.append((result.finished["returns"] * result.finished["task_weights"]).sum(-1))
            self.observation = self.simulation.observe()
        return {name: torch.stack([step[name] for step in steps], 1) for name in steps[0]}

    def learn(self, columns: dict[str, Tensor]) -> None:
        """All epochs over a round's rows."""
        settings, batch = self.settings, self._batch(columns)
        rows = len(batch["slates"])
        for _ in range(settings.num_epochs):
            for part in torch.randperm(rows).split(rows // settings.num_minibatches):
                loss = self._loss({name: column.index_select(0, part) for name, column in batch.items()})
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, settings.grad_clip)
                self.optimiser.step()

    @torch.no_grad()
    def _batch(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        sessions, steps = columns["ended"].shape
        table = self.actor.item_embeddings
        rows = {name: column.flatten(0, 1) for name, column in columns.items()}
        values = self.critic.predict(self.critic.inputs(rows, table))[0].view(sessions, steps, -1)
        last = self.critic.predict(self.critic.inputs(self.observation, table))[0].unsqueeze(1)
        advantages = generalised_advantages(
            columns["rewards"].sum(2),
            torch.cat([values, last], 1),
            columns["ended"],
            columns["leaving"],
            self.settings.discount,
            self.settings.gae_decay,
        )
        targets = (advantages + values).flatten(0, 1)
        combined = (advantages.flatten(0, 1) * rows["task_weights"]).sum(-1, keepdim=True)
        rows["advantages"] = (combined - combined.mean()) / combined.std().clamp_min(1e-6)
        self.critic.value_head.track(targets)
        self.critic.reward_head.track(rows["rewards"].flatten(1))
        rows["value_targets"] = self.critic.value_head.normalise(targets)
        rows["reward_targets"] = self.critic.reward_head.normalise(rows["rewards"].flatten(1))
        return rows

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        settings = self.settings
        logits = self.actor.logits(*_state(batch))
        with torch.no_grad():
            reference = self.reference.logits(*_state(batch), keys=self.reference_keys)
        terms = slate_terms(logits, batch["slates"], reference)
        objective = clipped_objective(
            terms.log_prob - batch["log_probs"], batch["advantages"], settings.clip_range
        )
        entropy = terms.entropy.mean() / SLATE_LENGTH
        kl = terms.kl.mean() / SLATE_LENGTH
        values, rewards = self.critic(self.critic.inputs(batch, self.actor.item_embeddings))
        value_loss = (values - batch["value_targets"]).square().mean()
        reward_loss = (rewards - batch["reward_targets"]).square().mean()
        return (
            -objective.sum(-1).mean()
            - settings.entropy * entropy
            + settings.kl * kl
            + settings.value_coefficient * (value_loss + reward_loss)
        )


def _state(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch["past"], batch["history_items"], batch["history_tasks"], batch["task_weights"]
