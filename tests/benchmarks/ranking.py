"""Ranking at scale: a million states by ten thousand items on two cores, beside the rankers of public libraries.

    python -m tests.benchmarks.ranking [--quick]

Every policy of the table scores all items in every state; ours also gives each state its gains, its list, ties in
expectation, and then the intervals, tests and list figures of the report. The rivals give means alone. They are
timed on the same scores, in turn with ours, at their best batch sizes.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse
from threadpoolctl import threadpool_limits
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from encoders.sessions import SessionLog
from encoders.state import States
from rl.evaluation.comparisons import comparison_table
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.lists import build_catalogue, list_table
from rl.evaluation.pasts import user_pasts
from rl.evaluation.ranking import JudgedStates, Scorer, ranking_states, ranking_table, score_ranking
from rl.tasks import TaskConfig, build_tasks

K, WIDTH, PAST_WIDTH, HISTORY = 10, 64, 384, 32
BATCH_SCORES = 1_000_000  # the default of rl.evaluation.batch_scores
TASKS = build_tasks({"view": TaskConfig(weight=1), "purchase": TaskConfig(weight=3)})


def made_up_log(num_states: int, num_items: int, seed: int = 0) -> SessionLog:
    """Sessions of ten distinct items each, nine in ten of them test sessions."""
    rng = np.random.default_rng(seed)
    tested = num_states // 10
    count = tested + tested // 9
    start, step = rng.integers(num_items, size=count), rng.integers(1, num_items // 10, size=count)
    items = (start[:, None] + step[:, None] * np.arange(10)) % num_items  # [S, 10], no item twice
    split = np.full(count, 2, np.int8)
    split[: count - tested] = 0
    return SessionLog(
        session_ids=[str(i) for i in range(count)],
        user_ids=[str(i // 3) for i in range(count)],
        split=split,
        past=rng.standard_normal((count, PAST_WIDTH), dtype=np.float32),
        offsets=np.arange(0, 10 * count + 1, 10),
        items=items.reshape(-1),
        tasks=(rng.random(10 * count) < 0.1).astype(np.int64),
        values=np.zeros(10 * count, np.float32),
        slates=None,
    )


def queries_of(states: States, table: torch.Tensor) -> torch.Tensor:
    """Sum of the history's vectors, as a factor model would read a session. float32 [b, WIDTH]."""
    return table[torch.from_numpy(states.history_items)].sum(1)


