"""Ranking: where in the full catalogue a policy puts the items that a session will turn to next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import SPLITS, SessionLog
from encoders.state import States
from rl.evaluation.intervals import Bootstrap, Estimate, mean_intervals

METRICS = ("hit", "ndcg", "mrr")


@dataclass(frozen=True)
class JudgedStates:
    """States of later sessions, each with one item that the user is about to turn to for the first time in it."""

    states: States
    targets: NDArray[np.int64]  # [B] item index
    labels: NDArray[np.bool_]  # [B, K] whether the task fires on the item, now or later in the session
    sessions: NDArray[np.int64]  # [B] row of the session in the log

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, index: NDArray[np.int64] | slice) -> "JudgedStates":
        """The judged states at these rows."""
        return JudgedStates(
            self.states.rows(index), self.targets[index], self.labels[index], self.sessions[index]
        )


Scorer = Callable[[JudgedStates], NDArray[np.float32]]  # -> scores [b, N]


@dataclass(frozen=True)
class RankingScores:
    """What one policy earned on every judged state."""

    gains: dict[str, NDArray[np.float64]]  # metric: [B], in [0, 1]
    exposure: NDArray[np.int64] = field(repr=False)  # [N] how many top-k lists hold the item


def ranking_states(log: SessionLog, num_tasks: int, history_length: int, max_states: int) -> JudgedStates:
    """The states that are judged: just before each first behaviour on an item in a test session.

    A behaviour on an item that the session has already touched is no new question: ranking it high would only
    repeat what the user already looks at. So each distinct item of a session is asked for once, before its first
    behaviour, and its label says which tasks fire on it from then on.

    Args:
        log: All sessions; those of the test split are judged, in order of start time.
        num_tasks: K.
        history_length: H.
        max_states: The earliest this many are taken.

    Returns:
        At most ``max_states`` judged states; none where the log has no test session.
    """
    lengths = np.diff(log.offsets)
    session_of_row = np.repeat(np.arange(len(lengths)), lengths)  # [M]
    rows = np.flatnonzero(
        log.split[session_of_row] == SPLITS.index("test")
    )  # test behaviours, in session and time order
    pairs = np.stack([session_of_row[rows], log.items[rows]], axis=1)
    _, first, pair = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    labels = np.zeros((len(first), num_tasks), dtype=bool)  # [pairs, K]
    labels[pair.reshape(-1), log.tasks[rows]] = True
    order = np.argsort(first)[:max_states]
    first = first[order]
    sessions = session_of_row[rows[first]]
    num_before = rows[first] - log.offsets[sessions]
    return JudgedStates(
        states=log.states(sessions, num_before, history_length),
        targets=log.items[rows[first]],
        labels=labels[order],
        sessions=sessions,
    )


def expected_gains(
    better: NDArray[np.int64], tied: NDArray[np.int64], k: int
) -> dict[str, NDArray[np.float64]]:
    """Hit, NDCG and reciprocal rank at k of one relevant item, ties broken at random, in expectation.

    A target with ``better`` items above and ``tied`` beside it has each rank from better+1 to better+tied+1 with
    equal probability; constant scores thus earn exactly what random order earns.

    Args:
        better: Items that score higher than the target. int64 [B].
        tied: Other items with the target's score. int64 [B].
        k: Length of the list.

    Returns:
        ``hit``, ``ndcg`` and ``mrr``, each float64 [B], in [0, 1].

    Source:
        McSherry and Najork 2008, "Computing information retrieval performance measures efficiently in the presence
        of tied scores".
    """
    ranks = np.arange(1, k + 1)
    gains = {"hit": np.ones(k), "ndcg": 1 / np.log2(ranks + 1), "mrr": 1 / ranks}
    low, high = np.minimum(better, k), np.minimum(better + tied + 1, k)
    out = {}
    for name, gain in gains.items():
        total = np.concatenate([[0.0], np.cumsum(gain)])  # [k+1]
        out[name] = (total[high] - total[low]) / (tied + 1)
    return out


def score_ranking(
    judged: JudgedStates, scorer: Scorer, num_items: int, k: int, batch_scores: int, name: str = "policy"
) -> RankingScores:
    """Rank every target over the full catalogue. Memory is bounded by ``batch_scores`` = states times items.

    Items of the session so far stand back for every policy alike: a target is by construction none of them.

    Raises:
        ValueError: Scores have another shape than [b, N], or one of them is NaN.
    """
    size = max(1, min(4096, batch_scores // num_items))
    better, tied = np.zeros(len(judged), np.int64), np.zeros(len(judged), np.int64)
    exposure = np.zeros(num_items, np.int64)
    for start in range(0, len(judged), size):
        part = judged.rows(slice(start, start + size))
        scores = np.array(scorer(part), dtype=np.float32)  # [b, N]
        if scores.shape != (len(part), num_items):
            raise ValueError(
                f"scores of {name}: expected shape {(len(part), num_items)}, got {scores.shape}."
            )
        if np.isnan(scores).any():
            raise ValueError(f"scores of {name}: expected numbers, got NaN. Train the policy again.")
        _put_last(scores, part.states.history_items, part.targets)
        own = np.take_along_axis(scores, part.targets[:, None], axis=1)  # [b, 1]
        better[start : start + size] = (scores > own).sum(axis=1)
        tied[start : start + size] = (scores == own).sum(axis=1) - 1
        exposure += np.bincount(top_items(scores, min(k, num_items)).reshape(-1), minlength=num_items)
    return RankingScores(expected_gains(better, tied, k), exposure)


def top_items(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k highest scores of each row, in no order. Scores [B, N] give int64 [B, k]."""
    return np.asarray(np.argpartition(-scores, k - 1, axis=1)[:, :k], dtype=np.int64)


