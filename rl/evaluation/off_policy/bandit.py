"""Estimators of the reward a slate, each slate a decision of its own.

All return one contribution a slate and task, float64 [R, K]. Their mean over slates is the estimate; their spread,
over sessions, is its error. Those that divide by a mean weight return their linearised contributions, which have the
same mean as the estimate and the spread of its first-order error, so that one interval serves all.

Common arguments: ``importance`` float64 [R], weights as of ``weights.importance_weights``; ``rewards`` float64 [R, K];
``logged`` and ``target`` float64 [R, K], the reward model's prediction for the slate shown and its mean over the
target policy's slates (``reward_model``). In the formulas w, r, q and q' in this order, over R slates.
"""

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.off_policy.weights import clipped, optimistically_shrunk, shrunk

Floats = NDArray[np.float64]


def ips(importance: Floats, rewards: Floats) -> Floats:
    """Inverse propensity scoring, mean(w r): unbiased where the logging policy can show all that the target can.

    Source:
        Horvitz and Thompson 1952; Strehl et al. 2010.
    """
    _check(importance, rewards)
    return importance[:, None] * rewards


def snips(importance: Floats, rewards: Floats) -> Floats:
    """Self-normalised IPS, sum(w r) / sum(w): a little biased, far less variance. 0 where there is no weight.

    Source:
        Swaminathan and Joachims 2015, "The self-normalized estimator for counterfactual learning".
    """
    _check(importance, rewards)
    return _self_normalised(importance, rewards)


def clipped_ips(importance: Floats, rewards: Floats, cap: float) -> Floats:
    """mean(min(w, cap) r): low for positive rewards, bounded variance.

    Source:
        Ionides 2008; Bottou et al. 2013.
    """
    return ips(clipped(importance, cap), rewards)


def shrunk_ips(importance: Floats, rewards: Floats, strength: float) -> Floats:
    """IPS with weights w / (1 - strength + strength w); ``strength`` in [0, 1].

    Source:
        Metelli et al. 2021, NeurIPS.
    """
    return ips(shrunk(importance, strength), rewards)


def direct(target: Floats) -> Floats:
    """Direct method, mean(q'): no weights at all, as biased as the reward model.

    Source:
        Beygelzimer and Langford 2009, "The offset tree".
    """
    return target


def doubly_robust(importance: Floats, rewards: Floats, logged: Floats, target: Floats) -> Floats:
    """mean(q' + w (r - q)): right where either the propensities or the reward model are.

    Source:
        Dudik, Langford and Li 2011, ICML.
    """
    _check(importance, rewards, logged, target)
    return target + importance[:, None] * (rewards - logged)


def self_normalised_doubly_robust(
    importance: Floats, rewards: Floats, logged: Floats, target: Floats
) -> Floats:
    """mean(q') + sum(w (r - q)) / sum(w).

    Source:
        Thomas and Brunskill 2016; Kallus and Uehara 2019.
    """
    _check(importance, rewards, logged, target)
    return target + _self_normalised(importance, rewards - logged)


def switch_doubly_robust(
    importance: Floats, rewards: Floats, logged: Floats, target: Floats, limit: float
) -> Floats:
    """mean(q' + w 1[w <= limit] (r - q)): where weights are large, the reward model alone.

    Source:
        Wang, Agarwal and Dudik 2017, ICML; the form of Su et al. 2020.
    """
    kept = np.where(importance <= limit, importance, 0.0)
    return doubly_robust(kept, rewards, logged, target)


def shrunk_doubly_robust(
    importance: Floats, rewards: Floats, logged: Floats, target: Floats, strength: float
) -> Floats:
    """Doubly robust with optimistic shrinkage (DRos), weights strength w / (w^2 + strength).

    Source:
        Su et al. 2020, ICML.
    """
    return doubly_robust(optimistically_shrunk(importance, strength), rewards, logged, target)


def _self_normalised(importance: Floats, values: Floats) -> Floats:
    """theta + w (x - theta) / mean(w), with theta = sum(w x) / sum(w): mean theta, spread of its first-order error."""
    total = float(importance.sum())
    if total <= 0:
        return np.zeros_like(values)
    theta = importance @ values / total  # [K]
    return np.asarray(theta + importance[:, None] * (values - theta) * (len(importance) / total))


def _check(importance: Floats, *tables: Floats) -> None:
    for table in tables:
        if table.ndim != 2 or len(table) != len(importance) or table.shape != tables[0].shape:
            raise ValueError(
                f"off-policy estimate: expected rewards and predictions of shape [{len(importance)}, K], "
                f"got {table.shape}."
            )
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise ValueError(
            "off-policy estimate: expected finite weights of at least 0. Leave out slates of unknown propensity."
        )
