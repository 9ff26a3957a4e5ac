"""``slatewise demo``: the whole loop on the made-up shop, and then the truth."""

import logging
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.sessions import SessionLog
from pipelines.artifacts import RunDirectory
from pipelines.config import Config, PathsConfig, override_config
from pipelines.dataset import load_session_log
from pipelines.players import evaluation_sessions, make_players
from pipelines.registry import STAGES, run_order
from pipelines.shop.logging_policy import ShopLog, make_shop
from pipelines.shop.truth import LoggingPlayer, OraclePlayer, live_sessions
from pipelines.shop.worlds import check_tasks
from pipelines.stages import Stage, StageContext, run_stage
from rl.evaluation.text import text_table
from rl.players import Player, play
from rl.tasks import build_tasks

logger = logging.getLogger(__name__)

UPPER_BOUND = "planner"


def _make_log(context: StageContext) -> dict[str, Any]:
    shop = make_shop(context.config.shop, context.config.seed)
    context.folder.write_table("log.parquet", shop.behaviours.to_arrow())
    context.folder.write_table("items.parquet", shop.world.table.to_arrow())
    counts = shop.behaviours["behaviour"].value_counts(sort=True)
    return {
        "num_sessions": len(shop.session_ids),
        "num_rows": len(shop.behaviours),
        "behaviours": dict(zip(counts["behaviour"].to_list(), counts["count"].to_list(), strict=True)),
    }


SHOP = Stage(
    name="shop",
    inputs=(),
    sections=("seed", "shop"),
    execute=_make_log,
    help="Open the made-up shop and keep its log.",
)


def run_demo(config: Config) -> dict[str, Any]:
    """Make the shop's log, run every stage on it, play the policies live, and print the truth.

    Returns:
        The report, with ``truth`` filled in.

    Raises:
        ValueError: The made-up world cannot pay ``rl.tasks``.
    """
    from pipelines.evaluate import publish_truth

    started = time.monotonic()
    check_tasks(config.shop.world, build_tasks(config.rl.tasks))
    if config.paths.run == PathsConfig().run:
        config = override_config(config, {"paths.run": "runs/demo"})
    run = RunDirectory(config.paths.run)
    # A policy this far from a short log is beyond what its slates can tell; the demo ends in the truth instead.
    config = override_config(open_shop(config), {"rl.evaluation.gate.logged": "report"})
    for name in run_order(config.encoder.tuned):
        run_stage(STAGES[name], config)
    logger.info("truth: playing the policies live in the shop")
    returns = true_returns(run, config)
    report = publish_truth(run, returns, UPPER_BOUND)
    _show(report, run, config, time.monotonic() - started)
    return report


def open_shop(config: Config) -> Config:
    """Make the shop's log in ``paths.run``. The config that goes on from there."""
    run_stage(SHOP, config)
    run = RunDirectory(config.paths.run)
    paths = {"paths.log": run.join("shop/log.parquet"), "paths.items": run.join("shop/items.parquet")}
    return override_config(config, paths)


def true_returns(run: RunDirectory, config: Config) -> dict[str, NDArray[np.float32]]:
    """True return of each live session per task, by policy. All start from the log's test sessions. [n, K]."""
    shop = make_shop(config.shop, config.seed)
    log = load_session_log(run, config)
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    players = make_players(run, config, log)
    players["logging"] = LoggingPlayer(shop, config.shop.slate_length, config.seed)
    order = ("logging", "random", "popular", "greedy", "bandit", "clone", "ppo")
    out = {name: play_live(shop, log, sessions, players[name], config) for name in order}
    zeros = (0.0,) * len(shop.world.plans[0])
    out["myopic_oracle"] = play_oracle(shop, log, sessions, config, zeros)
    out[UPPER_BOUND] = play_oracle(shop, log, sessions, config, best_plan(shop, log, config))
    return out


def best_plan(shop: ShopLog, log: SessionLog, config: Config) -> tuple[float, ...]:
    """The planner's prices, searched on validation users, not on those that the table shows."""
    sessions = log.sessions("validation")[:200]
    weights = build_tasks(config.rl.tasks).weights

    def value(plan: tuple[float, ...]) -> float:
        return float((play_oracle(shop, log, sessions, config, plan) @ weights).mean())

    return max(shop.world.plans, key=value)


def play_oracle(
    shop: ShopLog, log: SessionLog, sessions: NDArray[np.int64], config: Config, plan: tuple[float, ...]
) -> NDArray[np.float32]:
    """True return of the oracle with these prices in each of the logged sessions. float32 [n, K]."""
    tasks = build_tasks(config.rl.tasks)
    live = live_sessions(shop, [log.session_ids[s] for s in sessions], tasks, config.seed + 1)
    player = OraclePlayer(live, tasks.weights, config.rl.slate_length, plan)
    return _run_live(live, player, log, sessions, config)


def play_live(
    shop: ShopLog, log: SessionLog, sessions: NDArray[np.int64], player: Player, config: Config
) -> NDArray[np.float32]:
    """True return of a player in each of the logged sessions, played anew; costs are negative. float32 [n, K]."""
    tasks = build_tasks(config.rl.tasks)
    live = live_sessions(shop, [log.session_ids[s] for s in sessions], tasks, config.seed + 1)
    return _run_live(live, player, log, sessions, config)


def _run_live(
    live: Any, player: Player, log: SessionLog, sessions: NDArray[np.int64], config: Config
) -> NDArray[np.float32]:
    """Plays to the end. float32 [n, K]."""
    tasks = build_tasks(config.rl.tasks)
    past = torch.from_numpy(log.past[sessions])
    weights = torch.from_numpy(tasks.weights).expand(len(past), -1)
    features = torch.zeros(len(live.world.table), 1)  # the trace's summary serves critics only
    returns, _ = play(
        live, player, past, weights, features, len(tasks), config.rl.history_length, config.shop.max_steps
    )
    return returns.numpy()


def _show(report: dict[str, Any], run: RunDirectory, config: Config, seconds: float) -> None:
    truth = {policy["name"]: policy["weighted"]["mean"] for policy in report["truth"]["policies"]}
    bound = report["truth"]["upper_bound"]["mean"]
    lines = [
        "",
        f"True return a session in the made-up {config.shop.world} (95% intervals over sessions)",
        text_table(report, "truth"),
        f"ppo earns {truth['ppo'] / truth['logging']:.2f} times the logging policy, "
        f"{truth['ppo'] / truth['greedy']:.2f} times greedy, and {truth['ppo'] / bound:.0%} of a planner that "
        "sees every hidden state.",
        report["summary"],
        "",
        f"Report   {run.join('report.html')}",
        f"Took     {seconds:.0f} s",
        "Next     slatewise status " + config.paths.run,
        f"         slatewise serve --policy {config.paths.run}",
        f"         slatewise demo seed={config.seed + 1} paths.run={config.paths.run}-{config.seed + 1}",
        "         slatewise run --config rees46.yaml paths.log=YOUR_LOG.csv.gz paths.run=runs/mine",
    ]
    print("\n".join(lines))
