"""From fragments to the train batch: values, advantages per task, credit per position, running moments."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from rl.policy.advantage import generalised_advantages, position_advantages
from rl.policy.candidates import Candidates
from rl.policy.config import PPOSettings
from rl.policy.fragments import OBSERVATION_COLUMNS, STATE_COLUMNS, Fragment
from rl.policy.module import SlateModule
from rl.policy.moments import moments

ROWS = "rows"
_LEAST_SCALE = 1e-6
_LEAST_DEVIATION = 0.1  # over the mean row's: weights on noise alone are not followed


class RoundToBatch(ConnectorV2):  # type: ignore[misc]
    """The whole learner pipeline: makes a round's train batch, keeps it, and hands RLlib its row numbers.

    RLlib shuffles, slices and joins all columns that it is handed, which copies each of them several times an epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._columns: dict[str, Tensor] = {}

    def __call__(self, *, rl_module: Any, episodes: list[Fragment], **kwargs: Any) -> dict[str, Any]:
        """Numbers of the batch's M rows, shuffled: RLlib does not shuffle the first epoch. int64 [M]."""
        self._columns = self.build(rl_module[DEFAULT_MODULE_ID].unwrapped(), episodes)
        slates = self._columns["slates"]
        return {DEFAULT_MODULE_ID: {ROWS: torch.randperm(len(slates)).to(slates.device)}}

    @abstractmethod
    def build(self, module: Any, fragments: list[Fragment]) -> dict[str, Tensor]:
        """The train batch: columns [M, ...]."""

    def minibatch(self, numbered: dict[str, Any]) -> dict[str, Tensor]:
        """The columns of numbered rows."""
        rows = numbered[ROWS]
        return {name: column.index_select(0, rows) for name, column in self._columns.items()}

    def forget(self) -> None:
        """Frees the round's columns."""
        self._columns = {}


class FragmentsToBatch(RoundToBatch):
    """PPO's: every step of the fragments once."""

    def __init__(self, settings: PPOSettings) -> None:
        super().__init__()
        self.settings = settings

    def build(self, module: SlateModule, fragments: list[Fragment]) -> dict[str, Tensor]:
        """M = B * S rows, see ``build_train_batch``."""
        return build_train_batch(module, fragments, self.settings)


@torch.no_grad()
def build_train_batch(
    module: SlateModule, fragments: list[Fragment], settings: PPOSettings
) -> dict[str, Tensor]:
    """Columns that the loss needs; the critic's running moments, the limits' prices and the balance are moved on.

    Returns:
        The state's columns [M, ...], critic_inputs, reference_readings where there is a KL price, slates int64
        [M, L] and drawn_from [M] (see ``SlateModule.learn_on``), log_probs [M, L], advantages [M, L, K] (task
        weighted, in units of their sum's standard deviation), value_targets [M, K] and reward_targets [M, L * K]
        (both in the critic's units).
    """
    device = module.actor.item_embeddings.device
    columns = _join(fragments, device)
    num_sessions, num_steps = columns["ended"].shape
    observation = {name: columns[name] for name in OBSERVATION_COLUMNS}
    everywhere = {name: column.flatten(0, 1) for name, column in observation.items()}
    inputs = module.critic.inputs(everywhere, module.actor.item_embeddings)  # [B * (S+1), ...]
    values, expected = module.critic.predict(inputs)
    values = values.view(num_sessions, num_steps + 1, -1)  # [B, S+1, K]
    expected = expected.view(num_sessions, num_steps + 1, *expected.shape[1:])[:, :-1]  # [B, S, L, K]
    advantages = generalised_advantages(
        columns["rewards"].sum(2),
        values,
        columns["ended"],
        columns["leaving"],
        settings.discount,
        settings.gae_decay,
    )
    targets = (advantages + values[:, :-1]).flatten(0, 1)  # [M, K]
    batch = {name: observation[name][:, :-1].flatten(0, 1) for name in STATE_COLUMNS}
    batch["critic_inputs"] = inputs.view(num_sessions, num_steps + 1, -1)[:, :-1].flatten(0, 1)
    if settings.kl > 0:
        batch["reference_readings"] = module.reference_readings(batch)
    rewards = columns["rewards"].flatten(0, 1)  # [M, L, K]
    batch |= _drawn_slates(module, fragments, device)
    batch["log_probs"] = columns["log_probs"].flatten(0, 1)
    critic, sound = module.critic, torch.isfinite(targets).all() and torch.isfinite(rewards).all()
    if sound:
        module.balance.follow(advantages.flatten(0, 1), rewards)
    priced = batch["task_weights"] * module.balance.factors + module.limit_prices.prices
    batch["advantages"] = weigh_advantages(
        advantages.flatten(0, 1), rewards, expected.flatten(0, 1), priced, settings
    )
    if sound:  # else the learner refuses the round
        critic.value_head.track(targets)
        critic.reward_head.track(rewards.flatten(1))
        module.limit_prices.follow(columns["rewards"], columns["ended"])
    batch["value_targets"] = critic.value_head.normalise(targets)
    batch["reward_targets"] = critic.reward_head.normalise(rewards.flatten(1))
    return batch


