"""RLlib's PPO, set up for slates and a tensor simulation."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from rl.policy.config import DQNSettings, PPOSettings
from rl.policy.env_runner import MakeSimulation, SimulationRunner
from rl.policy.learner import MultiTaskPPOLearner
from rl.policy.module import LoadItemEmbeddings, SlateModule
from rl.policy.network import PolicyShape
from rl.policy.q_learner import SlateQLearner, SlateQModule

_SAMPLE_TIMEOUT_S = 600.0  # a round of a large catalogue takes minutes on a slow host


def build_algorithm(
    settings: PPOSettings,
    shape: PolicyShape,
    load_item_embeddings: LoadItemEmbeddings,
    make_simulation: MakeSimulation,
    *,
    summary_width: int,
    task_names: Sequence[str],
    seed: int = 0,
    limits: Sequence[float] | None = None,
    dqn: DQNSettings | None = None,
) -> Algorithm:
    """An RLlib algorithm whose ``train()`` is one round; Ray must be connected.

    Args:
        settings: Of PPO.
        shape: Of the policy.
        load_item_embeddings: Returns float32 [N, D]; called by every sampler and learner, so it must pickle.
        make_simulation: From a number of sessions and a seed; called by every sampler, so it must pickle.
        summary_width: F of the simulation's observation.
        task_names: K names under which returns are reported, as ``env_runners/task_return/NAME``.
        seed: Of sessions, slates and new weights.
        limits: Of each task's mean cost a session, infinite where there is none; None limits nothing, as DQN does.
        dqn: Learn by DQN, with the rounds, samplers and learners of ``settings``; None learns by PPO.

    Raises:
        ValueError: The sessions cannot be shared equally among the learners, or DQN is to keep a limit or to balance
            tasks.
    """
    _check(settings, limits, dqn)
    env_config = {"make_simulation": make_simulation, "task_names": tuple(task_names)}
    module_config = {
        "shape": shape,
        "load_item_embeddings": load_item_embeddings,
        "summary_width": summary_width,
        "critic_width": settings.critic_width,
        "popart_rate": settings.popart_rate,
        "kl_price": settings.kl,
        "num_candidates": settings.num_candidates,
        "balance": settings.balance,
        "limits": [float("inf")] * shape.num_tasks if limits is None else list(limits),
    }
    module_spec = RLModuleSpec(module_class=SlateQModule if dqn else SlateModule, model_config=module_config)
    config = _base_config(settings, shape, summary_width, env_config, module_spec, seed)
    if dqn is not None:
        config.training(
            minibatch_size=dqn.batch_rows,
            num_epochs=1,
            lr=dqn.learning_rate,
            learner_class=SlateQLearner,
            learner_config_dict={**config.learner_config_dict, "dqn": dqn},
        )
    return config.build_algo()


def _check(settings: PPOSettings, limits: Sequence[float] | None, dqn: DQNSettings | None) -> None:
    if dqn is not None and limits is not None and np.isfinite(limits).any():
        raise ValueError("rl.tasks.NAME.at_most: expected rl.algorithm=ppo, got dqn, which keeps no limits.")
    if dqn is not None and settings.balance != "fixed":
        raise ValueError(
            f"rl.ppo.balance: expected fixed with rl.algorithm=dqn, whose tasks have losses of their own, "
            f"got {settings.balance}."
        )
    num_learners = max(1, settings.num_learners)
    if settings.num_sessions % num_learners:
        raise ValueError(
            f"rl.ppo.num_sessions: expected a multiple of num_learners = {num_learners}, "
            f"got {settings.num_sessions}. Round it, so that each learner gets as many."
        )


def _base_config(
    settings: PPOSettings,
    shape: PolicyShape,
    summary_width: int,
    env_config: dict[str, Any],
    module_spec: RLModuleSpec,
    seed: int,
) -> PPOConfig:
    """What PPO and DQN share: sessions, samplers, learners, module, rounds."""
    config = (
        PPOConfig()
        .environment(
            observation_space=_observation_space(shape, summary_width),
            action_space=gym.spaces.MultiDiscrete([shape.num_items] * shape.slate_length),
            env_config=env_config,
        )
        .env_runners(
            env_runner_cls=SimulationRunner,
            num_env_runners=settings.num_env_runners,
            num_envs_per_env_runner=settings.num_sessions,
            rollout_fragment_length=settings.fragment_steps,
            sample_timeout_s=_SAMPLE_TIMEOUT_S,
        )
        .fault_tolerance(restart_failed_env_runners=True, delay_between_env_runner_restarts_s=1.0)
        .learners(
            num_learners=settings.num_learners,
            num_gpus_per_learner=settings.num_gpus_per_learner,
            add_default_connectors_to_learner_pipeline=False,
        )
        .rl_module(rl_module_spec=module_spec)
        .debugging(seed=seed, log_level="ERROR")
    )
    steps_a_round = settings.num_sessions * settings.fragment_steps * max(1, settings.num_env_runners)
    _set_training(config, settings, steps_a_round)
    return config


class Trainer:
    """Rounds of an algorithm. A learner that dies costs its round, which is run anew on new learners.

    RLlib replaces samplers by itself and goes on with those that are left; to it the death of a learner is the
    end. So where learners are processes of their own, the driver keeps what they had learned before the round.
    """

    def __init__(self, build: Callable[[], Algorithm]) -> None:
        self._build = build
        self.algorithm = build()
        self._state: dict[str, Any] | None = None
        self.num_recoveries = 0

    def train(self) -> dict[str, Any]:
        """A round's metrics.

        Raises:
            Exception: What RLlib raised although all learners live, or because the new ones died as well.
        """
        if self.algorithm.config.num_learners == 0:  # then the driver is the learner
            return dict(self.algorithm.train())
        if self._state is None:
            self._state = self.algorithm.get_state()
        try:
            result = dict(self.algorithm.train())
        except Exception:  # RLlib raises one or another, by when the learner died
            if self._learners_live():
                raise
            self.recover()
            result = dict(self.algorithm.train())
        if self._learners_live():
            self._state = self.algorithm.get_state()
        return result

    def _learners_live(self) -> bool:
        answers = list(self.algorithm.learner_group.foreach_learner(lambda learner: True))
        return len(answers) == self.algorithm.config.num_learners and all(answer.ok for answer in answers)

    def recover(self) -> None:
        """Put new samplers and learners, as they were before the round, in the place of those there are."""
        assert self._state is not None
        self.algorithm.stop()
        self.algorithm = self._build()
        self.algorithm.set_state(self._state)
        self.algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.algorithm.learner_group, inference_only=True
        )
        self.num_recoveries += 1


def set_clone(algorithm: Algorithm, actor_state: dict[str, Tensor]) -> None:
    """Puts the clone's weights into actor and reference, in all learners and samplers."""

    def teach(learner: Any) -> None:
        learner.module[DEFAULT_MODULE_ID].unwrapped().set_clone(actor_state)

    def tell(runner: Any) -> None:
        runner.module.set_clone(actor_state)

    for result in algorithm.learner_group.foreach_learner(teach):
        result.get()  # raises what a remote learner raised
    algorithm.env_runner_group.foreach_env_runner(tell)