def task_estimates(
    scores: RankingScores, judged: JudgedStates, task: int, bootstrap: Bootstrap
) -> dict[str, Estimate] | None:
    """Estimate of each metric over the states on which the task fires, or None where there is no such state."""
    rows = judged.labels[:, task]
    if not rows.any():
        return None
    gains = np.stack([scores.gains[metric][rows] for metric in METRICS], axis=1)  # [b, 3]
    return dict(zip(METRICS, mean_intervals(gains, judged.sessions[rows], bootstrap), strict=True))


def ndcg_margin(
    candidate: RankingScores,
    reference: RankingScores,
    judged: JudgedStates,
    task: int,
    max_loss: float,
    bootstrap: Bootstrap,
) -> Estimate | None:
    """Candidate's NDCG minus what the reference's leaves after the allowed relative loss; paired, by session.

    Below 0 the candidate loses more than allowed. None where the task fires on no judged state.
    """
    rows = judged.labels[:, task]
    if not rows.any():
        return None
    margin = candidate.gains["ndcg"][rows] - (1 - max_loss) * reference.gains["ndcg"][rows]
    return mean_intervals(margin[:, None], judged.sessions[rows], bootstrap)[0]


def coverage_and_gini(scores: RankingScores, judged: JudgedStates) -> tuple[float, float]:
    """Share of the catalogue that appears in at least one top-k list, and Gini coefficient of exposure.

    0 is even exposure of all items, near 1 is all exposure on one item. Both 0 where no list was made.
    """
    exposure = np.sort(scores.exposure).astype(np.float64)
    n, total = len(exposure), exposure.sum()
    if len(judged) == 0 or total == 0:
        return 0.0, 0.0
    gini = 2 * (np.arange(1, n + 1) * exposure).sum() / (n * total) - (n + 1) / n
    return float((exposure > 0).mean()), float(max(gini, 0.0))


def ranking_table(
    scores: Mapping[str, RankingScores],
    judged: JudgedStates,
    task_names: Sequence[str],
    k: int,
    bootstrap: Bootstrap,
) -> dict[str, list[dict[str, object]]]:
    """The report's ``ranking``: for each task one row a policy, empty where the task fires on no judged state."""
    table: dict[str, list[dict[str, object]]] = {}
    for task, task_name in enumerate(task_names):
        rows: list[dict[str, object]] = []
        for name, result in scores.items():
            estimates = task_estimates(result, judged, task, bootstrap)
            if estimates is not None:
                figures = {f"{metric}@{k}": estimate.to_json() for metric, estimate in estimates.items()}
                rows.append({"name": name, **figures})
        table[task_name] = rows
    return table


def _put_last(scores: NDArray[np.float32], history: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
    row, column = np.nonzero((history >= 0) & (history != targets[:, None]))
    scores[row, history[row, column]] = -np.inf
