"""DQN over slates: replay, dueling, double, item values in the manner of SlateQ; the module parts are PPO's."""

import copy
from collections import deque
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from torch import Tensor
from torch.nn import functional as F

from rl.policy.config import DQNSettings
from rl.policy.connector import RoundToBatch
from rl.policy.fragments import OBSERVATION_COLUMNS, STATE_COLUMNS, Fragment
from rl.policy.item_values import item_values, temporal_difference_targets
from rl.policy.learner import MultiTaskPPOLearner
from rl.policy.module import SlateModule
from rl.policy.moments import moments
from rl.policy.plackett_luce import best_slates

_ROWS_AT_ONCE = 512  # states whose whole catalogue is scored at once; bounds memory
_SCALE_SHARE = 0.2  # of a round in the running scale of returns


class SlateQModule(SlateModule):
    """The actor values items, the critic states; copies of both, renewed now and then, give the targets."""

    def setup(self) -> None:
        """Adds the copies, and what a nat of the actor's logits is worth."""
        super().setup()
        if not self.inference_only:
            self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
            self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
            self.register_buffer("nat", torch.zeros(()))
        self.train(self.training)

    def train(self, mode: bool = True) -> "SlateQModule":
        """As the parent's."""
        super().train(mode)
        if hasattr(self, "target_actor"):
            self.target_actor.eval()
        return self

    def get_non_inference_attributes(self) -> list[str]:
        """What samplers do not need."""
        return [*super().get_non_inference_attributes(), "target_actor", "target_critic", "nat"]

    def set_clone(self, state: dict[str, Tensor]) -> None:
        """The clone's logits are the first item values."""
        super().set_clone(state)
        if not self.inference_only:
            self.target_actor.load_state_dict(state)

    def renew_targets(self) -> None:
        """Takes the learned weights over into the copies."""
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())

    @torch.no_grad()
    def best_next_values(self, observation: dict[str, Tensor]) -> Tensor:
        """Worth, by the copies, of the slates that the actor thinks best. float32 [M, K]."""
        keys = self.actor.item_keys()
        parts = []
        for start in range(0, len(observation["past"]), _ROWS_AT_ONCE):
            rows = {name: column[start : start + _ROWS_AT_ONCE] for name, column in observation.items()}
            state = (rows["past"], rows["history_items"], rows["history_tasks"])
            slates = best_slates(self.actor.logits(*state, rows["task_weights"], keys), self.slate_length)
            inputs = self.target_critic.inputs(rows, self.actor.item_embeddings)
            values, _ = self.target_critic.predict(inputs)
            parts.append(values + self.nat * item_values(self.target_actor, *state, slates))
        return torch.cat(parts)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        state = (batch["past"], batch["history_items"], batch["history_tasks"])
        values, rewards = self.critic(batch["critic_inputs"])
        return {
            "values": values,
            "immediate_rewards": rewards,
            "item_values": item_values(self.actor, *state, batch["slates"]),
        }


class ReplayToBatch(RoundToBatch):
    """Rows of the latest rounds, drawn evenly, with their targets."""

    def __init__(self, settings: DQNSettings, discount: float) -> None:
        super().__init__()
        self.settings, self.discount = settings, discount
        self.rounds: deque[list[Fragment]] = deque(maxlen=settings.replay_rounds)
        self.entropy = float("nan")

    def build(self, module: SlateQModule, fragments: list[Fragment]) -> dict[str, Tensor]:
        """M = num_updates * batch_rows rows."""
        self.rounds.append(fragments)
        self.entropy = -float(sum(f.columns["log_probs"].mean() for f in fragments)) / len(fragments)
        rows = draw_rows([f for past in self.rounds for f in past], self.settings)
        device = module.actor.item_embeddings.device
        on_device = {name: column.to(device) for name, column in rows.items()}
        return build_q_batch(module, on_device, self.settings, self.discount)


