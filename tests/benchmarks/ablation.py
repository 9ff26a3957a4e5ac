"""What each part of the recipe is worth: PPO in the made-up shop with one thing changed at a time, judged by the truth.

    python -m tests.benchmarks.ablation [--quick] [--seeds 0 1 2] [--sessions 3000] [--only NAME ...] [key=value ...]

Each seed's shop is opened, embedded and fitted once; every variant then clones and trains on it, and is played live.
The last line is one JSON object: each variant's mean true return over the first's, which is the recipe as it is.
"""

import argparse
import json
import logging
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from cluster.connection import connect
from pipelines.artifacts import RunDirectory
from pipelines.config import Config, override_config
from pipelines.dataset import load_session_log
from pipelines.demo import play_live
from pipelines.players import evaluation_sessions
from pipelines.registry import STAGES
from pipelines.shop.logging_policy import make_shop
from pipelines.stages import run_stage
from pipelines.train import train_policy
from rl.players import PolicyPlayer
from rl.tasks import build_tasks
from tests.benchmarks.simulator import fitted_shop

VARIANTS: dict[str, dict[str, object]] = {
    "recipe": {},
    "no clone start": {"rl.clone.learning_rate": 1e-12},  # it never leaves its random weights
    "no price on leaving the clone": {"rl.ppo.kl": 0.0},
    "no pessimism": {"rl.simulator.pessimism": 0.0},
    "one simulator": {"rl.simulator.num_members": 1},
    "entropy bonus stays": {"rl.ppo.final_entropy": 0.01},
    "no entropy bonus": {"rl.ppo.entropy": 0.0, "rl.ppo.final_entropy": 0.0},
    "credit a position": {"rl.ppo.credit": "position"},
    "uncertainty weighting": {"rl.ppo.balance": "uncertainty"},
    "gradnorm": {"rl.ppo.balance": "gradnorm"},
    "pcgrad": {"rl.ppo.balance": "pcgrad"},
    "task weights fixed": {"rl.ppo.weight_concentration": None},
    "lambda 0.95": {"rl.ppo.gae_decay": 0.95},
    "lambda 0": {"rl.ppo.gae_decay": 0.0},
    "four times the rate, 60 rounds": {"rl.ppo.learning_rate": 2e-3, "rl.ppo.num_iterations": 60},
    "dqn": {"rl.algorithm": "dqn"},
}


def true_return(config: Config) -> float:
    """Trains by the config on its run; mean weighted return of the kept policy in the shop's truth."""
    run, tasks = RunDirectory(config.paths.run), build_tasks(config.rl.tasks)
    with connect(config.cluster):
        trained = train_policy(run, config, lambda record: None, None)
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    player = PolicyPlayer(trained.policy, config.rl.slate_length, config.seed)
    return float((play_live(shop, log, sessions, player, config) @ tasks.weights).mean())


def play_variant(base: Config, changes: dict[str, object], folder: Path) -> float:
    """The true return with some settings changed."""
    config = override_config(base, changes)
    if any(name.startswith("rl.simulator.") for name in changes):  # takes one of its own
        copy = folder / "copy"
        shutil.copytree(base.paths.run, copy)
        config = override_config(config, {"paths.run": str(copy)})
        run_stage(STAGES["fit-simulator"], config)
        value = true_return(config)
        shutil.rmtree(copy)
        return value
    return true_return(config)


def main() -> None:
    """Run every variant on every seed, print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, two variants, few rounds: a smoke run"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sessions", type=int, default=3_000)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    options = parser.parse_args()
    names, seeds, overrides = options.only, options.seeds, list(options.overrides)
    if options.quick:
        names, seeds = ["recipe", "no pessimism"], seeds[:1]
        overrides += ["rl.ppo.num_iterations=2", "rl.simulator.num_epochs=1", "rl.clone.num_epochs=1"]
    logging.disable(logging.WARNING)
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            size = [f"shop.num_sessions={options.sessions}", f"shop.num_users={3 * options.sessions // 8}"]
            base = fitted_shop(seed, Path(folder), size + overrides)
            for name in names:
                started = time.monotonic()
                values[name].append(play_variant(base, VARIANTS[name], Path(folder)))
                print(
                    f"seed {seed}  {name:32} {values[name][-1]:6.2f} {time.monotonic() - started:6.0f} s",
                    flush=True,
                )
    first = names[0]
    print(f"\nTrue weighted return a session, {options.sessions:,} logged sessions, seeds {seeds}")
    print(f"{'':32} {'mean':>7} {'least':>7} {'ratio':>7}")
    ratios: dict[str, float] = {}
    for name, found in sorted(values.items(), key=lambda entry: -statistics.mean(entry[1])):
        ratios[name.replace(" ", "_")] = statistics.mean(found) / statistics.mean(values[first])
        print(
            f"{name:32} {statistics.mean(found):7.2f} {min(found):7.2f} {ratios[name.replace(' ', '_')]:7.2f}"
        )
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
