"""How well the policy's start ranks what comes next, beside SASRec, item-kNN and ALS on the same split by time.

    python -m tests.benchmarks.clone [--quick] [--logs movielens uci] [--seeds 0 1] [--runs FOLDER] [--uci FILE]

UCI Online Retail (left out where the file is not there) and a made-up log in MovieLens's format go through ``ingest``
and ``embed`` as any log does. Then every policy ranks the whole catalogue before each item that a test session turns
to. A figure is a ratio of NDCG@10, a mean over tasks and seeds: the clone's over that of the best of the three rivals
there, with 95% intervals by resampling sessions. A rival counts for at least what random order earns. The clone's
and the rivals' settings are the product's defaults, chosen on validation sessions.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.sessions import SessionLog
from encoders.state import States
from pipelines.artifacts import RunDirectory
from pipelines.config import CONFIGS, Config, load_config
from pipelines.dataset import load_item_embeddings, load_session_log
from pipelines.embed import EMBED
from pipelines.ingest import INGEST
from pipelines.stages import run_stage
from pipelines.train import make_clone
from rl.evaluation.intervals import Bootstrap, Estimate, bootstrap_intervals, group_sums
from rl.evaluation.pasts import UserPasts, user_pasts
from rl.evaluation.ranking import JudgedStates, Scorer, ranking_states, score_ranking
from rl.evaluation.rivals import als_scorer, item_knn_scorer, nearest_content_scorer
from rl.evaluation.sasrec import sasrec_scorer
from rl.policy.network import SlatePolicy
from rl.tasks import Tasks, build_tasks
from tests.benchmarks.movie_log import write_movie_log

Floats = NDArray[np.float64]

UCI = "../shared/data/uci_online_retail/online_retail.csv.gz"
RIVALS = ("item_knn", "als", "sasrec")
MAX_STATES = 20_000  # of the test split, drawn evenly where there are more
RARE = 5  # training behaviours below which an item is rare
MOVIE_SEED = 20  # of the made-up log that is reported; others were looked at


@dataclass(frozen=True)
class Case:
    """A log, ready for every policy."""

    run: RunDirectory
    config: Config
    log: SessionLog
    pasts: UserPasts
    tasks: Tasks
    embeddings: NDArray[np.float32]  # [N, D]


@dataclass(frozen=True)
class Judged:
    """What every policy earned."""

    states: JudgedStates
    names: tuple[str, ...]  # P policies
    ndcg: Floats  # [B, P] means over seeds
    rare: NDArray[np.bool_]  # [B]
    seconds: dict[str, float]  # CPU time of fitting, mean over seeds


def open_case(name: str, folder: Path, settings: list[str]) -> Case:
    """The log of a config after ingest and embed; what the folder already holds of them is used."""
    config = load_config(str(CONFIGS / f"{name}.yaml"), [f"paths.run={folder}", *settings])
    for stage in (INGEST, EMBED):
        run_stage(stage, config)
    run, tasks = RunDirectory(str(folder)), build_tasks(config.rl.tasks)
    log = load_session_log(run, config)
    return Case(run, config, log, user_pasts(log, tasks), tasks, load_item_embeddings(run))


def movie_case(folder: Path, quick: bool) -> Case:
    """The made-up MovieLens."""
    folder.mkdir(parents=True, exist_ok=True)
    users, films = (80, 150) if quick else (1_000, 1_500)
    write_movie_log(folder, users, films, MOVIE_SEED)
    paths = [f"paths.log={folder / 'ratings.dat'}", f"paths.items={folder / 'movies.dat'}"]
    return open_case("movielens_1m", folder / "run", paths)


def clone_scorer(policy: SlatePolicy, tasks: Tasks) -> Scorer:
    """The clone's scores at the configured task weights."""
    weights = torch.from_numpy(tasks.weights)
    with torch.no_grad():
        keys = policy.item_keys()

    @torch.no_grad()
    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        state = (states.past, states.history_items, states.history_tasks)
        past, items, tasks_of = (torch.from_numpy(part) for part in state)
        logits = policy.logits(past, items, tasks_of, weights.expand(len(past), -1), keys=keys)
        return np.asarray(logits.numpy(), dtype=np.float32)

    return score


def judge(case: Case, seeds: list[int]) -> Judged:
    """Fit every policy on every seed and rank the test sessions."""
    log, pasts, num_items = case.log, case.pasts, len(case.embeddings)
    states = ranking_states(log, len(case.tasks), case.config.rl.history_length, 10**9)
    if len(states) > MAX_STATES:
        drawn = np.random.default_rng(0).choice(len(states), MAX_STATES, replace=False)
        states = states.rows(np.sort(drawn))
    rivals = case.config.rl.evaluation.rivals
    makers: dict[str, Callable[[int], Scorer]] = {
        "nearest_content": lambda seed: nearest_content_scorer(case.embeddings),
        "item_knn": lambda seed: item_knn_scorer(pasts, num_items, rivals.num_neighbours),
        "als": lambda seed: als_scorer(pasts, num_items, rivals, seed),
        "sasrec": lambda seed: sasrec_scorer(log, pasts, num_items, rivals, seed),
        "clone": lambda seed: clone_scorer(
            make_clone(case.run, case.config.model_copy(update={"seed": seed}), log, case.tasks), case.tasks
        ),
    }
    ndcg, seconds = np.zeros((len(states), len(makers))), dict.fromkeys(makers, 0.0)
    for column, (name, make) in enumerate(makers.items()):
        own = seeds[:1] if name in ("nearest_content", "item_knn") else seeds  # these two draw nothing
        for seed in own:
            started = time.process_time()
            scorer = make(seed)
            seconds[name] += (time.process_time() - started) / len(own)
            gains = score_ranking(states, scorer, num_items, 10, 1_000_000, name).gains["ndcg"]
            ndcg[:, column] += gains / len(own)
            print(f"  seed {seed} {name:16} NDCG@10 {gains.mean():.4f}", flush=True)
    trained = np.repeat(log.split == 0, np.diff(log.offsets))
    counts = np.bincount(log.items[trained], minlength=num_items)
    return Judged(states, tuple(makers), ndcg, counts[states.targets] < RARE, seconds)


