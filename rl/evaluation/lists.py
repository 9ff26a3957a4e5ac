"""What a policy's lists look like as a whole: coverage, exposure, diversity, novelty, calibration to taste."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoders.sessions import SPLITS, SessionLog
from rl.evaluation.intervals import Bootstrap, mean_intervals
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import JudgedStates, RankingScores
from rl.evaluation.rivals import unit

BATCH = 1024  # lists whose items' embeddings are held at once
MAX_CATEGORIES = 50  # the largest; the others count as one
BLEND = 0.01  # share of the user's taste mixed into a list's, so that the divergence is finite

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """What the lists' items are like."""

    embeddings: NDArray[np.float32]  # [N, D] of length 1
    behaviours: NDArray[np.int64]  # [N] in the train split
    categories: NDArray[np.int64] | None  # [N] index into names; None where no item has one
    category_names: tuple[str, ...]
    groups: NDArray[np.int64] | None  # [N] likewise
    group_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.behaviours)


def build_catalogue(
    log: SessionLog,
    embeddings: NDArray[np.float32],
    categories: Sequence[str | None] | None,
    groups: Sequence[str | None] | None,
) -> Catalogue:
    """The catalogue of a log.

    Args:
        log: Its train split says how known an item is.
        embeddings: float32 [N, D].
        categories: One an item, such as its ``category``; None where the item table has no such column.
        groups: Likewise, for fairness.
    """
    train = np.repeat(log.split == SPLITS.index("train"), np.diff(log.offsets))
    behaviours = np.bincount(log.items[train], minlength=len(embeddings))
    category, category_names = _numbered(categories)
    group, group_names = _numbered(groups)
    return Catalogue(unit(embeddings), behaviours, category, category_names, group, group_names)


def coverage_and_gini(lists: NDArray[np.int32], num_items: int) -> tuple[float, float]:
    """Share of the catalogue that appears in at least one list, and Gini coefficient of exposure.

    0 is even exposure of all items, near 1 is all exposure on one item. Both 0 where no list was made.
    """
    exposure = np.sort(np.bincount(lists.reshape(-1), minlength=num_items)).astype(np.float64)
    n, total = len(exposure), exposure.sum()
    if total == 0:
        return 0.0, 0.0
    gini = 2 * (np.arange(1, n + 1) * exposure).sum() / (n * total) - (n + 1) / n
    return float((exposure > 0).mean()), float(max(gini, 0.0))


def diversity(lists: NDArray[np.int32], embeddings: NDArray[np.float32]) -> Floats:
    """One minus the mean cosine between two items of a list; 0 for lists of one. float64 [B], in [0, 2].

    Args:
        lists: Item index. int32 [B, k].
        embeddings: Of length 1. float32 [N, D].

    Source:
        Ziegler et al. 2005, "Improving recommendation lists through topic diversification". For unit vectors the
        k (k - 1) cosines of a list sum to the squared length of its items' sum, less k.
    """
    k = lists.shape[1]
    if k < 2:
        return np.zeros(len(lists))
    out = np.empty(len(lists))
    for start in range(0, len(lists), BATCH):
        items = embeddings[lists[start : start + BATCH]]  # [b, k, D]
        own = np.einsum("bkd,bkd->b", items, items)  # k, less where an embedding is zero
        total = items.sum(axis=1)
        out[start : start + BATCH] = 1 - (np.einsum("bd,bd->b", total, total) - own) / (k * (k - 1))
    return out


def novelty(lists: NDArray[np.int32], behaviours: NDArray[np.int64]) -> Floats:
    """Mean surprise of a list's items, -log2 of an item's share of the train behaviours, one added to each. [B], bits.

    Source:
        Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".
    """
    share = (behaviours + 1) / (behaviours.sum() + len(behaviours))
    return np.asarray(-np.log2(share)[lists].mean(axis=1))


def miscalibration(
    lists: NDArray[np.int32], known: sparse.csr_matrix, categories: NDArray[np.int64]
) -> Floats:
    """Divergence of a list's categories from those of the items its user acted on; nan where there are none. [B], nats.

    KL(p, q) with p the share of each category among the user's items and q that of the list, blended with a
    hundredth of p. 0 is a list in the user's own proportions.

    Args:
        lists: int32 [B, k].
        known: Items that the user acted on before. [B, N], 0 or 1.
        categories: Category of each item, from 0. int64 [N].

    Source:
        Steck 2018, "Calibrated recommendations", eqs. 3 to 6 without time weights.
    """
    num, rows = int(categories.max()) + 1, np.arange(len(lists))
    member = sparse.csr_matrix(
        (np.ones(len(categories)), categories, np.arange(len(categories) + 1))
    )  # [N, C]
    taste = np.asarray((known @ member).toarray(), dtype=np.float64)  # [B, C]
    total = taste.sum(axis=1, keepdims=True)
    shown = np.bincount((rows[:, None] * num + categories[lists]).reshape(-1), minlength=len(lists) * num)
    p = taste / np.maximum(total, 1)
    q = (1 - BLEND) * shown.reshape(-1, num) / lists.shape[1] + BLEND * p
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0.0)
    return np.where(total[:, 0] > 0, terms.sum(axis=1), np.nan)


def list_table(
    scores: Mapping[str, RankingScores],
    judged: JudgedStates,
    catalogue: Catalogue,
    pasts: UserPasts,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """The report's ``lists``: one row a policy. Calibration is null where items have no category."""
    calibration = _all_miscalibration(scores, judged, catalogue, pasts)  # [B, P] or None
    table = []
    for number, (name, result) in enumerate(scores.items()):
        coverage, gini = coverage_and_gini(result.lists, len(catalogue))
        row: dict[str, Any] = {"name": name, "coverage": coverage, "gini": gini}
        row |= {"diversity": None, "novelty": None, "calibration": None}
        if len(judged):
            columns = [
                diversity(result.lists, catalogue.embeddings),
                novelty(result.lists, catalogue.behaviours),
            ]
            figures = mean_intervals(np.stack(columns, axis=1), judged.sessions, bootstrap)
            row |= {"diversity": figures[0].to_json(), "novelty": figures[1].to_json()}
        if calibration is not None:
            known = ~np.isnan(calibration[:, number])
            if known.any():
                values = calibration[known, number][:, None]
                row["calibration"] = mean_intervals(values, judged.sessions[known], bootstrap)[0].to_json()
        table.append(row)
    return table


def _all_miscalibration(
    scores: Mapping[str, RankingScores], judged: JudgedStates, catalogue: Catalogue, pasts: UserPasts
) -> Floats | None:
    if catalogue.categories is None or not len(judged):
        return None
    out = np.empty((len(judged), len(scores)))
    for start in range(0, len(judged), BATCH):
        rows = slice(start, start + BATCH)
        part = judged.rows(rows)
        known = pasts.known_items(part.states, part.sessions, len(catalogue))
        for number, result in enumerate(scores.values()):
            out[rows, number] = miscalibration(result.lists[rows], known, catalogue.categories)
    return out


def _numbered(values: Sequence[str | None] | None) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Numbers of the texts, the most frequent first, those beyond the fiftieth and the missing as one more."""
    if values is None or all(value is None for value in values):
        return None, ()
    texts = np.array([value or "" for value in values])
    names, index, counts = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.argsort(-np.where(names == "", 0, counts), kind="stable")
    kept = [int(i) for i in order if names[i] != ""][:MAX_CATEGORIES]
    number = np.full(len(names), len(kept))
    number[kept] = np.arange(len(kept))
    labels = tuple(str(names[i]) for i in kept)
    return number[index], (*labels, "other") if (number[index] == len(kept)).any() else labels
