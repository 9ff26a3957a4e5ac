"""Off-policy estimates: what a policy would have earned on the slates that another one showed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import LoggedSlates
from rl.evaluation.intervals import Bootstrap, Estimate, bootstrap_intervals, group_sums
from rl.tasks import Tasks

Floats = NDArray[np.float64]
ESTIMATORS = ("ips", "snips", "clipped_ips")


@dataclass(frozen=True)
class WeightedSlates:
    """Logged slates whose propensity is known, with what a target policy's importance weights need."""

    importance: Floats  # [R] target probability of the slate / its propensity
    rewards: Floats  # [R, K]
    sessions: NDArray[np.int64]  # [R]


def slate_rewards(slates: LoggedSlates, tasks: Tasks) -> Floats:
    """Signed reward of each slate per task, summed over its positions: 1 a response, or the responses' values.

    Returns:
        float64 [R, K].
    """
    paid = np.where(tasks.pays_value, slates.values, slates.responses)  # [R, L, K]
    return np.asarray(paid.sum(axis=1, dtype=np.float64) * tasks.signs)


def importance_weights(target_log_probs: Floats, propensities: Floats, items: NDArray[np.int64]) -> Floats:
    """Target probability of each whole slate over its propensity; nan where a shown item's propensity is unknown.

    Args:
        target_log_probs: Log-probability of each item at its position given those above, under the target policy.
            float64 [R, L].
        propensities: The same as probability, under the logging policy; nan unknown. float64 [R, L].
        items: Item index, -1 where the slate is empty. int64 [R, L].

    Returns:
        float64 [R], >= 0.

    Raises:
        ValueError: A propensity is outside (0, 1], or the shapes differ.
    """
    if not target_log_probs.shape == propensities.shape == items.shape:
        raise ValueError(
            "importance weights: expected log-probabilities, propensities and items of one shape, got "
            f"{target_log_probs.shape}, {propensities.shape} and {items.shape}."
        )
    shown = items >= 0
    wrong = shown & ~np.isnan(propensities) & ((propensities <= 0) | (propensities > 1 + 1e-9))
    if wrong.any():
        raise ValueError(f"propensity: expected in (0, 1], got {propensities[wrong][0]}. Correct the log.")
    log_propensity = np.log(np.where(shown, propensities, 1.0)).sum(axis=1)
    log_target = np.where(shown, target_log_probs, 0.0).sum(axis=1)
    return np.asarray(np.exp(log_target - log_propensity))


def effective_sample_size(importance: Floats) -> float:
    """Number of equally weighted slates that would say as much: (sum w)^2 / sum w^2. 0 without weight.

    Source:
        Kish 1965; Kong 1992.
    """
    square = float((importance**2).sum())
    return float(importance.sum() ** 2 / square) if square > 0 else 0.0


def estimate_values(slates: WeightedSlates, cap: float, bootstrap: Bootstrap) -> dict[str, list[Estimate]]:
    """Mean reward a slate under the target policy, by each estimator. Intervals resample whole sessions.

    With w the importance weight and r the reward of a slate, over R slates:

    - ``ips`` = sum(w r) / R; unbiased where the logging policy can show all that the target can.
    - ``snips`` = sum(w r) / sum(w); a little biased, far less variance.
    - ``clipped_ips`` = sum(min(w, cap) r) / R; low for positive rewards, bounded variance.

    Args:
        slates: R of them, K tasks.
        cap: Largest weight of the clipped estimate.
        bootstrap: How to resample.

    Returns:
        K estimates by estimator name; n counts sessions.

    Raises:
        ValueError: There is no slate, or a weight or reward is not finite.

    Source:
        Horvitz and Thompson 1952; Swaminathan and Joachims 2015 (SNIPS); Ionides 2008 and Bottou et al. 2013
        (clipping).
    """
    k = slates.rewards.shape[1]
    sums = _sums(slates, cap)

    def statistic(total: Floats) -> Floats:
        weighted, clipped, weight, rows = total[:, :k], total[:, k : 2 * k], total[:, -2:-1], total[:, -1:]
        return np.concatenate([weighted / rows, _ratio(weighted, weight), clipped / rows], axis=1)  # [R, 3K]

    estimates = bootstrap_intervals(sums, statistic, bootstrap)
    return {name: estimates[i * k : (i + 1) * k] for i, name in enumerate(ESTIMATORS)}


def logged_values(slates: WeightedSlates, bootstrap: Bootstrap) -> list[Estimate]:
    """Mean reward a slate as logged: the logging policy's own value. K estimates."""
    return bootstrap_intervals(*_logged(slates), bootstrap)


def snips_gain(slates: WeightedSlates, bootstrap: Bootstrap) -> list[Estimate]:
    """SNIPS of the target minus the logged mean reward, both on the same resamples. K estimates."""
    k = slates.rewards.shape[1]
    sums = np.column_stack([_sums(slates, np.inf), group_sums(slates.rewards, slates.sessions)])

    def statistic(total: Floats) -> Floats:
        rows, logged = total[:, 2 * k + 1 : 2 * k + 2], total[:, 2 * k + 2 :]
        return _ratio(total[:, :k], total[:, 2 * k : 2 * k + 1]) - logged / rows

    return bootstrap_intervals(sums, statistic, bootstrap)


def _sums(slates: WeightedSlates, cap: float) -> Floats:
    """Sums a session of w r, min(w, cap) r, w and 1. float64 [G, 2K + 2]."""
    w = slates.importance[:, None]
    rows = [w * slates.rewards, np.minimum(w, cap) * slates.rewards, w, np.ones_like(w)]
    return group_sums(np.concatenate(rows, axis=1), slates.sessions)


def _logged(slates: WeightedSlates) -> tuple[Floats, Callable[[Floats], Floats]]:
    sums = group_sums(np.column_stack([slates.rewards, np.ones(len(slates.rewards))]), slates.sessions)
    return sums, lambda total: total[:, :-1] / total[:, -1:]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Numerator over denominator; 0 where a resample has no weight at all, as it then has no reward either."""
    return np.asarray(numerator / np.where(denominator > 0, denominator, 1.0))