def weigh_advantages(
    advantages: Tensor,
    rewards: Tensor,
    expected_rewards: Tensor,
    task_weights: Tensor,
    settings: PPOSettings,
) -> Tensor:
    """The tasks' shares in each position's advantage.

    One scale divides them all after weighting, so that the objective stays the weighted return and the noise of a
    rare task is not blown up. Or each row has one, the deviation that its own task weights give: sessions that ask for
    rare or small rewards would else hardly move a policy that is to serve every trade-off.

    Args:
        advantages: float32 [M, K].
        rewards: Immediate reward. float32 [M, L, K].
        expected_rewards: Its prediction. float32 [M, L, K].
        task_weights: float32 [M, K].
        settings: What a position answers for, and what has a scale of its own.

    Returns:
        Each task's mean is 0, the standard deviation of their sum 1. float32 [M, L, K].
    """
    if settings.credit == "position":
        shares = position_advantages(advantages, rewards, expected_rewards, task_weights)
    else:
        shares = (advantages * task_weights).unsqueeze(1).expand_as(rewards)
    if settings.scale == "session":
        shares = shares / _deviations(advantages, task_weights)[:, None, None]
    mean, _ = moments(shares.flatten(0, 1))  # [K]
    _, variance = moments(shares.sum(-1).flatten())
    return (shares - mean) / variance.sqrt().clamp_min(_LEAST_SCALE)


def _deviations(advantages: Tensor, task_weights: Tensor) -> Tensor:
    """Standard deviation of the slates' weighted advantages at each row's task weights. float32 [M]."""
    mean, _ = moments(advantages)
    centred = advantages - mean
    covariance, _ = moments(centred[:, :, None] * centred[:, None])  # [K, K]
    deviations = ((task_weights @ covariance) * task_weights).sum(-1).clamp_min(0).sqrt()
    usual, _ = moments(deviations)
    return torch.maximum(deviations, _LEAST_DEVIATION * usual).clamp_min(_LEAST_SCALE)


def _drawn_slates(module: SlateModule, fragments: list[Fragment], device: torch.device) -> dict[str, Tensor]:
    """Slates [M, L] as places among what they were drawn from; the module is told what that was."""
    drawn: list[Candidates] = []
    slates, indices = [], []
    for fragment in fragments:
        items = torch.from_numpy(fragment.columns["slates"]).flatten(0, 1).to(device)
        index = -1
        if fragment.candidates is not None:
            candidates = Candidates(*(column.to(device) for column in fragment.candidates))
            same = [i for i, other in enumerate(drawn) if torch.equal(other.items, candidates.items)]
            index = same[0] if same else len(drawn)
            drawn += [] if same else [candidates]
            items = torch.searchsorted(candidates.items, items)
        slates.append(items)
        indices.append(torch.full((len(items),), index, device=device))
    drawn_from = torch.cat(indices)
    if drawn and (drawn_from < 0).any():
        raise ValueError("fragments: expected candidates with each or with none, got both in one round.")
    module.learn_on(drawn)
    return {"slates": torch.cat(slates), "drawn_from": drawn_from}


def _join(fragments: list[Fragment], device: torch.device) -> dict[str, Tensor]:
    names = fragments[0].columns
    if len(fragments) == 1:  # nothing to copy
        joined = dict(fragments[0].columns)
    else:
        joined = {name: np.concatenate([fragment.columns[name] for fragment in fragments]) for name in names}
    return {name: torch.from_numpy(column).to(device) for name, column in joined.items()}
