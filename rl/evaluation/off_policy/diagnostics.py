"""What an off-policy estimate is worth: how much of the log speaks, and whether it can, in plain words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.intervals import Estimate, student_intervals
from rl.evaluation.off_policy.intervals import heavy_tailed_intervals
from rl.evaluation.off_policy.sessions import final_weights
from rl.evaluation.off_policy.weights import Steps, effective_sample_size

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GOOD_SHARE, FAIR_SHARE, POOR_SHARE = 0.3, 0.1, 0.01  # of the log that speaks; set by what coverage showed
TAIL = 0.01  # of slates, those with the largest weights


@dataclass(frozen=True)
class Diagnostics:
    """How the weights of R logged slates are spread."""

    num_slates: int
    effective_sample_size: float  # equally weighted slates that would say as much
    largest_weight: float
    largest_share: float  # of all weight, on the one slate that has most
    tail_share: float  # of all weight, on the TAIL of slates that have most
    session_weight: Estimate  # mean weight of a whole session: 1 where all the target does can be in the log
    unsupported: float  # target probability of items that the log never shows, 0 where not known

    @property
    def share(self) -> float:
        """Effective sample size as a share of the log."""
        return self.effective_sample_size / self.num_slates

    @property
    def missing_support(self) -> bool:
        """Whether the weights prove that the target policy does what the log cannot show."""
        return self.session_weight.high is not None and self.session_weight.high < 1

    def verdict(self) -> str:
        """One sentence: what an estimate with these weights is worth."""
        worth = (
            f"the log's {self.num_slates:,} slates are worth {self.effective_sample_size:,.0f} "
            f"({self.share:.1%}) for this policy"
        )
        if self.missing_support:
            return (
                f"Not to be used: the policy does what the log never shows (mean session weight "
                f"{self.session_weight.mean:.3f}, upper bound {self.session_weight.high:.3f}, below 1); {worth}."
            )
        if self.share >= GOOD_SHARE:
            return f"Good: {worth}."
        if self.share >= FAIR_SHARE:
            return f"Fair: {worth}; the interval is to be trusted more than the estimate."
        tail = f"1% of the slates hold {self.tail_share:.0%} of the weight"
        if self.share >= POOR_SHARE:
            return f"Poor: {worth}, and {tail}; true values outside the interval are to be expected."
        return f"Worthless: {worth}, and {tail}; one slate holds {self.largest_share:.0%}."


def diagnose(
    cumulative: Floats, steps: Steps, confidence: float = 0.999, unsupported: float = 0.0
) -> Diagnostics:
    """Diagnostics of the weights that an estimate rests on.

    Args:
        cumulative: Weight of each slate together with those before it in its session; of the slate alone for estimates
            a slate. float64 [R].
        steps: The slates' places; each slate a session of its own for estimates a slate.
        confidence: Of the interval of the mean session weight; high, as heavy tails alone often leave it below 1.
        unsupported: Mean target probability of items that the log never shows.
    """
    weights = final_weights(cumulative, steps)
    mean = weights.mean()
    errors = ((weights - mean) / np.sqrt(len(weights) * max(len(weights) - 1, 1)))[:, None]
    ordered = np.sort(cumulative)[::-1]
    total = max(float(ordered.sum()), 1e-300)
    return Diagnostics(
        num_slates=len(cumulative),
        effective_sample_size=effective_sample_size(cumulative),
        largest_weight=float(ordered[0]),
        largest_share=float(ordered[0]) / total,
        tail_share=float(ordered[: max(1, int(TAIL * len(ordered)))].sum()) / total,
        session_weight=heavy_tailed_intervals(np.array([mean]), errors, confidence)[0],
        unsupported=unsupported,
    )


def unsupported_share(target: Floats, shown: Ints, num_items: int) -> float:
    """Mean probability that the target policy gives to items which the log never shows.

    Args:
        target: Target probability of each item, float64 [R, N] or its mean [N].
        shown: Every item index that the log shows, in any shape; -1 is left out.
        num_items: N.
    """
    seen = np.zeros(num_items, dtype=bool)
    seen[shown[shown >= 0]] = True
    return float(np.atleast_2d(target)[:, ~seen].sum(axis=1).mean())


def propensity_calibration(
    propensities: Floats, items: Ints, num_items: int, steps: Steps, confidence: float = 0.95
) -> Estimate:
    """Harmonic-mean test: true propensities have a mean of 1 / (p * choices) of exactly 1.

    For a logging policy that may show every item, the inverse of the shown item's probability counts on average the
    items it was chosen from, N - l at position l. Above 1: logged propensities are too small, the policy showed the
    items more often than it says; below 1: too large, or some items can never be shown.

    Args:
        propensities: Of each item at its position given those above. float64 [R, L].
        items: -1 where empty. int64 [R, L].
        num_items: Catalogue size, N.
        steps: The slates' places.
        confidence: Coverage of the interval, by session.

    Source:
        Li, Kim and Zitouni 2015, "Toward predicting the outcome of an A/B experiment for search relevance", WSDM.
    """
    choices = num_items - np.arange(items.shape[1])  # [L]
    shown = items >= 0
    inverse = np.where(shown, 1 / np.where(shown, propensities * choices, 1.0), 0.0)  # [R, L]
    sums = steps.sums(np.column_stack([inverse.sum(axis=1), shown.sum(axis=1)]).astype(np.float64))  # [S, 2]
    ratio = sums[:, 0].sum() / sums[:, 1].sum()
    errors = (sums[:, 0] - ratio * sums[:, 1]) / sums[:, 1].mean()
    interval = student_intervals((ratio + errors)[:, None], confidence)[0]
    return Estimate(float(ratio), interval.low, interval.high, len(sums))
