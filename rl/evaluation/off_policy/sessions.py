"""Estimators of the return a session, where a slate changes what the later ones earn.

All return contributions float64 [S, C], one row a session, whose mean is the estimate. Common arguments:
``cumulative`` float64 [R], each slate's weight together with those before it in its session, W_t below
(``weights.cumulative_weights``); ``rewards`` float64 [R, C] of each slate; ``steps`` the slates' places. A reward at
step t needs only the weights up to t: the future cannot change it.
"""

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.off_policy.weights import Steps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def per_decision(cumulative: Floats, rewards: Floats, steps: Steps) -> Floats:
    """Per-decision importance sampling, mean over sessions of sum_t W_t r_t. Unbiased.

    Source:
        Precup, Sutton and Singh 2000, ICML.
    """
    _check(cumulative, rewards)
    return steps.sums(cumulative[:, None] * rewards)


def weighted_per_decision(cumulative: Floats, rewards: Floats, steps: Steps) -> Floats:
    """Per-decision IS with each step's weights divided by their mean over all sessions.

    A session that ended before step t counts in that mean with its last weight, as its zero rewards count too. Returns
    linearised contributions, as ``bandit`` does.

    Source:
        Precup, Sutton and Singh 2000; Thomas 2015, "Safe reinforcement learning", section 3.7.
    """
    _check(cumulative, rewards)
    weights = _carried(cumulative, steps)  # [S, T]
    mean = weights.mean(axis=0)  # [T]
    mean = np.where(mean > 0, mean, 1.0)
    sums = steps.sums((cumulative / mean[steps.step])[:, None] * rewards)  # [S, C]
    theta = np.zeros((len(mean), rewards.shape[1]))  # [T, C] each step's share of the estimate
    np.add.at(theta, steps.step, (cumulative / mean[steps.step])[:, None] * rewards)
    theta /= steps.num_sessions
    return np.asarray(sums - (weights / mean - 1) @ theta)


def doubly_robust_sessions(
    cumulative: Floats, rewards: Floats, logged: Floats, target: Floats, steps: Steps
) -> Floats:
    """Doubly robust for sessions: mean of sum_t W_t (r_t - q_t) + W_{t-1} v_t.

    Args:
        cumulative: W_t.
        rewards: r_t.
        logged: q_t, predicted reward from the logged slate on to the session's end. float64 [R, C].
        target: v_t, mean of q_t over the target policy's slates in the same state. float64 [R, C].
        steps: The slates' places.

    Source:
        Jiang and Li 2016, "Doubly robust off-policy value evaluation for reinforcement learning", ICML; the form of
        Thomas and Brunskill 2016.
    """
    _check(cumulative, rewards, logged, target)
    before = weights_before(cumulative, steps)
    return steps.sums(cumulative[:, None] * (rewards - logged) + before[:, None] * target)


def marginalised(
    importance: Floats, rewards: Floats, state: Ints, following: Ints, num_states: int, steps: Steps
) -> Floats:
    """Marginalised importance sampling: rewards weighted by how often the target policy visits their state.

    The state's visit ratio at each step is estimated forward from the one before, so that weights stop multiplying
    along the session. Unbiased in the limit only where ``state`` holds all of the past that matters. Contributions
    are the weighted rewards of each session; resample sessions and estimate anew for an exact interval.

    Args:
        importance: Weight of each slate alone. float64 [R].
        rewards: float64 [R, C].
        state: State in which the slate was chosen, 0 .. num_states - 1. int64 [R].
        following: State after it, or -1 where the session ended. int64 [R].
        num_states: How many there are.
        steps: The slates' places.

    Source:
        Xie, Ma and Wang 2019, "Towards optimal off-policy evaluation for reinforcement learning with marginalized
        importance sampling", NeurIPS.
    """
    _check(importance, rewards)
    ratio = np.ones(num_states)  # target over logged visits at this step; both policies start alike
    weights = np.empty_like(importance)
    for step in range(int(steps.step.max(initial=0)) + 1):
        rows = np.flatnonzero(steps.step == step)
        weights[rows] = ratio[state[rows]] * importance[rows]
        onward = rows[following[rows] >= 0]
        logged = np.bincount(following[onward], minlength=num_states)
        moved = np.bincount(following[onward], weights[onward], num_states)
        ratio = np.divide(moved, logged, out=np.zeros(num_states), where=logged > 0)
    return steps.sums(weights[:, None] * rewards)


def weights_before(cumulative: Floats, steps: Steps) -> Floats:
    """W_{t-1}: the weight of what came before each slate, 1 at a session's first. float64 [R]."""
    before = np.roll(cumulative, 1)
    before[steps.step == 0] = 1.0
    return before


def final_weights(cumulative: Floats, steps: Steps) -> Floats:
    """Weight of each whole session, whose mean is 1 where the log supports the target policy. float64 [S]."""
    last = np.r_[steps.step[1:] == 0, True]
    return cumulative[last]


def _carried(cumulative: Floats, steps: Steps) -> Floats:
    """W_t of each session at each step, its last weight after its end. float64 [S, T]."""
    length = int(steps.step.max(initial=0)) + 1
    table = np.repeat(final_weights(cumulative, steps)[:, None], length, axis=1)
    table[steps.session, steps.step] = cumulative
    return table


def _check(weights: Floats, *tables: Floats) -> None:
    for table in tables:
        if table.ndim != 2 or len(table) != len(weights):
            raise ValueError(
                f"session estimate: expected rewards and predictions of shape [{len(weights)}, C], got {table.shape}."
            )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            "session estimate: expected finite weights of at least 0. Leave out sessions of unknown propensity."
        )
