"""The held-out simulator's word on a policy under training."""

import copy
from dataclasses import replace

import torch

from encoders.sessions import SessionLog
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import load_simulator
from pipelines.players import evaluation_sessions
from rl.players import Player, PolicyPlayer, play_simulated
from rl.policy.network import SlatePolicy
from rl.simulator.simulation import Ensemble

Record = dict[str, float]


class HeldOutJudge:
    """Plays a policy in the held-out simulator, always from the same validation sessions and dice."""

    def __init__(self, run: RunDirectory, config: Config, log: SessionLog) -> None:
        self.ensemble = replace(load_simulator(run, config, "heldout"), pessimism=0.0)
        self.config = config
        sessions = log.sessions("validation")[: config.rl.ppo.num_judge_sessions]
        if not len(sessions):
            sessions = evaluation_sessions(log, config.rl.ppo.num_judge_sessions)
        self.past = torch.from_numpy(log.past[sessions])

    def within(self, ensemble: Ensemble) -> "HeldOutJudge":
        """The same sessions and dice in another simulator."""
        other = copy.copy(self)
        other.ensemble = replace(ensemble, pessimism=0.0)
        return other

    def __call__(self, policy: SlatePolicy) -> Record:
        """``play`` of the policy as it serves."""
        return self.play(PolicyPlayer(policy, self.config.rl.slate_length, self.config.seed))

    def play(self, player: Player) -> Record:
        """Mean signed returns, ``held_out/weighted`` with its standard error ``held_out/error``, and by task.

        ``held_out/excess`` is how far costs are above their limits, as shares of these, in all.
        """
        tasks = self.ensemble.tasks
        generator = torch.Generator().manual_seed(self.config.seed)
        weights = torch.from_numpy(tasks.weights)
        returns, lengths = play_simulated(
            self.ensemble, player, self.past, weights, self.config.rl.history_length, generator
        )
        mean = returns.mean(0)
        weighted = returns @ weights
        error = float(weighted.std(correction=0)) / len(weighted) ** 0.5
        record = {"held_out/weighted": float(weighted.mean()), "held_out/error": error}
        excess = torch.clamp(-mean / torch.from_numpy(tasks.limits) - 1, min=0).sum()
        record["held_out/excess"] = float(excess)
        record |= {f"held_out/{name}": float(mean[k]) for k, name in enumerate(tasks.names)}
        return record | {"held_out/length": float(lengths.float().mean())}
