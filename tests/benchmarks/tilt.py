"""What a tilt of the clone alone is worth: made-up worlds, true returns, no PPO.

``python -m tests.benchmarks.tilt [--config reader.yaml] [--seeds 0 1 2] [key=value ...]`` fits the simulator on 3,000
logged sessions, searches a tilt in it (``rl.tilt``), and plays the clone and the tilted clone in the simulator and in
truth, beside the one-step oracle that sees every hidden state. Figures: ``tilt_vs_clone``, ``tilt_vs_myopic_oracle``.
"""

import json
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import load_session_log, load_simulator
from pipelines.demo import play_live, play_oracle
from pipelines.players import evaluation_sessions
from pipelines.shop.logging_policy import make_shop
from pipelines.train import make_clone
from rl.players import PolicyPlayer, play_simulated
from rl.tasks import build_tasks
from rl.tilt import tilt_clone
from tests.benchmarks.simulator import fitted_shop, of_size, world_parser


def measure(config: Config) -> dict[str, float]:
    """True and simulated weighted returns of clone and tilt, the oracle's true one, and the search's seconds."""
    run, tasks = RunDirectory(config.paths.run), build_tasks(config.rl.tasks)
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    past = torch.from_numpy(log.past[sessions])
    clone, ensemble = make_clone(run, config, log, tasks), load_simulator(run, config, "train")
    started = time.monotonic()
    users = torch.from_numpy(log.past[log.sessions("train")])
    tilted = tilt_clone(clone, ensemble, users, config.rl.tilt, config.seed)
    found = {"seconds": time.monotonic() - started}
    no_plan = (0.0,) * len(shop.world.plans[0])
    found["oracle"] = float((play_oracle(shop, log, sessions, config, no_plan) @ tasks.weights).mean())
    for name, policy in (("clone", clone), ("tilt", tilted or clone)):
        player = PolicyPlayer(policy, config.rl.slate_length, config.seed)
        found[name] = float((play_live(shop, log, sessions, player, config) @ tasks.weights).mean())
        simulated, _ = play_simulated(
            replace(ensemble, pessimism=0.0),
            player,
            past,
            torch.from_numpy(tasks.weights),
            config.rl.history_length,
            torch.Generator().manual_seed(config.seed),
        )
        found[f"{name} simulated"] = float((simulated.numpy() @ tasks.weights).mean())
    return found


def main() -> None:
    """Run the seeds, print the table and the ratios."""
    options = world_parser(__doc__ or "", [0, 1, 2]).parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    size = of_size(options.sessions)
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(fitted_shop(seed, Path(folder), size + options.overrides, options.config)))
        print(
            f"seed {seed}  " + "  ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()),
            flush=True,
        )
    figures = {
        f"tilt_vs_{name}": sum(row["tilt"] / row[rival] for row in rows) / len(rows)
        for name, rival in (("clone", "clone"), ("myopic_oracle", "oracle"))
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
