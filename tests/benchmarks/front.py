"""One policy for every trade-off between two tasks against one trained for each, judged by the truth of a made-up shop.

    python -m tests.benchmarks.front [--quick] [--config FILE] [--pair view purchase] [--points 11] [key=value ...]

The one policy's sessions train on weights drawn evenly between the two tasks; it is then asked for each of the
points. The others train for one point each, on its weights alone, with as many steps. All start from the same clone
settings and simulator. The hypervolume is the area between the non-dominated returns and the least that the logging
policy or one of the others returns of each task: where tasks are at odds nobody may return more of both than the log.
The last line is one JSON object: ``front_hypervolume``, the one policy's over the others', and ``front_monotone``,
the rank correlation of the second task's weight with its return, the worse of its own and of the first task's.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cluster.connection import connect
from pipelines.artifacts import RunDirectory
from pipelines.config import Config, override_config
from pipelines.dataset import load_session_log
from pipelines.demo import play_live
from pipelines.players import evaluation_sessions
from pipelines.shop.logging_policy import make_shop
from pipelines.shop.truth import LoggingPlayer
from pipelines.train import train_policy
from rl.players import Player, PolicyPlayer
from rl.policy.network import SlatePolicy
from rl.tasks import build_tasks
from tests.benchmarks.simulator import fitted_shop, of_size

Point = NDArray[np.float64]  # returns of the two tasks


def hypervolume(points: list[Point], reference: Point) -> float:
    """Area between the points that no other dominates and the reference; higher returns are better."""
    area, reached = 0.0, reference[1]
    for first, second in sorted((tuple(point) for point in points), reverse=True):
        if first > reference[0] and second > reached:
            area += (first - reference[0]) * (second - reached)
            reached = second
    return float(area)


def at(config: Config, pair: tuple[str, str], share: float) -> Config:
    """The config with the second task's weight at ``share``, the first's at the rest, and no other."""
    weights = dict.fromkeys(config.rl.tasks, 0.0) | {pair[0]: 1 - share, pair[1]: share}
    return override_config(config, {f"rl.tasks.{name}.weight": weight for name, weight in weights.items()})


def train(config: Config) -> SlatePolicy:
    """A policy trained as the config says."""
    with connect(config.cluster):
        return train_policy(RunDirectory(config.paths.run), config, lambda look, kept: None, None).policy


def for_all(config: Config) -> Config:
    """The config with every session's task weights drawn widely, and each session's advantages in their own scale."""
    return override_config(
        config,
        {
            # Of Dirichlet draws around two equal weights, those at this concentration are even between the two.
            "rl.ppo.weight_concentration": 2 / len(config.rl.tasks),
            "rl.ppo.weight_draw_share": 1.0,
            "rl.ppo.scale": "session",
            "rl.tilt.num_generations": 0,  # a tilt is for one trade-off
        },
    )


def for_one(config: Config) -> Config:
    """The config with the task weights of every session its own."""
    return override_config(config, {"rl.ppo.weight_draw_share": 0.0})


def play_point(config: Config, pair: tuple[str, str], player: Player) -> Point:
    """Mean true returns of the two tasks, the player being asked for the config's weights."""
    run, shop = RunDirectory(config.paths.run), make_shop(config.shop, config.seed)
    log = load_session_log(run, config)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    index = build_tasks(config.rl.tasks).index
    returns = play_live(shop, log, sessions, player, config).mean(0, dtype=np.float64)
    return np.array([returns[index[name]] for name in pair])


def fronts(
    config: Config, pair: tuple[str, str], shares: NDArray[np.float64]
) -> tuple[list[Point], list[Point], Point]:
    """Points of the one policy, of those trained apart, and the logging policy's."""
    length, seed = config.rl.slate_length, config.seed
    middle = at(config, pair, 0.5)
    started = time.monotonic()
    one = train(for_all(middle))
    print(f"one policy: {time.monotonic() - started:.0f} s", flush=True)
    together, apart = [], []
    for share in shares:
        asked = at(config, pair, float(share))
        started = time.monotonic()
        together.append(play_point(asked, pair, PolicyPlayer(one, length, seed)))
        apart.append(play_point(asked, pair, PolicyPlayer(train(for_one(asked)), length, seed)))
        cells = "".join(f"{value:9.2f}" for value in (*together[-1], *apart[-1]))
        print(f"{pair[1]} {share:4.2f}{cells} {time.monotonic() - started:6.0f} s", flush=True)
    reference = play_point(
        middle, pair, LoggingPlayer(make_shop(config.shop, seed), config.shop.slate_length, seed)
    )
    return together, apart, reference


def main() -> None:
    """Train, play, print the table and the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three points, few rounds: a smoke run")
    parser.add_argument("--config", help="settings of another made-up world, as clothes.yaml")
    parser.add_argument("--pair", nargs=2, default=("view", "purchase"), help="the two tasks")
    parser.add_argument("--points", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sessions", type=int, default=3_000)
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    options = parser.parse_args()
    overrides = [*of_size(options.sessions), *options.overrides]
    if options.quick:
        overrides += ["rl.ppo.num_iterations=2", "rl.simulator.num_epochs=1", "rl.clone.num_epochs=1"]
    logging.disable(logging.WARNING)
    pair = (options.pair[0], options.pair[1])
    shares = np.linspace(0, 1, 3 if options.quick else options.points)
    with tempfile.TemporaryDirectory() as folder:
        config = fitted_shop(options.seed, Path(folder), overrides, options.config)
        together, apart, reference = fronts(config, pair, shares)
    print(
        f"\nTrue returns a session of {pair[0]} and {pair[1]}; the logging policy's are {reference.round(2)}"
    )
    print(f"{'weight':>8}{'one policy':>20}{'trained apart':>20}")
    for share, own_point, other in zip(shares, together, apart, strict=True):
        print(f"{share:8.2f}{own_point[0]:10.2f}{own_point[1]:10.2f}{other[0]:10.2f}{other[1]:10.2f}")
    ranks = [-1, 1] * spearmanr(np.column_stack([shares, np.array(together)])).statistic[0, 1:]
    least = np.minimum(reference, np.min(apart, 0))
    area = hypervolume(apart, least)
    if not area:
        print("Those trained apart span no area: each returns the least of one of the tasks.")
    figures = {
        "front_hypervolume": round(hypervolume(together, least) / area, 4) if area else None,
        "front_monotone": round(float(ranks.min()), 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
