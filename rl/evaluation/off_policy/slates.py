"""Estimators of the reward a slate that use what users do position by position.

The weight of a whole slate multiplies all positions' weights and soon explodes. Each estimator here assumes how a
response depends on the rest of the slate, and then needs less of it. All return contributions float64 [R, K] as in
``bandit``. Common arguments: ``rewards`` float64 [R, L, K], by position.

    independent          depends on its own item alone        weight of the item at its position
    reward interaction   depends on the items above as well   weight of the positions down to its own
    cascade DR           as reward interaction                the same, on what a reward model leaves unexplained
"""

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.off_policy.weights import cascade_weights

Floats = NDArray[np.float64]


def independent_ips(marginal: Floats, rewards: Floats) -> Floats:
    """mean(sum over positions of w_l r_l), w_l the ratio of the item's marginal probabilities at position l.

    Args:
        marginal: Target over logging probability of the item at its position, whatever stands above. [R, L].
        rewards: float64 [R, L, K].

    Source:
        Li et al. 2018, "Offline evaluation of ranking policies with click models", KDD.
    """
    _check(marginal, rewards)
    return np.asarray((marginal[..., None] * rewards).sum(axis=1))


def reward_interaction_ips(position: Floats, rewards: Floats) -> Floats:
    """mean(sum over positions of w_1..w_l r_l).

    Args:
        position: Weight of each item given those above, of ``weights.position_weights``. float64 [R, L].
        rewards: float64 [R, L, K].

    Source:
        McInerney et al. 2020, "Counterfactual evaluation of slate recommendations with sequential reward
        interactions", KDD.
    """
    _check(position, rewards)
    return np.asarray((cascade_weights(position)[..., None] * rewards).sum(axis=1))


def cascade_doubly_robust(position: Floats, rewards: Floats, logged: Floats, target: Floats) -> Floats:
    """mean(sum over positions of w_1..w_{l-1} (q'_l + w_l (r_l - q_l))).

    Unbiased where propensities are right and responses ignore what stands below, whatever the model: q_l may be
    position l's own reward, or that of l and all below, which leaves less to chance.

    Args:
        position: Weight of each item given those above. float64 [R, L].
        rewards: float64 [R, L, K].
        logged: The reward model's prediction for the item shown at each position. float64 [R, L, K].
        target: Its mean over the target policy's choice at the position, given the items shown above. [R, L, K].

    Source:
        Kiyohara et al. 2022, "Doubly robust off-policy evaluation for ranking policies under the cascade behavior
        model", WSDM.
    """
    _check(position, rewards, logged, target)
    down_to = cascade_weights(position)  # [R, L]
    above = np.concatenate([np.ones((len(position), 1)), down_to[:, :-1]], axis=1)
    return np.asarray((above[..., None] * target + down_to[..., None] * (rewards - logged)).sum(axis=1))


def _check(weights: Floats, *tables: Floats) -> None:
    for table in tables:
        if table.ndim != 3 or table.shape[:2] != weights.shape:
            raise ValueError(
                f"slate estimate: expected rewards and predictions of shape {(*weights.shape, 'K')}, got {table.shape}."
            )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            "slate estimate: expected finite weights of at least 0. Leave out slates of unknown propensity."
        )
