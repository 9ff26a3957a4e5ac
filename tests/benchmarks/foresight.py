"""What does the simulator believe of patience? Sessions of the planner, who sees far, judged step by step.

    python -m tests.benchmarks.foresight [key=value ...] [--config reader.yaml] [--seeds 0 1 2]

The logging policy, the one-step oracle and the planner play live in a made-up world, and so does a policy that was
searched in the ensemble, the tilted clone (``rl.tilt``). At every step each member of the fitted ensemble says what it
expects of the very slate that is shown next, after all that truly came before; so no error of one step adds to the
next. What a policy learned in the ensemble can hope for is what it believes of the planner late in a session; what it
believes of the tilted clone says how far a search exploits it. Beside them stands how well the ensemble knows whose
taste an item meets, as the logging policy plays: the correlation, over users and items, of true and expected logits of
the first response, less what users and items have in common. The last line is one JSON object: expected over true
weighted reward a slate, by policy, in a session's first steps and from the tenth on; and ``taste_start`` and
``taste_late``, the correlation before a slate and after ten.
"""

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import load_session_log, load_simulator
from pipelines.demo import best_plan
from pipelines.players import evaluation_sessions
from pipelines.shop.logging_policy import make_shop
from pipelines.shop.truth import LoggingPlayer, OraclePlayer, ShopSessions, live_sessions
from pipelines.train import make_clone
from rl.players import Player, PolicyPlayer
from rl.simulator.simulation import Sessions
from rl.simulator.trace import Trace
from rl.tasks import build_tasks
from rl.tilt import tilt_clone
from tests.benchmarks.simulator import fitted_shop, of_size, world_parser

BANDS = ((0, 2), (2, 5), (5, 10), (10, 20), (20, 40))  # steps from, steps before
FIRST, LATE = slice(0, 2), slice(10, None)


@torch.no_grad()
def follow(
    sessions: Sessions, live: ShopSessions, player: Player, past: Tensor, history_length: int
) -> NDArray[np.float64]:
    """Sums over the sessions under way: how many, true and expected responses by task, true and expected endings.

    Returns:
        float64 [T, 1 + 2 (K + 1)].
    """
    ensemble = sessions.ensemble
    count = len(past)
    under_way = torch.ones(count, dtype=torch.bool)
    weights = torch.from_numpy(ensemble.tasks.weights).expand(count, -1)
    trace = Trace(past, ensemble.members[0].item_features, len(ensemble.tasks), history_length)
    player.start(past)
    rows = []
    for _ in range(ensemble.max_steps):
        slates = player.choose(trace.observe(weights))
        _, chances = sessions.expected_rewards(slates)
        _, responses, ended = live.answer(slates)
        sessions.follow(slates, responses)
        trace.add(slates, responses)
        pairs = zip(ensemble.members, sessions.contexts, strict=True)
        leaving = torch.stack([torch.sigmoid(member.leaving(context)) for member, context in pairs])
        seen = torch.cat([responses.sum(1), ended[:, None].float()], -1)  # [B, K + 1]
        expected = torch.cat([chances.mean(0).sum(1), leaving.mean(0)[:, None]], -1)
        rows.append(torch.cat([torch.ones(count, 1), seen, expected], -1)[under_way].double().sum(0))
        under_way &= ~ended
    return torch.stack(rows).numpy()


def apart(logits: Tensor) -> Tensor:
    """What is neither the user's nor the item's own. float32 [B, N]."""
    return logits - logits.mean(0) - logits.mean(1, keepdim=True) + logits.mean()


@torch.no_grad()
def know_tastes(sessions: Sessions, live: ShopSessions, player: LoggingPlayer) -> tuple[float, float]:
    """Correlation of true and expected tastes before the first slate and after ``LATE.start``."""
    ensemble = sessions.ensemble
    catalogue = torch.arange(ensemble.members[0].shape.num_items).expand(len(sessions.past), -1)

    def correlation() -> float:
        true = torch.logit(torch.from_numpy(live.world.probabilities(live.visitors)[..., 0]), 1e-6).float()
        members = zip(ensemble.members, sessions.contexts, sessions.tables, strict=True)
        expected = [member.scores(context, *table, catalogue)[..., 0] for member, context, table in members]
        pair = torch.stack([apart(true), apart(torch.stack(expected).mean(0))]).flatten(1)
        return float(torch.corrcoef(pair)[0, 1])

    start = correlation()
    for _ in range(LATE.start):
        slates = player.choose({"past": sessions.past})
        sessions.follow(slates, live.answer(slates)[1])
    return start, correlation()