def factor_scorer(num_items: int, seed: int) -> tuple[Scorer, torch.Tensor]:
    """A policy of our kind in cost: a state's query by the items' keys. Also the keys, the last row for empty."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(num_items + 1, WIDTH, generator=generator)
    table[-1] = 0.0
    keys = table[:-1].T.contiguous()
    return lambda states, sessions: (queries_of(states, table) @ keys).numpy(), table


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def full_run(num_states: int, num_items: int) -> dict[str, float]:
    """All of a two-policy table on all states."""
    log = made_up_log(num_states, num_items)
    judged = ranking_states(log, len(TASKS), HISTORY, num_states)
    assert len(judged) == num_states
    scores, seconds = {}, {}
    for number, name in enumerate(("first", "second")):
        scorer, _ = factor_scorer(num_items, number)
        seconds[f"rank_{name}_s"], scores[name] = timed(
            lambda scorer=scorer: score_ranking(judged, scorer, num_items, K, BATCH_SCORES)
        )
        print(f"  ranked {name:7} {seconds[f'rank_{name}_s']:7.1f} s", flush=True)
    bootstrap = Bootstrap(500, 0.95, 0)
    embeddings = np.random.default_rng(1).standard_normal((num_items, PAST_WIDTH), dtype=np.float32)
    catalogue = build_catalogue(log, embeddings, [f"c{i % 20}" for i in range(num_items)], None)
    parts: dict[str, Callable[[], object]] = {
        "intervals_s": lambda: ranking_table(scores, judged, TASKS.names, K, bootstrap),
        "tests_s": lambda: comparison_table(scores, judged, TASKS.names, 0.95),
        "lists_s": lambda: list_table(scores, judged, catalogue, user_pasts(log, TASKS), bootstrap),
    }
    for name, work in parts.items():
        seconds[name], _ = timed(work)
        print(f"  {name.removesuffix('_s'):14} {seconds[name]:7.1f} s", flush=True)
    return seconds


def rivals(num_states: int, num_items: int, rounds: int) -> dict[str, float]:
    """States a second of ours and of the libraries, on the same scores, in turn; the best of the rounds."""
    log = made_up_log(num_states, num_items, seed=7)
    judged = ranking_states(log, len(TASKS), HISTORY, num_states)
    scorer, table = factor_scorer(num_items, 0)
    few = judged.rows(slice(0, max(200, num_states // 50)))  # torchmetrics takes one state at a time
    model, seen, asked = as_users(judged, table, num_items)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "ours": (len(judged), lambda: score_ranking(judged, scorer, num_items, K, BATCH_SCORES)),
        "implicit": (
            len(judged),
            lambda: by_implicit(model, seen, asked),
        ),
        "torchmetrics": (len(few), lambda: by_torchmetrics(few, scorer, num_items)),
    }
    rates = dict.fromkeys(works, 0.0)
    for _ in range(rounds):
        for name, (count, work) in works.items():
            seconds, _ = timed(work)
            rates[name] = max(rates[name], count / seconds)
    return rates


def as_users(
    judged: JudgedStates, table: torch.Tensor, num_items: int
) -> tuple[AlternatingLeastSquares, sparse.csr_matrix, sparse.csr_matrix]:
    """The states as users of a factor model, the history as what they have seen, the target as what is asked."""
    history, rows = judged.states.history_items, np.arange(len(judged))
    model = AlternatingLeastSquares(factors=WIDTH, num_threads=2)
    model.user_factors = queries_of(judged.states, table).numpy()
    model.item_factors = table[:-1].numpy()
    row, column = np.nonzero(history >= 0)
    shape = (len(judged), num_items)
    seen = sparse.csr_matrix((np.ones(len(row), np.float32), (row, history[row, column])), shape)
    asked = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, judged.targets)), shape)
    return model, seen, asked


def by_implicit(
    model: AlternatingLeastSquares, seen: sparse.csr_matrix, asked: sparse.csr_matrix
) -> dict[str, float]:
    """Precision, MAP, NDCG and AUC at k by implicit, on two threads of its own, as it recommends."""
    with threadpool_limits(1, "blas"):
        return dict(ranking_metrics_at_k(model, seen, asked, K, show_progress=False, num_threads=2))


def by_torchmetrics(judged: JudgedStates, scorer: Scorer, num_items: int) -> float:
    """Mean NDCG, hit rate and reciprocal rank by the functions of torchmetrics."""
    total = 0.0
    scores = torch.from_numpy(scorer(judged.states, judged.sessions))
    for row, target in enumerate(judged.targets.tolist()):
        truth = torch.zeros(num_items, dtype=torch.int64)
        truth[target] = 1
        for metric in (retrieval_normalized_dcg, retrieval_hit_rate, retrieval_reciprocal_rank):
            total += float(metric(scores[row], truth, top_k=K))
    return total / len(judged)


def main() -> None:
    """Print the table, and the figures as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the size, to see that it runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)  # the other core ranks
    num_states, num_items = (20_000, 1_000) if quick else (1_000_000, 10_000)
    print(f"Ranking {num_states:,} states by {num_items:,} items, 2 policies, on 2 cores", flush=True)
    rates = rivals(2_000 if quick else 20_000, num_items, rounds=1 if quick else 3)
    seconds = full_run(num_states, num_items)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  all            {sum(seconds.values()):7.1f} s, peak memory {peak:.2f} GB\n")
    print(f"  {'ranker':14} {'states/s':>9}   ours over it")
    for name, rate in rates.items():
        print(f"  {name:14} {rate:9,.0f}   {rates['ours'] / rate:.2f}")
    figures = {name: round(value, 2) for name, value in seconds.items()}
    figures |= {"total_s": round(sum(seconds.values()), 1), "peak_memory_gb": round(peak, 2)}
    figures |= {
        f"ratio_{name}": round(rates["ours"] / rate, 3) for name, rate in rates.items() if name != "ours"
    }
    figures |= {"states_per_s": round(rates["ours"]), "num_states": num_states, "num_items": num_items}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
