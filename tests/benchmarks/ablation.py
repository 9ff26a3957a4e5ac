"""What each part of the recipe is worth: PPO in the made-up shop with one thing changed at a time, judged by the truth.

    python -m tests.benchmarks.ablation [key=value ...] [--quick] [--seeds 0 1 2] [--sessions 3000] [--only NAME ...]
        [--config school.yaml]

Each seed's shop is opened, embedded and fitted once; every variant then clones and trains on it, and is played live.
The last line is one JSON object: each variant's mean true return over the first's, which is the recipe as it is but
for trainings: one, not several side by side.
"""

import json
import logging
import shutil
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

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
from rl.policy.advantage import clipped_objective, generalised_advantages
from rl.policy.config import PPOSettings
from rl.policy.connector import build_train_batch, weigh_advantages
from rl.policy.fragments import Fragment
from rl.tasks import build_tasks
from tests.benchmarks.live_simulation import open_live
from tests.benchmarks.simulator import fitted_shop, of_size, world_parser

VARIANTS: dict[str, dict[str, object]] = {
    "recipe": {},
    "mean of four trainings": {"rl.ppo.num_seeds": 4},
    "as varied as trained": {"rl.temperature": 1.0},
    "no way back to the clone": {"rl.clone_share": 0.0},
    "no clone start": {"rl.clone.learning_rate": 1e-12},  # it never leaves its random weights
    "a tilt as a rival": {"rl.tilt.num_generations": 15},
    "no price on leaving the clone": {"rl.ppo.kl": 0.0},
    "no pessimism": {"rl.simulator.pessimism": 0.0},
    "one simulator": {"rl.simulator.num_members": 1},
    "entropy bonus stays": {"rl.ppo.final_entropy": 0.1},
    "half of the entropy bonus": {"rl.ppo.entropy": 0.05, "rl.ppo.final_entropy": 0.001},
    "a fifth of the entropy bonus": {"rl.ppo.entropy": 0.02, "rl.ppo.final_entropy": 0.0004},
    "twice the entropy bonus, lambda 0.98": {
        "rl.ppo.entropy": 0.2,
        "rl.ppo.final_entropy": 0.004,
        "rl.ppo.gae_decay": 0.98,
    },
    "no entropy bonus": {"rl.ppo.entropy": 0.0, "rl.ppo.final_entropy": 0.0},
    "credit a position": {"rl.ppo.credit": "position"},
    "uncertainty weighting": {"rl.ppo.balance": "uncertainty"},
    "gradnorm": {"rl.ppo.balance": "gradnorm"},
    "pcgrad": {"rl.ppo.balance": "pcgrad"},
    "task weights fixed": {"rl.ppo.weight_draw_share": 0.0},
    "the highest look is kept": {"rl.ppo.judge_tolerance": 0.0},
    "no early stop": {
        "rl.ppo.judge_tolerance": 1.0,
        "rl.ppo.judge_patience": 9_999,
        "rl.ppo.exploit_drop": 1e9,
    },
    "a scale for each session": {"rl.ppo.scale": "session"},
    "lambda 0.8": {"rl.ppo.gae_decay": 0.8},
    "lambda 0": {"rl.ppo.gae_decay": 0.0},
    "four times the rate, 60 rounds": {"rl.ppo.learning_rate": 2e-3, "rl.ppo.num_iterations": 60},
    "dqn": {"rl.algorithm": "dqn"},
}


def slate_objective(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped objective with one ratio for the whole slate, shared out over its positions. [M, L]."""
    length = log_ratio.shape[-1]
    whole = clipped_objective(log_ratio.sum(-1, keepdim=True), advantages[..., :1], clip_range)
    return whole.expand(-1, length) / length


def with_luck(
    rewards: Tensor, values: Tensor, ended: Tensor, leaving: Tensor, discount: float, decay: float
) -> Tensor:
    """Advantages as if nobody knew the chance of leaving."""
    return generalised_advantages(rewards, values, ended, ended.to(leaving.dtype), discount, decay)


def sum_rewards(fragment: Fragment) -> Fragment:
    """A fragment whose first task pays the weighted sum of all, and the others nothing."""
    columns = dict(fragment.columns)
    weights = columns["task_weights"][:, :-1, None]  # [B, S, 1, K]
    summed = np.zeros_like(columns["rewards"])
    summed[..., 0] = (columns["rewards"] * weights).sum(-1)
    return Fragment(columns | {"rewards": summed}, fragment.candidates)


def batch_of_sums(module: Any, fragments: list[Fragment], settings: PPOSettings) -> dict[str, Tensor]:
    """The train batch of one critic that knows only the weighted sum."""

    def unweighted(
        advantages: Tensor, rewards: Tensor, expected: Tensor, weights: Tensor, own: Any
    ) -> Tensor:
        return weigh_advantages(advantages, rewards, expected, torch.ones_like(weights), own)

    with patch("rl.policy.connector.weigh_advantages", unweighted):
        return build_train_batch(module, [sum_rewards(fragment) for fragment in fragments], settings)


# What is no setting, because it never paid: put in place of the product's own while the variant trains.
PATCHES: dict[str, tuple[str, Any]] = {
    "one ratio a slate": ("rl.policy.learner.clipped_objective", slate_objective),
    "one critic of the summed reward": ("rl.policy.connector.build_train_batch", batch_of_sums),
    "luck of who leaves stays": ("rl.policy.connector.generalised_advantages", with_luck),
    "trained in the shop itself": ("pipelines.openers.OpenSimulation.__call__", open_live),
    "no PopArt": ("rl.policy.critic.NormalisedHead.track", lambda head, targets: None),
}
VARIANTS |= {name: {} for name in PATCHES}


def true_return(config: Config) -> float:
    """Trains by the config on its run; mean weighted return of the kept policy in the shop's truth."""
    run, tasks = RunDirectory(config.paths.run), build_tasks(config.rl.tasks)
    with connect(config.cluster):
        trained = train_policy(run, config, lambda look, kept: None, None)
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    player = PolicyPlayer(trained.policy, config.rl.slate_length, config.seed)
    return float((play_live(shop, log, sessions, player, config) @ tasks.weights).mean())


def play_variant(base: Config, changes: dict[str, object], folder: Path) -> float:
    """The true return of one training with some settings changed."""
    # What one PPO alone is worth: a patch reaches the training in this process, not one beside it.
    config = override_config(base, {"rl.tilt.num_generations": 0, "rl.ppo.num_seeds": 1, **changes})
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
    parser = world_parser(__doc__ or "", [0, 1, 2])
    parser.add_argument(
        "--quick", action="store_true", help="one seed, two variants, few rounds: a smoke run"
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="variants; all if left out")
    options = parser.parse_args()
    names, seeds, overrides = options.only or list(VARIANTS), options.seeds, list(options.overrides)
    if options.quick:
        names, seeds = options.only or ["recipe", "no pessimism"], seeds[:1]
        overrides += ["rl.ppo.num_iterations=2", "rl.simulator.num_epochs=1", "rl.clone.num_epochs=1"]
    logging.disable(logging.WARNING)
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            size = of_size(options.sessions)
            base = fitted_shop(seed, Path(folder), size + overrides, options.config)
            for name in names:
                started = time.monotonic()
                with patch(*PATCHES[name]) if name in PATCHES else nullcontext():
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
