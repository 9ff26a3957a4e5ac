"""stable-baselines3's PPO over the same simulation, networks and slate distribution."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

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
    flatten,
    item_embeddings,
    observation_width,
    policy_shape,
    unflatten,
)


class BatchedWorld(VecEnv):
    """B sessions stepped at once."""

    def __init__(self, num_items: int, num_sessions: int) -> None:
        self.simulation = OpenWorld(num_items)(num_sessions, 0)
        super().__init__(
            num_sessions,
            gym.spaces.Box(-np.inf, np.inf, (observation_width(),), np.float32),
            gym.spaces.MultiDiscrete([num_items] * SLATE_LENGTH),
        )

    def reset(self) -> np.ndarray:
        return flatten(self.simulation.reset())

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = torch.from_numpy(actions).long()

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        weights = self.simulation.task_weights.clone()
        result = self.simulation.step(self.actions)
        reward = (result.rewards.sum(1) * weights).sum(-1).numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return flatten(self.simulation.observe()), reward, result.ended.numpy(), infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("PPO sets no attribute of its environments")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("PPO calls no method of its environments")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class BaselinePolicy(ActorCriticPolicy):
    """Our actor and critic; item keys are cached while a rollout is collected."""

    def _build(self, lr_schedule: Any) -> None:
        num_items = int(self.action_space.nvec[0])
        self.actor = SlatePolicy(policy_shape(num_items), item_embeddings(num_items))
        self.critic = Critic(
            TEXT_WIDTH, SUMMARY_WIDTH, len(TASKS), SLATE_LENGTH, PPOSettings().critic_width, 0.1
        )
        self.keys = None
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def set_training_mode(self, mode: bool) -> None:
        super().set_training_mode(mode)
        self.keys = None

    def _values(self, rows: dict[str, Tensor]) -> Tensor:
        values, _ = self.critic(self.critic.inputs(rows, self.actor.item_embeddings))
        return (values * rows["task_weights"]).sum(-1, keepdim=True)

    def _logits(self, rows: dict[str, Tensor], keys: Any) -> Tensor:
        state = (rows["past"], rows["history_items"], rows["history_tasks"], rows["task_weights"])
        return self.actor.logits(*state, keys=keys)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        if self.keys is None:
            self.keys = self.actor.item_keys()
        rows = unflatten(obs)
        logits = self._logits(rows, self.keys)
        slates = sample_slates(logits, SLATE_LENGTH)
        return slates, self._values(rows), slate_log_prob(logits, slates).sum(-1)

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = unflatten(obs)
        terms = slate_terms(self._logits(rows, None), actions.long())
        return self._values(rows), terms.log_prob.sum(-1), terms.entropy

    def predict_values(self, obs: Tensor) -> Tensor:
        return self._values(unflatten(obs))


class Baseline:
    """``sample()`` then ``learn()`` is a round."""

    def __init__(self, num_items: int, settings: PPOSettings) -> None:
        rows = settings.num_sessions * settings.fragment_steps
        self.algorithm = PPO(
            BaselinePolicy,
            BatchedWorld(num_items, settings.num_sessions),
            n_steps=settings.fragment_steps,
            batch_size=rows // settings.num_minibatches,
            n_epochs=settings.num_epochs,
            learning_rate=settings.learning_rate,
            gamma=settings.discount,
            gae_lambda=settings.gae_decay,
            ent_coef=settings.entropy,
            max_grad_norm=settings.grad_clip,
            device="cpu",
        )
        _, self.callback = self.algorithm._setup_learn(10**9)

    def sample(self) -> None:
        """Fills the rollout buffer."""
        algorithm = self.algorithm
        algorithm.collect_rollouts(algorithm.env, self.callback, algorithm.rollout_buffer, algorithm.n_steps)

    def learn(self) -> None:
        """All epochs over it."""
        self.algorithm.train()
