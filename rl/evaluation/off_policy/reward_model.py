"""A cross-fitted reward model: what each item earns at each position, judged by other sessions than its own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Expect = Callable[[NDArray[np.int64], Floats], Floats]


@dataclass(frozen=True)
class ItemRewards:
    """Expected reward of an item at a position: item effect times position effect, per task."""

    item: Floats  # [N, K] mean reward at an average position, pulled towards the mean of all items
    position: Floats  # [L, K] how much of it a position earns; its mean over shown positions is 1

    def logged(self, items: Ints) -> Floats:
        """Prediction for each shown item, 0 where the slate is empty. int64 [R, L] gives float64 [R, L, K]."""
        found = self.item[np.maximum(items, 0)] * self.position[: items.shape[1]]
        return np.where((items >= 0)[..., None], found, 0.0)


def fit_item_rewards(items: Ints, rewards: Floats, num_items: int, prior_shows: float) -> ItemRewards:
    """Item and position effects by shrunk means.

    Args:
        items: Shown items, -1 where empty. int64 [R, L].
        rewards: By position. float64 [R, L, K].
        num_items: Catalogue size, N.
        prior_shows: Shows' worth of the mean of all items that every item starts with, > 0.
    """
    shown = items >= 0
    total = max(int(shown.sum()), 1)
    mean = rewards[shown].sum(axis=0) / total  # [K]
    safe = np.where(mean != 0, mean, 1.0)
    counts = np.maximum(shown.sum(axis=0), 1)[:, None]  # [L, 1]
    position = np.where(mean != 0, rewards.sum(axis=0) / counts / safe, 1.0)  # [L, K]
    row, place = np.nonzero(shown)
    exposure, earned = np.zeros((num_items, len(mean))), np.zeros((num_items, len(mean)))
    np.add.at(exposure, items[row, place], position[place])
    np.add.at(earned, items[row, place], rewards[row, place])
    item = (earned + prior_shows * mean) / (exposure + prior_shows)
    return ItemRewards(item, position)


def cross_fitted(
    items: Ints,
    rewards: Floats,
    sessions: Ints,
    num_items: int,
    expect: Expect,
    num_folds: int = 5,
    prior_shows: float = 20.0,
) -> tuple[Floats, Floats]:
    """Predictions of reward models that never saw the session they predict.

    Args:
        items: Shown items, -1 where empty. int64 [R, L].
        rewards: By position. float64 [R, L, K].
        sessions: Session of each slate. int64 [R].
        num_items: Catalogue size, N.
        expect: Mean of values of each item under the target policy's choice at each position, given the items shown
            above: takes rows int64 [r] and values float64 [N, K], returns float64 [r, L, K].
        num_folds: Parts of the sessions; at least 2.
        prior_shows: As for ``fit_item_rewards``.

    Returns:
        Prediction for the items shown, and its mean under the target policy; each float64 [R, L, K].

    Raises:
        ValueError: There are fewer than two sessions.

    Source:
        Chernozhukov et al. 2018, "Double/debiased machine learning", for why the folds.
    """
    _, index = np.unique(sessions, return_inverse=True)
    num_folds = min(num_folds, int(index.max(initial=-1)) + 1)
    if num_folds < 2:
        raise ValueError("reward model: expected at least two sessions to fit and judge by, got fewer.")
    fold = index % num_folds  # [R]
    logged, target = np.zeros_like(rewards), np.zeros_like(rewards)
    empty = (items < 0)[..., None]
    for part in range(num_folds):
        rows = np.flatnonzero(fold == part)
        model = fit_item_rewards(items[fold != part], rewards[fold != part], num_items, prior_shows)
        logged[rows] = model.logged(items[rows])
        means = expect(rows, model.item) * model.position[: items.shape[1]]  # [r, L, K]
        target[rows] = np.where(empty[rows], 0.0, means)
    return logged, target
