"""The bandit rival: the next slate's reward from what was logged, with no thought of what follows."""

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import SPLITS, LoggedSlates, SessionLog
from encoders.state import States
from rl.evaluation.ranking import Scorer
from rl.tasks import Tasks

WIDTH = 16  # leading directions of item and past embeddings
RIDGE = 10.0  # price of the crossed features, in rows
SHRINK = 20.0  # rows at the mean that an item's own rate is drawn to


def bandit_scorer(log: SessionLog, embeddings: NDArray[np.float32], tasks: Tasks) -> Scorer | None:
    """A contextual bandit: linear in item by past, fitted on the train split's logged slates; None without them.

    An item's score is its shrunk mean weighted reward a showing, plus a ridge regression of what is left on the
    outer product of item and past directions. It plays its best slate and does not explore, as a gate judges it.

    Args:
        log: All sessions.
        embeddings: Of the items. float32 [N, D].
        tasks: Their weights and signs make one reward.

    Source:
        Li et al. 2010, arXiv:1003.0146 (the hybrid linear model), without its exploration bonus.
    """
    if log.slates is None:
        return None
    kept = log.split[log.slates.session] == SPLITS.index("train")
    items = log.slates.items[kept]
    if not len(items):
        return None
    row, column = np.nonzero(items >= 0)
    item, reward = items[row, column], _item_rewards(log.slates, tasks)[kept][row, column]
    shown = np.bincount(item, minlength=len(embeddings))
    mean = reward.mean()
    base = (np.bincount(item, weights=reward, minlength=len(embeddings)) + SHRINK * mean) / (shown + SHRINK)
    item_directions = _directions(embeddings)
    past_directions = _directions(log.past[log.split == SPLITS.index("train")])
    item_features = _features(embeddings, item_directions)  # [N, P]
    past = _features(log.past, past_directions)[log.slates.session[kept][row]]  # [n, Q]
    crossed = (item_features[item][:, :, None] * past[:, None, :]).reshape(len(item), -1)  # [n, P * Q]
    gram = crossed.T @ crossed + RIDGE * np.eye(crossed.shape[1])
    weights = np.linalg.solve(gram, crossed.T @ (reward - base[item]))
    crossing = weights.reshape(item_features.shape[1], -1)  # [P, Q]

    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        query = _features(states.past, past_directions) @ crossing.T  # [b, P]
        return np.asarray(query @ item_features.T + base, dtype=np.float32)

    return score


def _item_rewards(slates: LoggedSlates, tasks: Tasks) -> NDArray[np.float64]:
    """Weighted signed reward of each position. float64 [R, L]."""
    paid = np.where(tasks.pays_value, slates.values, slates.responses)  # [R, L, K]
    return np.asarray(paid @ (tasks.signs * tasks.weights).astype(np.float64))


def _directions(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean [D], and the leading directions scaled to unit variance [D, W]."""
    mean = vectors.mean(axis=0)
    _, spread, axes = np.linalg.svd(vectors[:20_000] - mean, full_matrices=False)
    kept = min(WIDTH, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()))
    scale = np.sqrt(min(len(vectors), 20_000)) / spread[:kept]
    return mean, np.asarray((axes[:kept].T * scale), dtype=np.float32)


def _features(
    vectors: NDArray[np.float32], directions: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.float64]:
    mean, axes = directions
    return np.asarray((vectors - mean) @ axes, dtype=np.float64)
