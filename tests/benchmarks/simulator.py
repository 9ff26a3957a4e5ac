"""Does the fitted simulator rank policies as the truth does? ``python -m tests.benchmarks.simulator``

Made-up shops: ingest, embed and fit-simulator as in the demo; then policies of many kinds are played in the training
simulator, in the held-out one, and live in the shop. None of them was trained in either simulator.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pipelines.artifacts import RunDirectory
from pipelines.config import Config, load_config
from pipelines.dataset import load_session_log, load_simulator
from pipelines.demo import open_shop, play_live
from pipelines.players import evaluation_sessions
from pipelines.registry import STAGES
from pipelines.shop.catalogue import Catalogue
from pipelines.shop.logging_policy import make_shop
from pipelines.shop.truth import LoggingPlayer
from pipelines.shop.world import ShopWorld
from pipelines.stages import run_stage
from rl.players import Player, StatelessPlayer, play_simulated
from rl.tasks import build_tasks

SEEDS = (301, 302, 303)
Scores = NDArray[np.float64]


def fixed(scores: Scores, length: int) -> Player:
    """Always the same items, those of the highest scores."""
    top = torch.from_numpy(scores).topk(length).indices
    return StatelessPlayer(lambda count: top.expand(count, -1))


def drawn(scores: Scores, length: int, seed: int) -> Player:
    """Slates drawn by Plackett-Luce with these scores."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.from_numpy(scores)

    def draw(count: int) -> torch.Tensor:
        noise = torch.empty(count, len(known), dtype=known.dtype).exponential_(generator=generator)
        return (known - noise.log()).topk(length, -1).indices

    return StatelessPlayer(draw)


def policies(catalogue: Catalogue, length: int, seed: int) -> dict[str, Player]:
    """Fourteen policies by what they favour: bait or its absence, appeal, a topic, nothing."""
    bait, appeal = catalogue.bait, catalogue.appeal
    players: dict[str, Player] = {"random": drawn(0 * bait, length, seed)}
    for price in (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0):
        players[f"best by appeal - {price:g} bait"] = fixed(0.4 * appeal - price * bait, length)
    for price in (-2.0, 1.0, 2.0, 4.0):
        players[f"drawn by appeal - {price:g} bait"] = drawn(0.8 * appeal - price * bait, length, seed)
    for topic in (0, 1, 2):
        one = 5.0 * (catalogue.topic == topic)
        players[f"best of topic {topic}"] = fixed(one + 0.4 * appeal, length)
    return players


def compare(config: Config, num_sessions: int) -> dict[str, dict[str, float]]:
    """Weighted return a session of each policy in the training simulator, the held-out one, and in truth."""
    run = RunDirectory(config.paths.run)
    shop, log = make_shop(config.shop, config.seed), load_session_log(run, config)
    weights = build_tasks(config.rl.tasks).weights
    sessions = evaluation_sessions(log, num_sessions)
    past = torch.from_numpy(log.past[sessions])
    length = config.rl.slate_length
    assert isinstance(shop.world, ShopWorld)
    players = policies(shop.world.catalogue, length, config.seed)
    players["logging"] = LoggingPlayer(shop, length, config.seed)
    out: dict[str, dict[str, float]] = {}
    for name, player in players.items():
        out[name] = {"truth": float((play_live(shop, log, sessions, player, config) @ weights).mean())}
        for part in ("train", "heldout"):
            ensemble = replace(load_simulator(run, config, part), pessimism=0.0)
            returns, _ = play_simulated(
                ensemble,
                player,
                past,
                torch.from_numpy(weights),
                config.rl.history_length,
                torch.Generator().manual_seed(config.seed),
            )
            out[name][part] = float((returns.numpy() @ weights).mean())
    return out


def fitted_shop(seed: int, folder: Path, overrides: list[str], file: str | None = None) -> Config:
    """A shop, or the world of a config file, whose log went through every stage up to fit-simulator."""
    config = open_shop(load_config(file, [f"seed={seed}", f"paths.run={folder / str(seed)}", *overrides]))
    for name in ("ingest", "embed", "fit-simulator"):
        run_stage(STAGES[name], config)
    return config


def world_parser(text: str, seeds: list[int]) -> argparse.ArgumentParser:
    """Options of a benchmark that fits made-up worlds: ``text`` is its help, ``seeds`` are those without any given."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--config", help="reader.yaml or school.yaml; without it, the shop")
    parser.add_argument("--sessions", type=int, default=3_000)
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    return parser


def of_size(sessions: int) -> list[str]:
    """Settings of a world that logs so many sessions."""
    return [f"shop.num_sessions={sessions}", f"shop.num_users={max(2, 3 * sessions // 8)}"]


def main() -> None:
    """Fit and play on each seed; print tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sessions", type=int, default=1000, help="played sessions a policy")
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    options = parser.parse_args()
    ranks: dict[str, list[float]] = {"train": [], "heldout": []}
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            table = compare(fitted_shop(seed, Path(folder), options.overrides), options.sessions)
            print(f"\nseed {seed:<28}{'truth':>8}{'training':>10}{'held-out':>10}")
            for name, row in sorted(table.items(), key=lambda entry: -entry[1]["truth"]):
                print(f"{name:<33}{row['truth']:>8.2f}{row['train']:>10.2f}{row['heldout']:>10.2f}")
            truth = [row["truth"] for row in table.values()]
            for part, values in ranks.items():
                values.append(float(spearmanr(truth, [row[part] for row in table.values()]).statistic))
            shares.append(max(row["train"] for row in table.values()) / max(truth))
    figures = {f"spearman_{part}": float(np.mean(values)) for part, values in ranks.items()}
    figures |= {f"spearman_{part}_worst": min(values) for part, values in ranks.items()}
    figures["highest_simulated_vs_highest_true"] = float(np.mean(shares))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
