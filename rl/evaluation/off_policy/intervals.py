"""Intervals of off-policy estimates, whose contributions are few, large and skewed."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rl.evaluation.intervals import Estimate

Floats = NDArray[np.float64]


def empirical_bernstein_intervals(samples: Floats, spread: Floats, confidence: float) -> list[Estimate]:
    """Intervals that hold at any sample size, given how far the samples can lie apart. Wide, as that is a lot to ask.

    Args:
        samples: One row a session, rows independent. float64 [S, C].
        spread: Largest minus smallest value that a sample of the column can take, such as a clipped weight's cap times
            the largest return. float64 [C].
        confidence: Coverage, in (0, 1).

    Returns:
        C estimates.

    Raises:
        ValueError: Samples lie further apart than ``spread`` says.

    Source:
        Maurer and Pontil 2009, "Empirical Bernstein bounds and sample variance penalization", theorem 4, on both sides.
    """
    n, means = len(samples), samples.mean(axis=0)
    seen = np.ptp(samples, axis=0)
    if (seen > spread * (1 + 1e-9)).any():
        at = int(np.argmax(seen - spread))
        raise ValueError(
            f"empirical Bernstein: expected samples at most {spread[at]:g} apart, got {seen[at]:g}. "
            "Give their true range."
        )
    if n < 2:
        return [Estimate(float(mean), None, None, n) for mean in means]
    log = np.log(4 / (1 - confidence))  # two sides, two terms each
    half = np.sqrt(2 * samples.var(axis=0, ddof=1) * log / n) + 7 * spread * log / (3 * (n - 1))
    return [Estimate(float(m), float(m - h), float(m + h), n) for m, h in zip(means, half, strict=True)]


def heavy_tailed_intervals(means: Floats, errors: Floats, confidence: float) -> list[Estimate]:
    """Student t intervals, corrected for errors of which a few are large and all large ones on one side.

    Importance weights make both. Where a few sessions make most of the error, its spread is itself known poorly: its
    worth in equal sessions, (sum e^2)^2 / sum e^4, gives the degrees of freedom in place of their number (a third of
    the sessions for normal errors, where t has long stopped to change). And an estimate that missed its few large
    weights is both too low and too sure: Hall's cubic transformation takes the skewness out, which moves both bounds
    up where large errors are positive.

    Args:
        means: The estimates. float64 [C].
        errors: First-order error of each session, so that their sum of squares is the estimate's variance. [S, C].
        confidence: Coverage, in (0, 1).

    Returns:
        C estimates.

    Source:
        Hall 1992, "On the removal of skewness by transformation", JRSS B 54; Bell and McCaffrey 2002 for degrees of
        freedom from the spread of squared errors. The benchmark ``coverage`` compares them with the plain t.
    """
    n = len(errors)
    if n < 2:
        return [Estimate(float(mean), None, None, n) for mean in means]
    square = (errors**2).sum(axis=0)
    known = square > 0
    safe = np.where(known, square, 1.0)
    freedom = np.where(known, square**2 / np.where(known, (errors**4).sum(axis=0), 1.0), float(n))
    skewness = (errors**3).sum(axis=0) / safe**1.5  # of the mean, already divided by sqrt(S)
    quantile = np.asarray(stats.t.ppf(0.5 + confidence / 2, np.maximum(freedom, 1.0)))
    low = means - np.sqrt(square) * _unskewed(quantile, skewness)
    high = means - np.sqrt(square) * _unskewed(-quantile, skewness)
    return [Estimate(float(m), float(lo), float(hi), n) for m, lo, hi in zip(means, low, high, strict=True)]


def _unskewed(x: Floats, skewness: Floats) -> Floats:
    """Inverse of Hall's transformation g(t) = t + s t^2 / 3 + s^2 t^3 / 27 + s / 6; x itself where s is 0. [C]."""
    s = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    return np.asarray(3 / s * (np.cbrt(1 + s * (x - s / 6)) - 1))
