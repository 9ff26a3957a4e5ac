"""The simulator's strongest simple rival: gradient-boosted trees on features that any team would write down first."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from rl.simulator.steps import Steps

MAX_SESSIONS = 10_000  # latest ones learned from
SHRINK = 20  # showings' worth of the base rate in an item's own rate

Floats = NDArray[np.float64]


def boosted_chances(train: Steps, test: Steps, num_items: int, seed: int) -> Floats:
    """Chance of each task on each shown item of the test steps, in their order.

    A training session's item rates come from the other half of the sessions, or trees would read the answer in them.

    Returns:
        float64 [n, K].
    """
    train = train.rows(torch.arange(len(train))[-MAX_SESSIONS:])
    halves = [train.rows(torch.arange(part, len(train), 2)) for part in (0, 1)]
    pairs = zip(halves, halves[::-1], strict=True)
    known = np.concatenate([features(own, *item_rates(other, num_items)) for own, other in pairs])
    fired = np.concatenate([_shown(half.responses, half) > 0 for half in halves])  # [m, K]
    asked = features(test, *item_rates(train, num_items))
    out = np.empty((len(asked), fired.shape[1]))
    for task in range(fired.shape[1]):
        label = fired[:, task]
        if label.all() or not label.any():  # nothing to tell apart
            out[:, task] = label.mean()
            continue
        trees = HistGradientBoostingClassifier(
            max_iter=200, early_stopping=True, validation_fraction=0.1, random_state=seed
        )
        out[:, task] = trees.fit(known, label).predict_proba(asked)[:, 1]
    return out


def item_rates(steps: Steps, num_items: int) -> tuple[Floats, Floats]:
    """Rates of each task by item, shrunk to the base rate [N, K], and showings [N]."""
    items = _shown(steps.items[..., None], steps)[:, 0].astype(np.int64)
    fired = _shown(steps.responses, steps)
    shown = np.bincount(items, minlength=num_items).astype(np.float64)
    taken = np.stack([np.bincount(items, weights=column, minlength=num_items) for column in fired.T], 1)
    return (taken + SHRINK * fired.mean(0)) / (shown + SHRINK)[:, None], shown


def features(steps: Steps, rates: Floats, showings: Floats) -> Floats:
    """What the trees see of each shown item of known steps, session by session, step by step. float64 [n, F].

    Its rates and showings, its slate's mean rates, position, step, responses by task and unanswered slates of the
    session so far, and how often the session saw and took the item before.
    """
    items, responses = steps.items.numpy(), steps.responses.numpy().astype(np.float64)
    shown = (items >= 0) & steps.known.numpy()[..., None]  # [S, T, L]
    own = np.where(shown[..., None], rates[items], 0.0)  # [S, T, L, K]
    slate = own.sum(2) / np.maximum(shown.sum(2), 1)[..., None]  # [S, T, K]
    counts = responses.sum(2)  # [S, T, K]
    ignored = (counts.sum(-1, keepdims=True) == 0).astype(np.float64)
    passed = np.concatenate([counts, ignored], -1)
    before = np.cumsum(passed, 1) - passed  # [S, T, K + 1]
    where = np.nonzero(shown)
    seen, taken = _met_before(where[0], items[shown], responses.max(-1)[shown])
    columns = [own[shown], np.log1p(showings[items[shown]]), slate[where[:2]], where[2], where[1]]
    return np.column_stack([*columns, before[where[:2]], seen, taken])


def _met_before(
    session: NDArray[np.int64], items: NDArray[np.int64], took: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """How often an item was shown, and taken, earlier in its session, of showings in order of time."""
    order = np.lexsort((items, session))  # stable: of equal ones the earlier first
    pair = np.stack([session[order], items[order]])
    starts = np.flatnonzero(np.r_[True, (pair[:, 1:] != pair[:, :-1]).any(0)])
    first = np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    sums = np.cumsum(took[order]) - took[order]
    seen, taken = np.empty(len(order), dtype=np.int64), np.empty(len(order))
    seen[order], taken[order] = np.arange(len(order)) - first, sums - sums[first]
    return seen, taken


def _shown(values: torch.Tensor, steps: Steps) -> Floats:
    """Rows of [S, T, L, ...] that belong to shown items of known steps. float64 [n, ...]."""
    found: Floats = values[steps.known][steps.items[steps.known] >= 0].double().numpy()
    return found