def measure(config: Config) -> tuple[dict[str, NDArray[np.float64]], tuple[float, float]]:
    """What ``follow`` gives for each policy of the module's text, and ``know_tastes``."""
    run, tasks = RunDirectory(config.paths.run), build_tasks(config.rl.tasks)
    length = config.rl.slate_length
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    chosen = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    past = torch.from_numpy(log.past[chosen])
    fitted = load_simulator(run, config, "train")
    ensemble = replace(fitted, pessimism=0.0)
    plans = {"one-step oracle": (0.0,) * len(shop.world.plans[0]), "planner": best_plan(shop, log, config)}
    clone = make_clone(run, config, log, tasks)
    users = torch.from_numpy(log.past[log.sessions("train")])
    tilted = tilt_clone(clone, fitted, users, config.rl.tilt, config.seed)
    out = {}
    for name in ("logging", *plans, "tilted clone"):
        live = live_sessions(shop, [log.session_ids[s] for s in chosen], tasks, config.seed + 1)
        player: Player = LoggingPlayer(shop, length, config.seed)
        if name in plans:
            player = OraclePlayer(live, tasks.weights, length, plans[name])
        elif name == "tilted clone":
            player = PolicyPlayer(tilted or clone, length, config.seed)
        sessions = Sessions(ensemble, past, torch.Generator().manual_seed(config.seed))
        out[name] = follow(sessions, live, player, past, config.rl.history_length)
    live = live_sessions(shop, [log.session_ids[s] for s in chosen], tasks, config.seed + 1)
    sessions = Sessions(ensemble, past, torch.Generator().manual_seed(config.seed))
    return out, know_tastes(sessions, live, LoggingPlayer(shop, length, config.seed))


def main() -> None:
    """Run the seeds, print the tables and the ratios."""
    options = world_parser(__doc__ or "", [0, 1, 2]).parse_args()
    logging.disable(logging.WARNING)
    size = of_size(options.sessions)
    found: dict[str, list[NDArray[np.float64]]] = {}
    tastes: list[tuple[float, float]] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            config = fitted_shop(seed, Path(folder), size + options.overrides, options.config)
            followed, known = measure(config)
            tastes.append(known)
            for name, sums in followed.items():
                found.setdefault(name, []).append(sums)
    tasks = build_tasks(config.rl.tasks)
    titles = [*tasks.names, "end"]
    print(f"\nTrue and expected a slate, seeds {options.seeds}")
    print(f"{'':16}{'steps':>8}" + "".join(f"{title:>16}" for title in titles))
    figures = {}
    for name, parts in found.items():
        sums = np.sum(parts, 0)
        for first, end in BANDS:
            rates = sums[first:end, 1:].sum(0) / max(sums[first:end, 0].sum(), 1)
            true, expected = np.split(rates, 2)
            cells = "".join(f"{t:>9.3f}{e:>7.3f}" for t, e in zip(true, expected, strict=True))
            print(f"{name:16}{f'{first}-{end - 1}':>8}{cells}")
        for part, steps in (("first", FIRST), ("late", LATE)):
            true, expected = np.split(sums[steps, 1:].sum(0), 2)
            weights = tasks.weights * tasks.signs
            ratio = (expected[:-1] @ weights) / (true[:-1] @ weights)
            figures[f"expected_vs_true_{part}_{name.replace(' ', '_').replace('-', '_')}"] = ratio
    figures["taste_start"], figures["taste_late"] = np.mean(tastes, 0)
    print(
        f"Whose taste an item meets, correlation of true and expected: {figures['taste_start']:.2f} before the first "
        f"slate, {figures['taste_late']:.2f} after {LATE.start}"
    )
    print(json.dumps({name: round(float(value), 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
