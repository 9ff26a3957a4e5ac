"""The estimate that the gate goes by: the target policy's return a session, and its gain over the logged one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.intervals import Estimate
from rl.evaluation.off_policy.intervals import heavy_tailed_intervals
from rl.evaluation.off_policy.sessions import final_weights, per_decision
from rl.evaluation.off_policy.weights import Steps

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Controlled:
    """Estimates with the errors they come with."""

    means: Floats  # [C]
    errors: Floats  # [S, C], their sum of squares is the variance of the mean

    def estimates(self, confidence: float) -> list[Estimate]:
        """C estimates with heavy-tailed t intervals."""
        return heavy_tailed_intervals(self.means, self.errors, confidence)


def controlled_return(cumulative: Floats, rewards: Floats, steps: Steps) -> Controlled:
    """Return a session under the target policy, by per-decision IS with the session's weight as control variate.

    A session's weight W has mean 1 under the logging policy. What is known to be chance in W is taken out of the
    estimate: the intercept of a regression of ``per_decision``'s contributions on W - 1. Errors are those of HC3.

    Args:
        cumulative: Weight of each slate and those before it. float64 [R].
        rewards: float64 [R, C].
        steps: The slates' places.

    Source:
        Owen 2013, "Monte Carlo theory, methods and examples", sections 8.9 and 9.10 (regression on control variates
        with importance sampling); MacKinnon and White 1985 for HC3.
    """
    return _intercept(per_decision(cumulative, rewards, steps), final_weights(cumulative, steps))


def controlled_gain(cumulative: Floats, rewards: Floats, steps: Steps) -> Controlled:
    """The same less the logged return, session by session: sum_t (W_t - 1) r_t. What both share cancels."""
    surplus = steps.sums((cumulative - 1)[:, None] * rewards)
    return _intercept(surplus, final_weights(cumulative, steps))


def _intercept(values: Floats, weights: Floats) -> Controlled:
    """Least squares of values [S, C] on 1 and W - 1: intercepts, and each session's HC3 error in them."""
    n = len(values)
    control = weights - 1.0
    centred = control - control.mean()
    square = float((centred**2).sum())
    if n < 3 or square <= 1e-12 * n:
        errors = (values - values.mean(axis=0)) / np.sqrt(n * max(n - 1, 1))
        return Controlled(values.mean(axis=0), errors)
    slope = centred @ values / square  # [C]
    means = values.mean(axis=0) - slope * control.mean()  # [C]
    residuals = values - means - control[:, None] * slope  # [S, C]
    influence = 1 / n - control.mean() * centred / square  # [S], the intercept's weight on each session
    leverage = 1 / n + centred**2 / square  # [S]
    scale = influence / np.maximum(1 - leverage, 1 / n)
    return Controlled(means, scale[:, None] * residuals)
