"""RLlib as it comes: SingleAgentEnvRunner over a vectorised environment, its own connectors, PPOTorchLearner.

The simulation, the networks and the slate distribution are ours, the reward is the weighted one. What goes beyond
stock PPO (vector rewards, the clone's price, immediate rewards) is left out, which only makes it faster.
"""

from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.tune.registry import register_env
from torch import Tensor

from rl.policy.config import PPOSettings
from rl.policy.critic import Critic
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import best_slates, sample_slates, slate_log_prob, slate_terms
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

OBSERVATION_SPACE = gym.spaces.Box(-np.inf, np.inf, (observation_width(),), np.float32)


def action_space(num_items: int) -> gym.spaces.MultiDiscrete:
    """Slates."""
    return gym.spaces.MultiDiscrete([num_items] * SLATE_LENGTH)


class VectorWorld(gym.vector.VectorEnv):
    """B sessions stepped at once: the fastest kind of environment that the stock runner takes."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_items: int, num_sessions: int, seed: int = 0) -> None:
        self.num_envs = num_sessions
        self.single_observation_space, self.single_action_space = OBSERVATION_SPACE, action_space(num_items)
        self.observation_space = gym.vector.utils.batch_space(OBSERVATION_SPACE, num_sessions)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_sessions)
        self.simulation = OpenWorld(num_items)(num_sessions, seed)
        self.never = np.zeros(num_sessions, dtype=bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return flatten(self.simulation.reset()), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        weights = self.simulation.task_weights.clone()
        result = self.simulation.step(torch.as_tensor(np.asarray(actions)).long())
        reward = (result.rewards.sum(1) * weights).sum(-1)
        observation = flatten(self.simulation.observe())
        return observation, reward.numpy(), result.ended.numpy(), self.never.copy(), {}


class OneSession(gym.Env):  # type: ignore[type-arg]
    """One session stepped by itself: what ``num_envs_per_env_runner`` multiplies by default."""

    def __init__(self, num_items: int, seed: int) -> None:
        self.world = VectorWorld(num_items, 1, seed)
        self.observation_space = self.world.single_observation_space
        self.action_space = self.world.single_action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return flatten(self.world.simulation.observe())[0], {}  # it began a new one when the last ended

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, ended, _, _ = self.world.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(ended[0]), False, {}


class StockSlates(Distribution):
    """Plackett-Luce for RLlib's loss."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @classmethod
    def from_logits(cls, logits: Tensor, **kwargs: Any) -> "StockSlates":
        return cls(logits)

    @staticmethod
    def required_input_dim(space: gym.Space[Any], **kwargs: Any) -> int:
        return int(space.nvec[0])

    def logp(self, value: Tensor, **kwargs: Any) -> Tensor:
        self.terms = slate_terms(self.logits, value.long())  # the loss asks for the entropy next
        return self.terms.log_prob.sum(-1)

    def entropy(self, **kwargs: Any) -> Tensor:
        return self.terms.entropy

    def sample(self, **kwargs: Any) -> Tensor:
        return sample_slates(self.logits, SLATE_LENGTH)

    def rsample(self, **kwargs: Any) -> Tensor:
        raise NotImplementedError("slates are discrete: no gradient goes through a draw")

    def kl(self, other: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError("the benchmark trains without a KL loss")

    def to_deterministic(self, **kwargs: Any) -> "StockSlates":
        return self


class StockModule(TorchRLModule, ValueFunctionAPI):
    """Our actor and critic behind flat observations."""

    def setup(self) -> None:
        num_items = self.model_config["num_items"]
        self.actor = SlatePolicy(policy_shape(num_items), item_embeddings(num_items))
        self.critic = Critic(
            TEXT_WIDTH, SUMMARY_WIDTH, len(TASKS), SLATE_LENGTH, self.model_config["critic_width"], 0.1
        )
        self.action_dist_cls = StockSlates
        self.keys = None

    def get_train_action_dist_cls(self) -> type[StockSlates]:
        return StockSlates

    def get_exploration_action_dist_cls(self) -> type[StockSlates]:
        return StockSlates

    def get_inference_action_dist_cls(self) -> type[StockSlates]:
        return StockSlates

    def set_state(self, state: dict[str, Any]) -> None:
        self.keys = None
        super().set_state(state)

    def _state(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = unflatten(batch[Columns.OBS])
        return rows["past"], rows["history_items"], rows["history_tasks"], rows["task_weights"]

    @torch.no_grad()
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {Columns.ACTIONS: best_slates(self.actor.logits(*self._state(batch)), SLATE_LENGTH)}

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        if self.keys is None:
            self.keys = self.actor.item_keys()
        logits = self.actor.logits(*self._state(batch), keys=self.keys)
        slates = sample_slates(logits, SLATE_LENGTH)
        return {
            Columns.ACTIONS: slates,
            Columns.ACTION_LOGP: slate_log_prob(logits, slates).sum(-1),
            Columns.ACTION_DIST_INPUTS: torch.zeros(len(slates), 1),  # unused by the loss; spares N columns
        }

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self.actor.logits(*self._state(batch))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        rows = unflatten(batch[Columns.OBS])
        values, _ = self.critic(self.critic.inputs(rows, self.actor.item_embeddings))
        return (values * rows["task_weights"]).sum(-1)


def build_stock(num_items: int, num_envs: int, settings: PPOSettings, together: bool) -> Algorithm:
    """Stock PPO with as many rows a round, a minibatch and an epoch as ours; sessions step together or one by one."""
    rows = settings.num_sessions * settings.fragment_steps
    seeds = count()
    register_env(
        "slates",
        lambda config: VectorWorld(num_items, num_envs) if together else OneSession(num_items, next(seeds)),
    )
    return (
        PPOConfig()
        .environment("slates", observation_space=OBSERVATION_SPACE, action_space=action_space(num_items))
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=num_envs,
            rollout_fragment_length=rows // num_envs,
            gym_env_vectorize_mode="vector_entry_point" if together else "sync",
        )
        .learners(num_learners=0)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=StockModule,
                model_config={"num_items": num_items, "critic_width": settings.critic_width},
            )
        )
        .training(
            train_batch_size_per_learner=rows,
            minibatch_size=rows // settings.num_minibatches,
            num_epochs=settings.num_epochs,
            lr=settings.learning_rate,
            gamma=settings.discount,
            lambda_=settings.gae_decay,
            clip_param=settings.clip_range,
            entropy_coeff=settings.entropy,
            use_kl_loss=False,
            grad_clip=settings.grad_clip,
            grad_clip_by="global_norm",
        )
        .debugging(seed=0, log_level="ERROR")
    ).build_algo()
