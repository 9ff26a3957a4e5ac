"""What would decide a question that the log leaves open: more slates, or a share of traffic for the candidate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the sessions that the candidate might be given


@dataclass(frozen=True)
class Question:
    """A gain to be shown: how large, how surely, and with what chance."""

    effect: float  # gain a session, > 0
    confidence: float  # of the one-sided lower bound, in (0.5, 1)
    power: float = 0.8  # chance of showing a gain of this size

    @property
    def largest_error(self) -> float:
        """Standard error at which the question is decided."""
        return float(self.effect / (stats.norm.ppf(self.confidence) + stats.norm.ppf(self.power)))


def growth_needed(error: float, question: Question) -> float:
    """How many times as large the log must be, as errors fall with the root of its size. 1 or less: it is enough."""
    return (error / question.largest_error) ** 2


@dataclass(frozen=True)
class Exploration:
    """A share of sessions to give to the candidate, and how long."""

    share: float  # of the sessions
    growth: float  # times as many slates as the log has; 1 or less means that as many are enough


def exploration_needed(
    final_weights: Floats, returns: Floats, question: Question, min_effective_share: float
) -> Exploration:
    """The smallest share of traffic for the candidate that decides the question on as many slates as the log has.

    Were a share e of the sessions the candidate's own, weights against that mixture could not exceed 1 / e, and the
    error of the gain would be, from the logged weights W and returns Y alone,
    E[(W - 1)^2 (Y - mean)^2 / (1 - e + e W)]. What W lacks to a mean of 1 the log never shows: it counts at its bound.

    Args:
        final_weights: Weight of each logged session. float64 [S].
        returns: Weighted return of each logged session. float64 [S].
        question: What is to be decided.
        min_effective_share: Share of the sessions that must speak for the candidate as well.

    Returns:
        The largest of ``SHARES`` with a growth above 1 where none is enough.
    """
    w, surprise = final_weights, (returns - returns.mean()) ** 2
    missing = max(0.0, 1.0 - float(w.mean()))
    growth = np.inf
    for share in SHARES:
        mixture = 1 - share + share * w
        variance = (
            float(((w - 1) ** 2 * surprise / mixture).mean()) + missing * float(surprise.mean()) / share
        )
        square = float((w**2 / mixture).mean()) + missing / share  # of the mixture's weights, whose mean is 1
        growth = growth_needed(float(np.sqrt(variance / len(w))), question)
        if growth <= 1 and 1 / square >= min_effective_share:
            return Exploration(share, growth)
    return Exploration(SHARES[-1], max(growth, 1.0))
