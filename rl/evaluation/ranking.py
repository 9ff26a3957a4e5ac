"""Ranking: where in the full catalogue a policy puts the items that a session will turn to next."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.sessions import SPLITS, SessionLog
from encoders.state import States
from rl.evaluation.intervals import Bootstrap, Estimate, mean_intervals

METRICS = ("hit", "ndcg", "mrr")
BLOCK = 128  # items whose highest score stands for them
MANY = 8  # times k items a row above the bound: sorting them would cost more than it saves


@dataclass(frozen=True)
class JudgedStates:
    """States of later sessions, each with one item that the user is about to turn to for the first time in it."""

    log: SessionLog
    sessions: NDArray[np.int64]  # [B] row of the session in the log
    before: NDArray[np.int64]  # [B] behaviours of the session that the state knows
    targets: NDArray[np.int64]  # [B] item index
    labels: NDArray[np.bool_]  # [B, K] whether the task fires on the item, now or later in the session
    history_length: int  # H

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def states(self) -> States:
        """What a policy sees. Built when it is asked for: a million pasts at once would not fit."""
        return self.log.states(self.sessions, self.before, self.history_length)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "JudgedStates":
        """The judged states at these rows."""
        return JudgedStates(
            log=self.log,
            sessions=self.sessions[index],
            before=self.before[index],
            targets=self.targets[index],
            labels=self.labels[index],
            history_length=self.history_length,
        )


# States and the session [B] that each belongs to, by which a rival may look up its user: -> scores [B, N].
Scorer = Callable[[States, NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class RankingScores:
    """What one policy earned on every judged state, and the lists it made."""

    gains: dict[str, NDArray[np.float64]]  # metric: [B], in [0, 1]
    lists: NDArray[np.int32]  # [B, k] item index, best first


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
    targets = log.items[rows[first]]
    return JudgedStates(log, sessions, num_before, targets, labels[order], history_length)


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
    lists = np.zeros((len(judged), min(k, num_items)), np.int32)

    def rank(rows: slice, part: JudgedStates, scores: NDArray[np.float32]) -> None:
        put_last(scores, part.states.history_items, part.targets)
        own = np.take_along_axis(scores, part.targets[:, None], axis=1)  # [b, 1]
        better[rows] = _count(scores > own)
        tied[rows] = _count(scores == own) - 1
        lists[rows] = top_items(scores, k)

    with ThreadPoolExecutor(
        1
    ) as pool:  # ranks a batch while the next is scored; NumPy and torch let go of Python
        waiting: Future[None] | None = None
        for start in range(0, len(judged), size):
            rows = slice(start, start + size)
            part = judged.rows(rows)
            scores = _checked_scores(scorer(part.states, part.sessions), (len(part), num_items), name)
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(rank, rows, part, scores)
        if waiting is not None:
            waiting.result()
    return RankingScores(expected_gains(better, tied, k), lists)


def _checked_scores(scored: NDArray[np.float32], shape: tuple[int, int], name: str) -> NDArray[np.float32]:
    """A copy of our own."""
    scores = np.array(scored, dtype=np.float32)  # [b, N]
    if scores.shape != shape:
        raise ValueError(f"scores of {name}: expected shape {shape}, got {scores.shape}.")
    if np.isnan(scores).any():
        raise ValueError(f"scores of {name}: expected numbers, got NaN. Train the policy again.")
    return scores


def top_items(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k highest scores of each row, best first. Scores [B, N] give int64 [B, min(k, N)].

    The k-th highest of the maxima of blocks bounds the k-th highest score from below, so that only the few items
    above it need sorting. Rows that tie, or are short, go to torch's selection, which is three times slower.
    """
    table, k = torch.from_numpy(scores), min(k, scores.shape[1])
    blocks = scores.shape[1] // BLOCK
    if blocks < k:
        return np.asarray(table.topk(k).indices.numpy())
    maxima = torch.unflatten(table[:, : blocks * BLOCK], 1, (blocks, BLOCK)).amax(2)
    above = scores >= maxima.topk(k).values[:, -1:].numpy()  # at least k a row
    many = _count(above) > MANY * k
    above[many] = False
    row, column = np.divmod(np.flatnonzero(above), scores.shape[1])
    order = np.lexsort((-scores[row, column], row))
    best = np.empty((len(scores), k), np.int64)
    few = np.flatnonzero(~many)
    best[few] = column[order][np.searchsorted(row, few)[:, None] + np.arange(k)]
    best[many] = table[torch.from_numpy(many)].topk(k).indices.numpy()
    return best


def put_last(
    scores: NDArray[np.float32], history: NDArray[np.int64], targets: NDArray[np.int64] | None = None
) -> None:
    """Take the items of the session so far [B, H] out of the running, in place, but never the target [B]."""
    shown = history >= 0
    if targets is not None:
        shown &= history != targets[:, None]
    row, column = np.nonzero(shown)
    scores[row, history[row, column]] = -np.inf


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


def ranking_table(
    scores: Mapping[str, RankingScores],
    judged: JudgedStates,
    task_names: Sequence[str],
    k: int,
    bootstrap: Bootstrap,
) -> dict[str, list[dict[str, object]]]:
    """The report's ``ranking``: for each task one row a policy, empty where the task fires on no judged state.

    A task's figures are over the states on which it fires. All policies share the resampled sessions.
    """
    table: dict[str, list[dict[str, object]]] = {name: [] for name in task_names}
    for task, task_name in enumerate(task_names):
        rows = judged.labels[:, task]
        if not rows.any() or not scores:
            continue
        gains = [result.gains[metric][rows] for result in scores.values() for metric in METRICS]
        estimates = mean_intervals(np.stack(gains, axis=1), judged.sessions[rows], bootstrap)  # P * 3
        for number, name in enumerate(scores):
            own = estimates[number * len(METRICS) : (number + 1) * len(METRICS)]
            figures = {f"{metric}@{k}": e.to_json() for metric, e in zip(METRICS, own, strict=True)}
            table[task_name].append({"name": name, **figures})
    return table


def _count(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many are set in each row. bool [B, N] gives int64 [B]."""
    packed = np.packbits(mask, axis=1)
    return np.asarray(np.bitwise_count(packed).sum(axis=1, dtype=np.int64))