def actor_state(algorithm: Algorithm) -> dict[str, Tensor]:
    """Copies of the actor's weights as the learners have them, on the CPU."""
    state = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    prefix = "actor."
    return {
        name.removeprefix(prefix): torch.tensor(np.asarray(values))
        for name, values in state.items()
        if name.startswith(prefix)
    }


def _set_training(config: PPOConfig, settings: PPOSettings, steps_a_round: int) -> None:
    """Batch sizes and loss settings. Learning rate and entropy bonus are scheduled by the learner."""
    batch = steps_a_round // max(1, settings.num_learners)
    config.training(
        train_batch_size_per_learner=batch,
        minibatch_size=max(1, batch // settings.num_minibatches),
        num_epochs=settings.num_epochs,
        shuffle_batch_per_epoch=True,
        lr=settings.learning_rate,
        gamma=settings.discount,
        lambda_=settings.gae_decay,
        use_kl_loss=False,
        grad_clip=settings.grad_clip,
        grad_clip_by="global_norm",
        learner_class=MultiTaskPPOLearner,
        learner_config_dict={"settings": settings, "num_steps": settings.num_iterations * steps_a_round},
    )
    config.torch_skip_nan_gradients = True  # our learner looks once for all of them, and refuses
    config.torch_ddp_kwargs = {"broadcast_buffers": False}  # the item table and averaged moments are equal


def _observation_space(shape: PolicyShape, summary_width: int) -> gym.spaces.Box:
    """RLlib wants one; the columns themselves pass it by."""
    width = shape.text_width + 2 * shape.history_length + summary_width + shape.num_tasks
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
