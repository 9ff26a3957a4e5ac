"""Which policy ranks better: paired tests over sessions, corrected for how many are made."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rl.evaluation.intervals import Estimate, group_sums
from rl.evaluation.ranking import JudgedStates, RankingScores

Floats = NDArray[np.float64]


def paired_tests(
    differences: Floats, weights: Floats, sessions: NDArray[np.int64], confidence: float
) -> tuple[list[Estimate], Floats]:
    """Weighted mean of each column with its interval, and the p-value of its being 0. Rows of a session are alike.

    The mean is the ratio of two sums over sessions, d_g and w_g. Its variance is that of the residuals
    d_g - mean w_g, and t has one degree of freedom less than there are sessions. Where all sessions weigh the same
    this is the paired t-test.

    Args:
        differences: One policy minus another on the same state. float64 [B, C].
        weights: Of the states, >= 0. float64 [B].
        sessions: Session of each state. int64 [B].
        confidence: Coverage, in (0, 1).

    Returns:
        C estimates, and two-sided p-values [C]; with fewer than two sessions no bounds, and p is 1.

    Source:
        Deng, Knoblich and Lu 2018, "Applying the delta method in metric analytics", arXiv:1803.06336.
    """
    sums = group_sums(np.column_stack([differences * weights[:, None], weights]), sessions)  # [G, C + 1]
    total, n = sums[:, -1].sum(), len(sums)
    means = sums[:, :-1].sum(axis=0) / total
    if n < 2:
        return [Estimate(float(mean), None, None, n) for mean in means], np.ones(len(means))
    residuals = sums[:, :-1] - means * sums[:, -1:]
    error = np.sqrt(n / (n - 1) * (residuals**2).sum(axis=0)) / total  # [C]
    t = np.divide(np.abs(means), error, out=np.where(means == 0, 0.0, np.inf), where=error > 0)
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * error
    estimates = [Estimate(float(m), float(m - h), float(m + h), n) for m, h in zip(means, half, strict=True)]
    return estimates, np.asarray(2 * stats.t.sf(t, n - 1))


def holm(p_values: Floats) -> Floats:
    """p-values corrected for how many tests were made, so that the chance of any false finding is kept. [C].

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values)
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return out


def comparison_table(
    scores: Mapping[str, RankingScores], judged: JudgedStates, task_names: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    """The report's ``comparisons``: NDCG of every two policies on each task, p-values corrected over the table."""
    pairs = list(combinations(scores, 2))
    table, p_values = [], []
    for task, task_name in enumerate(task_names):
        rows = judged.labels[:, task]
        if not rows.any() or not pairs:
            continue
        gains = {name: result.gains["ndcg"][rows] for name, result in scores.items()}
        sums = np.stack([gains[first] - gains[second] for first, second in pairs], axis=1)
        estimates, p = paired_tests(sums, np.ones(len(sums)), judged.sessions[rows], confidence)
        p_values.append(p)
        table += [
            {"task": task_name, "first": first, "second": second, "difference": estimate.to_json()}
            for (first, second), estimate in zip(pairs, estimates, strict=True)
        ]
    adjusted = holm(np.concatenate(p_values)) if p_values else np.zeros(0)
    return [row | {"p": float(p)} for row, p in zip(table, adjusted, strict=True)]
