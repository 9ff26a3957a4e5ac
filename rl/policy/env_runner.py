"""The sampler: steps all its sessions at once and returns their columns."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN, SAMPLE_TIMER, WEIGHTS_SEQ_NO
from torch import Tensor

from rl.policy.candidates import Candidates
from rl.policy.fragments import OBSERVATION_COLUMNS, Fragment

MakeSimulation = Callable[[int, int], Any]  # number of sessions, seed -> Simulation
_WINDOW = 4  # rounds over which reported returns are averaged


class SimulationSpaces:
    """What RLlib asks of an environment; the simulation itself is stepped by the runner."""

    def __init__(
        self, num_envs: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space = self.observation_space = observation_space
        self.single_action_space = self.action_space = action_space

    @property
    def unwrapped(self) -> "SimulationSpaces":
        """Itself: nothing wraps it."""
        return self

    def close(self) -> None:
        """Nothing to close."""


class SimulationRunner(SingleAgentEnvRunner):  # type: ignore[misc]
    """``env_config``: ``make_simulation`` (number of sessions, seed -> Simulation), ``task_names`` [K]."""

    def make_env(self) -> None:
        """Announces the spaces. The simulation starts with the first sample, when its seed is known."""
        self.env = SimulationSpaces(
            self.config.num_envs_per_env_runner, self.config.observation_space, self.config.action_space
        )
        self.num_envs = self.env.num_envs
        self._simulation: Any = None
        self._observation: dict[str, Tensor] = {}

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Fragment]:
        """Steps every session and returns one fragment a learner.

        Args:
            num_timesteps: Steps of all sessions together, rounded up; None takes the fragment's length.
            num_episodes: Not to be had: sessions end when they end.
            explore: Draw slates, or take the likeliest; None takes the config's word.
            random_actions: Draw slates at random.
            force_reset: Start new sessions first.

        Raises:
            ValueError: ``num_episodes`` is given.
        """
        if num_episodes is not None:
            raise ValueError(f"sample: expected a number of steps, got num_episodes={num_episodes}.")
        steps = self.config.get_rollout_fragment_length(self.worker_index)
        if num_timesteps is not None:
            steps = -(-num_timesteps // self.num_envs)
        explore = self.config.explore if explore is None else explore
        with self.metrics.log_time(SAMPLE_TIMER), _one_thread(), torch.no_grad():
            if self._simulation is None:
                self._simulation = self.config.env_config["make_simulation"](
                    self.num_envs, self._start_seed()
                )
                force_reset = True
            if force_reset:
                self._observation = self._simulation.reset()
            fragment = self._roll_out(steps, explore, random_actions)
        return fragment.split(max(1, self.config.num_learners))

    def get_metrics(self) -> Any:
        """Metrics since the last call."""
        return self.metrics.reduce()

    def _roll_out(self, num_steps: int, explore: bool, random_actions: bool) -> Fragment:
        columns: dict[str, Tensor] = {}
        finished = []
        candidates = None
        if explore and not random_actions:
            candidates = self.module.draw_candidates(self._on_device())
        for step in range(num_steps):
            slates, log_probs = self._choose(explore, random_actions)
            for name in OBSERVATION_COLUMNS:
                _write(columns, name, step, self._observation[name], num_steps + 1)
            result = self._simulation.step(slates)
            taken = {
                "slates": slates,
                "log_probs": log_probs,
                "rewards": result.rewards,
                "ended": result.ended,
                "leaving": result.leaving,
            }
            for name, values in taken.items():
                _write(columns, name, step, values, num_steps)
            finished.append(result.finished)
            self._observation = self._simulation.observe()
        for name in OBSERVATION_COLUMNS:
            _write(columns, name, num_steps, self._observation[name], num_steps + 1)
        self._report(num_steps * self.num_envs, finished)
        drawn_from = None if candidates is None else Candidates(*(column.cpu() for column in candidates))
        return Fragment({name: column.numpy() for name, column in columns.items()}, drawn_from)

    def _choose(self, explore: bool, random_actions: bool) -> tuple[Tensor, Tensor]:
        simulation = self._simulation
        if random_actions:
            slates = torch.rand(self.num_envs, simulation.num_items).topk(simulation.slate_length).indices
            return slates, torch.zeros(slates.shape)
        forward = self.module.forward_exploration if explore else self.module.forward_inference
        chosen = forward(self._on_device())
        slates = chosen[Columns.ACTIONS]
        return slates, chosen.get(Columns.ACTION_LOGP, torch.zeros(slates.shape))

    def _on_device(self) -> dict[str, Tensor]:
        return {name: values.to(self._device) for name, values in self._observation.items()}

    def _report(self, num_steps: int, finished: list[dict[str, Tensor]]) -> None:
        joined = {name: torch.cat([part[name] for part in finished]) for name in finished[0]}
        num_finished = len(joined["lengths"])
        self._increase_sampled_metrics(num_steps, num_finished)
        self.num_env_steps_sampled_lifetime += num_steps
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        if num_finished == 0:
            return
        returns = joined["returns"]  # [E, K]
        weighted = (returns * joined["task_weights"]).sum(-1).mean()
        self.metrics.log_value(EPISODE_RETURN_MEAN, float(weighted), window=_WINDOW)
        self.metrics.log_value(EPISODE_LEN_MEAN, float(joined["lengths"].float().mean()), window=_WINDOW)
        for name, task_return in zip(self.config.env_config["task_names"], returns.mean(0), strict=True):
            self.metrics.log_value(("task_return", name), float(task_return), window=_WINDOW)

    def _start_seed(self) -> int:
        """A seed that no earlier start of this runner had, though the same run has the same seeds.

        Steps sampled before tell a restored run from a fresh one; a restarted actor knows of nothing before.
        """
        entropy = [self.config.seed or 0, self.worker_index or 0, int(self.num_env_steps_sampled_lifetime)]
        if (self.worker_index or 0) > 0 and ray.get_runtime_context().was_current_actor_reconstructed:
            entropy.append(int.from_bytes(os.urandom(8), "little"))
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _write(columns: dict[str, Tensor], name: str, step: int, values: Tensor, num_steps: int) -> None:
    """Copies a step's values into their column [B, num_steps, ...]: the simulation may reuse its tensors."""
    if name not in columns:
        columns[name] = torch.empty((len(values), num_steps, *values.shape[1:]), dtype=values.dtype)
    columns[name][:, step] = values


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small operations run slower on several threads, far slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
