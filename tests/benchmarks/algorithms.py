"""PPO and DQN from the same start, in the same simulation for as many rounds: what each reaches, at what cost.

    python -m tests.benchmarks.algorithms [--quick]

The policy starts blank, so that the algorithms alone are compared, and is judged in the simulation itself, slates drawn
from the whole catalogue. Means over seeds; the last line is one JSON object.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch

from rl.policy.algorithm import actor_state, build_algorithm
from rl.policy.config import DQNSettings, PPOSettings
from tests.benchmarks.rollout import full_return
from tests.benchmarks.rollout_world import SUMMARY_WIDTH, TASKS, OpenEmbeddings, OpenWorld, policy_shape

NUM_ITEMS = 300


def train(dqn: DQNSettings | None, rounds: int, seed: int) -> dict[str, float]:
    """Weighted return a session at the start, at half of the rounds and at the end; CPU seconds; entropy."""
    algorithm = build_algorithm(
        PPOSettings(num_iterations=rounds),
        policy_shape(NUM_ITEMS),
        OpenEmbeddings(NUM_ITEMS),
        OpenWorld(NUM_ITEMS),
        summary_width=SUMMARY_WIDTH,
        task_names=TASKS.names,
        seed=seed,
        dqn=dqn,
    )
    found = {"start": full_return(NUM_ITEMS, actor_state(algorithm)), "cpu_s": 0.0}
    for number in range(1, rounds + 1):
        started = time.process_time()
        result = algorithm.train()
        found["cpu_s"] += time.process_time() - started
        if number == max(1, rounds // 2):
            found["half"] = full_return(NUM_ITEMS, actor_state(algorithm))
    found["end"] = full_return(NUM_ITEMS, actor_state(algorithm))
    found["entropy"] = float(result["learners"]["default_policy"]["entropy"])
    algorithm.stop()
    return found


def main() -> None:
    """Runs and prints."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small and short: a smoke run")
    quick = arguments.parse_args().quick
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    rounds, seeds = (2, (11,)) if quick else (40, (11, 12, 13))
    figures: dict[str, float] = {}
    print(f"{'algorithm':10} {'start':>8} {'half':>8} {'end':>8} {'CPU s':>8} {'entropy':>8}")
    for name, dqn in (("ppo", None), ("dqn", DQNSettings())):
        runs = [train(dqn, rounds, seed) for seed in seeds]
        mean = {what: statistics.mean(run[what] for run in runs) for what in runs[0]}
        figures |= {f"{name}_{what}": value for what, value in mean.items()}
        figures[f"{name}_end_lowest"] = min(run["end"] for run in runs)
        print(
            f"{name:10} {mean['start']:8.3f} {mean['half']:8.3f} {mean['end']:8.3f} {mean['cpu_s']:8.1f} "
            f"{mean['entropy']:8.2f}",
            flush=True,
        )
    figures["dqn_vs_ppo"] = figures["dqn_end"] / figures["ppo_end"]
    ray.shutdown()
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    sys.exit(main())
