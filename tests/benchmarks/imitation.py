"""What is there to win for a policy that sees what a recommender sees? A yardstick by imitation of the oracles.

    python -m tests.benchmarks.imitation [--config school.yaml] [--seeds 0] [--updates 2000] [key=value ...]

The one-step oracle and the planner see every hidden state. The policy's own network plays live in the made-up world and
is told at each step which items the oracle would show there (DAgger, Ross et al. 2011): labels that no log holds, from
the truth that no simulator has. What it reaches so is a yardstick of what its observations allow, no strict bound: the
best policy under them need not be the one nearest to the planner.
"""

import json
import logging
import statistics
import tempfile
from pathlib import Path

import torch

from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import load_session_log
from pipelines.demo import best_plan, play_live, play_oracle
from pipelines.openers import OpenSimulation
from pipelines.players import evaluation_sessions
from pipelines.shop.logging_policy import make_shop
from pipelines.shop.truth import OraclePlayer
from pipelines.train import make_clone
from rl.players import PolicyPlayer
from rl.policy.fragments import STATE_COLUMNS
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import sample_slates
from rl.tasks import build_tasks
from tests.benchmarks.live_simulation import open_live
from tests.benchmarks.simulator import fitted_shop, of_size, world_parser

NUM_SESSIONS = 256  # played at once
LEARNING_RATE = 3e-3  # peak of the one-cycle schedule
UNFITTED = ("rl.simulator.num_epochs=1", "rl.simulator.num_members=1", "rl.ppo.weight_draw_share=0")


def imitate(config: Config, plan: tuple[float, ...], num_updates: int) -> SlatePolicy:
    """The policy's network, taught by an oracle with these prices in sessions that it plays itself."""
    run, tasks = RunDirectory(config.paths.run), build_tasks(config.rl.tasks)
    simulation = open_live(OpenSimulation(config.paths.run, config), NUM_SESSIONS, config.seed)
    policy = make_clone(run, config, load_session_log(run, config), tasks).eval()  # ids are never hidden
    optimiser = torch.optim.Adam(policy.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=num_updates)
    observation = simulation.observe()
    oracle = OraclePlayer(simulation.live, tasks.weights, config.rl.slate_length, plan)
    for _ in range(num_updates):
        shown = oracle.choose(observation)  # [B, L]
        logits = policy.logits(*(observation[name] for name in STATE_COLUMNS))
        loss = -logits.log_softmax(-1).gather(1, shown).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        simulation.step(sample_slates(logits.detach(), config.rl.slate_length))
        observation = simulation.observe()
    return policy


def measure(config: Config, num_updates: int) -> dict[str, float]:
    """Mean true weighted return of both oracles and of what learned from them, on the log's later sessions."""
    log, shop = load_session_log(RunDirectory(config.paths.run), config), make_shop(config.shop, config.seed)
    weights = build_tasks(config.rl.tasks).weights
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    plans = {"one-step oracle": (0.0,) * len(shop.world.plans[0]), "planner": best_plan(shop, log, config)}
    out = {}
    for name, plan in plans.items():
        returns = play_oracle(shop, log, sessions, config, plan)
        out[name] = float((returns @ weights).mean())
        player = PolicyPlayer(imitate(config, plan, num_updates), config.rl.slate_length, config.seed)
        out[f"{name} imitated"] = float((play_live(shop, log, sessions, player, config) @ weights).mean())
    return out


def main() -> None:
    """Run the seeds, print the table and the ratio."""
    parser = world_parser(__doc__ or "", [0])
    parser.add_argument("--updates", type=int, default=2_000, help="gradient steps of each imitation")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    size = of_size(options.sessions)
    ratios = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings = [*size, *UNFITTED, *options.overrides]
            row = measure(fitted_shop(seed, Path(folder), settings, options.config), options.updates)
        print(f"seed {seed}  " + "  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
        ratios.append(row["planner imitated"] / row["one-step oracle"])
    print(json.dumps({"imitated_planner_vs_myopic_oracle": round(statistics.mean(ratios), 4)}))


if __name__ == "__main__":
    main()
