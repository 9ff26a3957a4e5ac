"""Rates of sampling and learning: ours, RLlib as it comes, a single-file PPO loop, and stable-baselines3.

    python -m tests.benchmarks.rollout [--quick]

All routes step the same simulation and train the same networks with as many rows a round, minibatches and epochs
(the defaults of ``rl.ppo``); only ours replaces a large catalogue by candidates. Rates are rounds' steps per second of
the process's CPU time on one torch thread, routes take turns round by round, and the median round counts. The last
line is one JSON object of figures; ratios are ours over the rival's.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch

from rl.players import PolicyPlayer, play
from rl.policy.algorithm import actor_state, build_algorithm
from rl.policy.config import PPOSettings
from rl.policy.network import SlatePolicy
from tests.benchmarks.rollout_loop import Loop
from tests.benchmarks.rollout_rllib import build_stock
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

SMALL, LARGE, HUGE = 1_000, 10_000, 100_000
STOCK = "rllib, 64 environments"
ONE_BY_ONE = "rllib, 64 one by one"


@dataclass
class Route:
    """A way to train: a round is ``sample`` and then ``learn`` on what it gave."""

    name: str
    num_items: int
    sample: Callable[[], Any]
    learn: Callable[[Any], Any]
    close: Callable[[], None] = lambda: None
    seconds: list[tuple[float, float]] = field(default_factory=list)  # CPU seconds of sampling, of learning

    def round(self, measure: bool) -> None:
        """One round."""
        started = time.process_time()
        batch = self.sample()
        sampled = time.process_time()
        self.learn(batch)
        if measure:
            self.seconds.append((sampled - started, time.process_time() - sampled))

    def rates(self, steps: int) -> tuple[float, float, float]:
        """Steps a CPU-second: sampled, learned, both."""
        sampling = statistics.median(s for s, _ in self.seconds)
        learning = statistics.median(s for _, s in self.seconds)
        return steps / sampling, steps / learning, steps / statistics.median(map(sum, self.seconds))


def rllib_route(name: str, num_items: int, algorithm: Any) -> Route:
    """Sampling and learning of an RLlib algorithm, with all that ``train()`` does around them."""
    marks: list[float] = []
    update = algorithm.learner_group.update

    def marked_update(*args: Any, **kwargs: Any) -> Any:
        marks.append(time.process_time())
        return update(*args, **kwargs)

    algorithm.learner_group.update = marked_update
    route = Route(name, num_items, algorithm.train, lambda _: None, algorithm.stop)

    def whole_round(measure: bool) -> None:
        started = time.process_time()
        algorithm.train()
        if measure:
            route.seconds.append((marks[-1] - started, time.process_time() - marks[-1]))

    route.round = whole_round  # type: ignore[method-assign]
    return route


def build_ours(num_items: int, settings: PPOSettings, seed: int = 0) -> Any:
    """The product's algorithm."""
    return build_algorithm(
        settings,
        policy_shape(num_items),
        OpenEmbeddings(num_items),
        OpenWorld(num_items),
        summary_width=SUMMARY_WIDTH,
        task_names=TASKS.names,
        seed=seed,
    )


def make_routes(num_items: int, settings: PPOSettings) -> list[Route]:
    """Those that are compared at this catalogue size."""
    routes = [rllib_route("ours", num_items, build_ours(num_items, settings))]
    if num_items <= LARGE:
        loop = Loop(num_items, settings, seed=0)
        routes.append(Route("loop", num_items, loop.sample, loop.learn))
    if num_items == SMALL:
        from tests.benchmarks.rollout_sb3 import Baseline

        for num_envs in (64, settings.num_sessions):
            stock = build_stock(num_items, num_envs, settings, together=True)
            routes.append(rllib_route(f"rllib, {num_envs} environments", num_items, stock))
        stock = build_stock(num_items, 64, settings, together=False)
        routes.append(rllib_route(ONE_BY_ONE, num_items, stock))
        baseline = Baseline(num_items, settings)
        routes.append(Route("stable-baselines3", num_items, baseline.sample, lambda _: baseline.learn()))
    return routes


def measure(routes: list[Route], rounds: int) -> None:
    """Rounds in turn, after one that warms up."""
    for number in range(rounds + 1):
        for route in routes:
            route.round(measure=number > 0)