def draw_rows(fragments: list[Fragment], settings: DQNSettings) -> dict[str, Tensor]:
    """Steps drawn evenly, with replacement: columns of the step, and ``next_`` ones of the observation after it."""
    sizes = torch.tensor([len(fragment) for fragment in fragments])
    count = settings.num_updates * settings.batch_rows
    which = torch.multinomial(sizes.double(), count, replacement=True)
    parts: list[dict[str, Tensor]] = []
    for index, fragment in enumerate(fragments):
        sessions, steps = fragment.columns["ended"].shape
        drawn = torch.randint(sessions * steps, (int((which == index).sum()),))
        session, step = drawn // steps, drawn % steps
        columns = {name: torch.from_numpy(column) for name, column in fragment.columns.items()}
        part = {
            name: columns[name][session, step]
            for name in (*OBSERVATION_COLUMNS, "slates", "rewards", "ended")
        }
        part |= {f"next_{name}": columns[name][session, step + 1] for name in OBSERVATION_COLUMNS}
        parts.append(part)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def build_q_batch(
    module: SlateQModule, rows: dict[str, Tensor], settings: DQNSettings, discount: float
) -> dict[str, Tensor]:
    """The rows with their targets in the critic's units; moves its moments and the worth of a nat on."""
    following = {name: rows[f"next_{name}"] for name in OBSERVATION_COLUMNS}
    rewards = rows["rewards"]  # [M, L, K]
    targets = temporal_difference_targets(
        rewards.sum(1), rows["ended"], module.best_next_values(following), discount
    )
    critic = module.critic
    if torch.isfinite(targets).all():  # else the learner refuses the round
        critic.value_head.track(targets)
        critic.reward_head.track(rewards.flatten(1))
        _, variance = moments((targets * rows["task_weights"]).sum(-1))
        nat = settings.temperature * variance.sqrt()
        module.nat.copy_(nat if module.nat == 0 else module.nat.lerp(nat, _SCALE_SHARE))
    batch = {name: rows[name] for name in (*STATE_COLUMNS, "slates")}
    batch["critic_inputs"] = critic.inputs(rows, module.actor.item_embeddings)
    batch["value_targets"] = critic.value_head.normalise(targets)
    batch["reward_targets"] = critic.reward_head.normalise(rewards.flatten(1))
    return batch


class SlateQLearner(MultiTaskPPOLearner):
    """``learner_config_dict`` holds PPO's ``settings`` and ``num_steps``, and ``dqn`` (DQNSettings)."""

    _batches: ReplayToBatch

    def make_connector(self) -> ReplayToBatch:
        """What replays."""
        self.dqn: DQNSettings = self.config.learner_config_dict["dqn"]
        self._rounds = 0
        return ReplayToBatch(self.dqn, self.settings.discount)

    def learning_rate(self) -> float:
        """At the start."""
        return self.dqn.learning_rate

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Huber loss of the slate's value, per task in units of its targets' spread, and of immediate rewards."""
        module = self.module[module_id].unwrapped()
        spread = module.critic.value_head.variance.sqrt()
        predicted = fwd_out["values"] + fwd_out["item_values"] * (module.nat / spread)
        loss = F.smooth_l1_loss(predicted, batch["value_targets"])
        reward = (fwd_out["immediate_rewards"] - batch["reward_targets"]).square().mean()
        metrics = {
            POLICY_LOSS_KEY: loss.detach(),
            VF_LOSS_KEY: loss.detach(),
            ENTROPY_KEY: self._batches.entropy,
            "immediate_reward_loss": reward.detach(),
            "nat": module.nat.clone(),
        }
        self.metrics.log_dict(metrics, key=module_id, window=1)
        total: Tensor = loss + self.settings.value_coefficient * reward
        return total

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Ends a round: renews the copies that give the targets when they are old enough."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._rounds += 1
        if self._rounds % self.dqn.target_rounds == 0:
            self.module[DEFAULT_MODULE_ID].unwrapped().renew_targets()