def task_means(judged: Judged, rows: NDArray[np.bool_], tasks: Tasks) -> tuple[Floats, Floats]:
    """Sums of NDCG by session, wanted task and policy, and counts by session and task. [G, T, P] and [G, T]."""
    wanted = np.flatnonzero(tasks.signs > 0)
    fires = (judged.states.labels[:, wanted] & rows[:, None]).astype(float)  # [B, T]
    gains = fires[:, :, None] * judged.ndcg[:, None, :]  # [B, T, P]
    sums = group_sums(np.concatenate([gains.reshape(len(gains), -1), fires], 1), judged.states.sessions)
    return sums[:, : -len(wanted)].reshape(len(sums), len(wanted), -1), sums[:, -len(wanted) :]


def ratios(judged: Judged, rows: NDArray[np.bool_], tasks: Tasks, floor: float) -> dict[str, Estimate]:
    """The clone's mean over tasks over the best rival's, by ``best_rival``, and over each other policy's."""
    sums, counts = task_means(judged, rows, tasks)
    num_policies = len(judged.names)

    def means(totals: Floats) -> Floats:
        parts = totals[:, : -counts.shape[1]].reshape(len(totals), -1, num_policies)  # [R, T, P]
        return np.asarray((parts / np.maximum(totals[:, -counts.shape[1] :, None], 1.0)).mean(1))  # [R, P]

    columns = np.concatenate([sums.reshape(len(sums), -1), counts], 1)
    point = means(columns.sum(0, keepdims=True))[0]
    best = max(RIVALS, key=lambda name: point[judged.names.index(name)])
    against = ("best_rival", *judged.names[:-1])
    places = [judged.names.index(best if name == "best_rival" else name) for name in against]

    def statistic(totals: Floats) -> Floats:
        table = means(totals)
        return table[:, -1:] / np.maximum(table[:, places], floor)

    return dict(zip(against, bootstrap_intervals(columns, statistic, Bootstrap()), strict=True))


def report(name: str, case: Case, judged: Judged) -> dict[str, float]:
    """Print a log's tables. Returns its figures."""
    num_items = len(case.embeddings)
    floor = sum(1 / math.log2(place + 1) for place in range(1, 11)) / num_items  # of random order
    wanted = [task for k, task in enumerate(case.tasks.names) if case.tasks.signs[k] > 0]
    every = np.ones(len(judged.states), dtype=bool)
    figures: dict[str, float] = {}
    for part, rows in (("", every), ("rare_", judged.rare)):
        what = f"items with fewer than {RARE} training behaviours" if part else "all items"
        print(f"\n{name}: NDCG@10 of {num_items:,} items in {rows.sum():,} test states, {what}")
        sums, counts = task_means(judged, rows, case.tasks)
        table = sums.sum(0) / np.maximum(counts.sum(0)[:, None], 1.0)  # [T, P]
        found = ratios(judged, rows, case.tasks, floor)
        print(f"{'':16}" + "".join(f"{task:>10}" for task in (*wanted, "mean")) + "   the clone's over it")
        for column, policy in enumerate(judged.names):
            cells = "".join(f"{value:>10.4f}" for value in (*table[:, column], table[:, column].mean()))
            print(f"{policy:16}{cells}   {_interval(found[policy]) if policy in found else ''}")
        print(f"the clone's over the best rival's: {_interval(found['best_rival'])}")
        figures |= {f"clone_vs_{rival}_{part}{name}": ratio.mean for rival, ratio in found.items()}
        figures[f"clone_vs_best_rival_{part}{name}_low"] = found["best_rival"].low or float("nan")
        figures[f"clone_ndcg_{part}{name}"] = float(table[:, -1].mean())
    cpu = ", ".join(f"{policy} {seconds:.0f}" for policy, seconds in judged.seconds.items())
    print(f"CPU seconds to fit: {cpu}", flush=True)
    return figures


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def open_cases(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Case]]:
    """The logs that are asked for and there, one after the other. Stages' outputs go to the folder."""
    if "movielens" in options.logs:
        yield "movielens", movie_case(folder / "movielens", options.quick)
    if "uci" not in options.logs or options.quick:
        return
    if options.uci.is_file():
        yield "uci", open_case("uci_retail", folder / "uci", [f"paths.log={options.uci.resolve()}"])
    else:
        print(f"uci: left out, {options.uci} is not there")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, and the figures as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small made-up log alone, to see that it runs")
    parser.add_argument("--logs", nargs="+", choices=("movielens", "uci"), default=["movielens", "uci"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs", type=Path, help="keep ingest's and embed's outputs here for the next time")
    parser.add_argument("--uci", type=Path, default=Path(UCI), help="online_retail.csv.gz")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, case in open_cases(options, (options.runs or Path(temporary)).resolve()):
            figures |= report(name, case, judge(case, options.seeds))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
