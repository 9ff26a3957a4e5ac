"""A sweep with a made-up training, as a process that a test can kill: ``python -m ... RUN_DIRECTORY``."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.artifacts import RunDirectory
from pipelines.config import Config, build_config
from pipelines.stages import StageContext
from pipelines.sweep import sweep

NUM_TRIALS = 4
NUM_BEFORE_KILL = 2


def train(
    run: RunDirectory,
    config: Config,
    on_look: Callable[[dict[str, float], dict[str, float]], None],
    folder: None,
) -> None:
    """Keeps the first look, as returns fall after it; trials after the second wait for a file named go."""
    started = Path(run.join("started"))
    weights = {name: task.weight for name, task in config.rl.tasks.items()}
    with started.open("a") as stream:
        stream.write(f"{weights['view']!r}\n")
    while len(started.read_text().splitlines()) > NUM_BEFORE_KILL and not Path(run.join("go")).exists():
        time.sleep(0.05)
    looks = []
    for iteration, height in ((2, 1.0), (4, 0.5)):
        held_out = {f"held_out/{name}": height * weight for name, weight in weights.items()}
        looks.append(
            {"iteration": float(iteration), "held_out/weighted": height, "held_out/excess": 0.0, **held_out}
        )
        on_look(looks[-1], looks[0])


def sweep_config(run: str) -> Config:
    """Four trials, one at a time; the base weights are 1/4 and 3/4."""
    return build_config(
        {
            "paths": {"run": run},
            "cluster": {"num_cpus": 2},
            "rl": {
                "tasks": {"view": {"weight": 1}, "purchase": {"weight": 3}},
                "ppo": {"num_iterations": 4},
                "sweep": {"num_trials": NUM_TRIALS, "scheduler": "random", "concurrent_trials": 1},
            },
        }
    )


if __name__ == "__main__":
    directory = RunDirectory(sys.argv[1])
    partial = directory.partial("sweep", "0123456789abcdef")
    sweep(StageContext(config=sweep_config(sys.argv[1]), run=directory, folder=partial), train)
