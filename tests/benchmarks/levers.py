"""What diversity and exposure limits cost, as a task in training and as re-ranking afterwards.

    python -m tests.benchmarks.levers [--quick]

One simulation, one recipe. Policies trained with a lever draw their slates, as in service, and are compared with the
policy without levers that draws them too; its best slates, re-ranked, are compared with its best slates. A price is the
share of the weighted return that is lost. Diversity is a slate's mean distance to the nearest item above, exposure the
limited group's share of the shown items. The last line is one JSON object.
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch
from torch import Tensor

from rl.levers import LeversConfig
from rl.players import Player, PolicyPlayer, RerankedPlayer, play_simulated
from rl.policy.algorithm import actor_state, build_algorithm, set_clone
from rl.policy.config import PPOSettings
from rl.policy.lever_heads import fold, widen
from rl.policy.network import SlatePolicy
from rl.simulator.levered import LeveredSimulation, slate_diversity
from tests.benchmarks.rollout_world import (
    HISTORY_LENGTH,
    SLATE_LENGTH,
    SUMMARY_WIDTH,
    TASKS,
    OpenEmbeddings,
    OpenWorld,
    item_embeddings,
    policy_shape,
)

NUM_ITEMS = 300
LIMIT = 0.4
LIMITED = "large"


def item_groups() -> list[str | None]:
    """The better half of the catalogue, by what the simulation pays on average, belongs to one large seller."""
    world = OpenWorld(NUM_ITEMS)(200, 1)
    weights = torch.from_numpy(TASKS.weights).expand(200, -1)
    worth = world.sessions.shelf_rewards(weights).mean(0)
    return [LIMITED if good else None for good in (worth > worth.median()).tolist()]


@dataclass(frozen=True)
class OpenLevered:
    """Opens the simulation with its levers; picklable."""

    levers: LeversConfig
    groups: tuple[str | None, ...]

    def __call__(self, num_sessions: int, seed: int) -> object:
        simulation = OpenWorld(NUM_ITEMS)(num_sessions, seed)
        if not self.levers.in_training:
            return simulation
        return LeveredSimulation(simulation, self.levers, item_embeddings(NUM_ITEMS), self.groups)


def train(levers: LeversConfig, groups: tuple[str | None, ...], rounds: int) -> SlatePolicy:
    """A policy with the tasks' heads alone, the levers folded in."""
    shape = policy_shape(NUM_ITEMS)
    torch.manual_seed(0)
    policy = SlatePolicy(shape, item_embeddings(NUM_ITEMS))
    start, wide = widen(policy.state_dict(), shape, len(levers.tasks))
    algorithm = build_algorithm(
        PPOSettings(num_iterations=rounds),
        wide,
        OpenEmbeddings(NUM_ITEMS),
        OpenLevered(levers, groups),
        summary_width=SUMMARY_WIDTH,
        task_names=(*TASKS.names, *levers.tasks),
        seed=1,
    )
    set_clone(algorithm, start)
    for _ in range(rounds):
        algorithm.train()
    policy.load_state_dict(fold(actor_state(algorithm), shape, torch.tensor(list(levers.tasks.values()))))
    algorithm.stop()
    return policy.eval().requires_grad_(False)


class Recorded:
    """A player whose slates are kept."""

    def __init__(self, player: Player) -> None:
        self.player, self.slates = player, []

    def start(self, past: Tensor) -> None:
        self.player.start(past)

    def choose(self, observation: dict[str, Tensor]) -> Tensor:
        self.slates.append(self.player.choose(observation))
        return self.slates[-1]

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        self.player.watch(slates, responses)

    def keep(self, rows: Tensor) -> None:
        self.player.keep(rows)


def judge(player: Player, groups: tuple[str | None, ...], sessions: int) -> dict[str, float]:
    """Weighted return, diversity and the group's exposure of a player, always in the same sessions."""
    world = OpenWorld(NUM_ITEMS)(sessions, 9)
    recorded = Recorded(player)
    weights = torch.from_numpy(TASKS.weights)
    dice = torch.Generator().manual_seed(4)
    returns, _ = play_simulated(world.ensemble, recorded, world.trace.past, weights, HISTORY_LENGTH, dice)
    slates = torch.cat(recorded.slates)
    vectors = torch.nn.functional.normalize(item_embeddings(NUM_ITEMS), dim=-1)
    limited = torch.tensor([group == LIMITED for group in groups])
    return {
        "return": float((returns @ weights).mean()),
        "diversity": float(slate_diversity(vectors, slates).sum(-1).mean()),
        "exposure": float(limited[slates].float().mean()),
    }


def run(quick: bool) -> dict[str, float]:
    """Prints the table, returns the figures."""
    rounds, sessions = (2, 40) if quick else (25, 400)
    groups = tuple(item_groups())
    index = torch.tensor([0 if group == LIMITED else -1 for group in groups])
    limits = torch.tensor([LIMIT])
    plain = train(LeversConfig(), groups, rounds)
    diverse = train(LeversConfig(diversity=0.5), groups, rounds)
    fair = train(LeversConfig(exposure_limits={LIMITED: LIMIT}), groups, rounds)
    drawn = {"no_lever": plain, "trained_diversity": diverse, "trained_exposure": fair}
    best = {
        "best_no_lever": (0.0, None),
        "best_diversity_05": (0.05, None),
        "best_diversity_20": (0.2, None),
        "best_exposure": (0.0, limits),
    }
    players: dict[str, Player] = {
        name: PolicyPlayer(policy, SLATE_LENGTH, 1) for name, policy in drawn.items()
    }
    for name, (allowed, limit) in best.items():
        players[name] = RerankedPlayer(plain, SLATE_LENGTH, allowed, None if limit is None else index, limit)
    figures: dict[str, float] = {"exposure_limit": LIMIT}
    print(
        f"{'policy':20} {'return':>8} {'price':>7} {'diversity':>10} {'exposure':>9} {'largest loss of a slate':>24}"
    )
    for name, player in players.items():
        found = judge(player, groups, sessions)
        base = "best_no_lever" if name in best else "no_lever"
        found["price"] = 1 - found["return"] / figures.get(f"{base}_return", found["return"])
        figures |= {f"{name}_{what}": value for what, value in found.items()}
        stated = ""
        if isinstance(player, RerankedPlayer):
            figures[f"{name}_largest_loss"] = float(torch.cat(player.losses).sum(-1).max())
            stated = f"{figures[f'{name}_largest_loss']:24.1%}"
        print(
            f"{name:20} {found['return']:8.3f} {found['price']:7.1%} {found['diversity']:10.3f} "
            f"{found['exposure']:9.1%} {stated}",
            flush=True,
        )
    return figures


def main() -> None:
    """Runs and prints."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small and short: a smoke run")
    quick = arguments.parse_args().quick
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    figures = run(quick)
    ray.shutdown()
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    sys.exit(main())