@torch.no_grad()
def full_return(num_items: int, actor: dict[str, torch.Tensor], sessions: int = 300) -> float:
    """Weighted return a session of a policy that draws from the whole catalogue, in the simulation."""
    policy = SlatePolicy(policy_shape(num_items), item_embeddings(num_items))
    policy.load_state_dict(actor)
    world = OpenWorld(num_items)(sessions, 77)
    weights = torch.from_numpy(TASKS.weights).expand(sessions, -1)
    features = world.ensemble.members[0].item_features
    past = world.trace.past
    returns, _ = play(
        world.sessions,
        PolicyPlayer(policy, SLATE_LENGTH, 5),
        past,
        weights,
        features,
        len(TASKS),
        HISTORY_LENGTH,
        world.ensemble.max_steps,
    )
    return float((returns * weights).sum(-1).mean())


def learning_curve(num_items: int, rounds: int, **changes: Any) -> list[float]:
    """Returns over the whole catalogue before training and at its quarters."""
    settings = PPOSettings(num_iterations=rounds, **changes)
    algorithm = build_ours(num_items, settings, seed=3)
    curve = [full_return(num_items, actor_state(algorithm))]
    for number in range(1, rounds + 1):
        algorithm.train()
        if number % max(1, rounds // 4) == 0:
            curve.append(full_return(num_items, actor_state(algorithm)))
    algorithm.stop()
    return curve


def peak_memory_bytes() -> float:
    """Resident now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) * 1024
    return float("nan")


def main() -> None:
    """Prints the table and the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small and short: a smoke run")
    quick = arguments.parse_args().quick
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    figures = run(quick)
    ray.shutdown()
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def run(quick: bool) -> dict[str, float]:
    """Every size in turn; prints the table, returns the figures."""
    settings = PPOSettings(**({"num_sessions": 64, "fragment_steps": 4} if quick else {}))
    steps = settings.num_sessions * settings.fragment_steps
    figures: dict[str, float] = {}
    ends: dict[tuple[str, int], tuple[float, float, float]] = {}
    print(f"{'route':28} {'items':>8} {'sampled':>9} {'learned':>9} {'both':>9}   steps a CPU-second")
    for num_items in (SMALL, LARGE) if quick else (SMALL, LARGE, HUGE):
        before = peak_memory_bytes()
        routes = make_routes(num_items, settings)
        measure(routes, 1 if quick else 6)
        for route in routes:
            ends[route.name, num_items] = rates = route.rates(steps)
            print(
                f"{route.name:28} {num_items:>8} " + " ".join(f"{rate:>9,.0f}" for rate in rates), flush=True
            )
            key = route.name.replace(", ", "_").replace("-", "_").replace(" ", "_")
            for what, rate in zip(("sampled", "learned", "steps"), rates, strict=True):
                figures[f"{key}_{what}_per_cpu_s_{num_items}"] = rate
        figures[f"memory_growth_bytes_{num_items}"] = peak_memory_bytes() - before
        for route in routes:
            route.close()
        del routes
    ours = {size: ends["ours", size] for name, size in ends if name == "ours"}
    stock, one_by_one = ends[STOCK, SMALL], ends[ONE_BY_ONE, SMALL]
    figures |= {
        "sample_vs_rllib_1000": ours[SMALL][0] / stock[0],
        "train_vs_rllib_1000": ours[SMALL][2] / stock[2],
        "sample_vs_rllib_one_by_one_1000": ours[SMALL][0] / one_by_one[0],
        "train_vs_rllib_one_by_one_1000": ours[SMALL][2] / one_by_one[2],
        "train_vs_sb3_1000": ours[SMALL][2] / ends["stable-baselines3", SMALL][2],
        "train_vs_loop_1000": ours[SMALL][2] / ends["loop", SMALL][2],
        "train_vs_loop_10000": ours[LARGE][2] / ends["loop", LARGE][2],
    }
    if not quick:
        figures["train_100000_vs_1000"] = ours[HUGE][2] / ours[SMALL][2]
    return figures | curves(quick)


def curves(quick: bool) -> dict[str, float]:
    """What candidates cost in what is learned: returns over the whole catalogue of 10,000 items."""
    rounds = 2 if quick else 24
    whole = learning_curve(LARGE, rounds, num_candidates=LARGE)
    part = learning_curve(LARGE, rounds)
    for name, curve in (("whole catalogue", whole), ("candidates", part)):
        print(f"return at {LARGE} items, {name:16}" + " ".join(f"{value:7.3f}" for value in curve))
    gain = (part[-1] - part[0]) / max(whole[-1] - whole[0], 1e-9)
    return {
        "return_candidates_10000": part[-1],
        "return_whole_10000": whole[-1],
        "gain_candidates_vs_whole": gain,
    }


if __name__ == "__main__":
    sys.exit(main())
