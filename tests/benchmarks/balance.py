"""Does a task drown beside others? PPO with each way of balancing tasks, in made-up shops that make it hard.

    python -m tests.benchmarks.balance [--quick] [--seeds 0] [--shops rare ...] [--methods fixed ...] [key=value ...]

Three shops: one whose purchases come back, so that two tasks are at odds; one where a purchase is a hundred times
rarer than a view; one where it pays a hundred times more. Each is opened, embedded and fitted once a seed; every method
then trains on it and is played live. A wanted task has collapsed where it returns less than under the logging policy.
The last line is one JSON object: by shop and method the weighted return over that of fixed weights, and the least
return of a wanted task over the logging policy's.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

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
from rl.policy.config import Balance
from rl.tasks import build_tasks
from tests.benchmarks.simulator import fitted_shop, of_size

LOGGING = "logging"
SHOPS: dict[str, tuple[str | None, list[str]]] = {
    "at odds": ("clothes.yaml", []),
    "rare": (None, ["shop.rarity=6"]),  # a logged purchase then comes on a hundred views
    "large": (None, ["shop.price_scale=3.2", "rl.tasks.purchase.pays=value"]),  # a hundred on average
}


def task_returns(config: Config, methods: list[str]) -> dict[str, NDArray[np.float64]]:
    """Mean true return of each task under the logging policy and each method's policy. [K]."""
    run, shop = RunDirectory(config.paths.run), make_shop(config.shop, config.seed)
    log = load_session_log(run, config)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)

    def value(player: Player) -> NDArray[np.float64]:
        return play_live(shop, log, sessions, player, config).mean(0, dtype=np.float64)

    out = {LOGGING: value(LoggingPlayer(shop, config.shop.slate_length, config.seed))}
    for method in methods:
        started = time.monotonic()
        changed = override_config(config, {"rl.ppo.balance": method, "rl.tilt.num_generations": 0})
        with connect(config.cluster):
            trained = train_policy(run, changed, lambda look, kept: None, None)
        out[method] = value(PolicyPlayer(trained.policy, config.rl.slate_length, config.seed))
        print(f"    {method:12}{np.round(out[method], 2)} {time.monotonic() - started:6.0f} s", flush=True)
    return out


def judge(config: Config, returns: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Each policy's weighted return, and its least wanted task's return over the logging policy's."""
    tasks = build_tasks(config.rl.tasks)
    wanted = (tasks.signs > 0) & (tasks.weights > 0)
    least = {name: float((value / returns[LOGGING])[wanted].min()) for name, value in returns.items()}
    return {
        name: {"weighted": float(value @ tasks.weights), "least": least[name]}
        for name, value in returns.items()
    }


def main() -> None:
    """Run every method in every shop, print a table each and the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: a smoke run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sessions", type=int, default=3_000)
    parser.add_argument("--shops", nargs="+", choices=SHOPS, default=list(SHOPS))
    parser.add_argument("--methods", nargs="+", choices=get_args(Balance), default=list(get_args(Balance)))
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    options = parser.parse_args()
    overrides = [*of_size(options.sessions), *options.overrides]
    if options.quick:
        overrides += ["rl.ppo.num_iterations=2", "rl.simulator.num_epochs=1", "rl.clone.num_epochs=1"]
    logging.disable(logging.WARNING)
    figures: dict[str, float] = {}
    for shop in options.shops:
        file, changes = SHOPS[shop]
        values: dict[str, list[NDArray[np.float64]]] = {}
        for seed in options.seeds:
            print(f"{shop}, seed {seed}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                config = fitted_shop(seed, Path(folder), [*changes, *overrides], file)
                for name, value in task_returns(config, options.methods).items():
                    values.setdefault(name, []).append(value)
        returns = {name: np.mean(found, 0) for name, found in values.items()}
        judged = judge(config, returns)
        names = build_tasks(config.rl.tasks).names
        print(f"\n{shop}: true return a session, {options.sessions:,} logged sessions, seeds {options.seeds}")
        print(
            f"{'':12}{'weighted':>10}"
            + "".join(f"{name:>10}" for name in names)
            + f"{'least task over logging':>26}"
        )
        for name, value in returns.items():
            cells = "".join(f"{cell:>10.2f}" for cell in value)
            print(f"{name:12}{judged[name]['weighted']:>10.2f}{cells}{judged[name]['least']:>26.2f}")
        print(flush=True)
        for name in options.methods:
            key = f"{shop.replace(' ', '_')}_{name}"
            figures[f"{key}_vs_{options.methods[0]}"] = (
                judged[name]["weighted"] / judged[options.methods[0]]["weighted"]
            )
            figures[f"{key}_least_task"] = judged[name]["least"]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
