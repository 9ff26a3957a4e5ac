"""Estimates with intervals: Student t over sessions, and the bootstrap over groups of rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval. The bounds are None where one row, or none, gives no spread to judge by."""

    mean: float
    low: float | None
    high: float | None
    n: int  # independent units: sessions, or rows where there are no groups

    def to_json(self) -> dict[str, float | int | None]:
        """The object of the report: ``{mean, low, high, n}``."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Bootstrap:
    """How resampling is done: the same seed gives the same resamples, so that differences are paired."""

    num_resamples: int = 500
    confidence: float = 0.95
    seed: int = 0


def student_intervals(samples: Floats, confidence: float) -> list[Estimate]:
    """Mean of each column with Student's t interval.

    Args:
        samples: One row a session, rows independent. float [S, C].
        confidence: Coverage, in (0, 1).

    Returns:
        C estimates.

    Raises:
        ValueError: There is no row, or a value is not finite.
    """
    samples = _checked(samples, "samples")
    n = len(samples)
    means = samples.mean(axis=0)
    if n < 2:
        return [Estimate(float(mean), None, None, n) for mean in means]
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * samples.std(axis=0, ddof=1) / np.sqrt(n)
    return [_estimate(mean, mean - h, mean + h, n) for mean, h in zip(means, half, strict=True)]


def paired_intervals(first: Floats, second: Floats, confidence: float) -> list[Estimate]:
    """Mean of first minus second where row i of both is the same session. Two float [S, C] give C estimates.

    Raises:
        ValueError: The shapes differ, or as for ``student_intervals``.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"paired difference: expected two arrays of one shape, got {np.shape(first)} and {np.shape(second)}. "
            "Use welch_intervals for sessions that are not the same."
        )
    return student_intervals(np.asarray(first, np.float64) - np.asarray(second, np.float64), confidence)


def welch_intervals(first: Floats, second: Floats, confidence: float) -> list[Estimate]:
    """Mean of first minus second where the sessions are not paired, nor their variances equal.

    Args:
        first: float [S, C].
        second: float [S', C].
        confidence: Coverage, in (0, 1).

    Returns:
        C estimates; ``n`` is the smaller number of sessions.

    Raises:
        ValueError: The columns differ in number, or as for ``student_intervals``.

    Source:
        Welch 1947, Biometrika 34.
    """
    first, second = _checked(first, "first"), _checked(second, "second")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"difference: expected as many columns, got {first.shape[1]} and {second.shape[1]}.")
    n = min(len(first), len(second))
    gaps = first.mean(axis=0) - second.mean(axis=0)
    if n < 2:
        return [Estimate(float(gap), None, None, n) for gap in gaps]
    a = first.var(axis=0, ddof=1) / len(first)
    b = second.var(axis=0, ddof=1) / len(second)
    freedom = (a + b) ** 2 / np.maximum(a**2 / (len(first) - 1) + b**2 / (len(second) - 1), 1e-300)
    half = stats.t.ppf(0.5 + confidence / 2, np.maximum(freedom, 1.0)) * np.sqrt(a + b)
    return [_estimate(gap, gap - h, gap + h, n) for gap, h in zip(gaps, half, strict=True)]


def group_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Sums of the rows of each group.

    Args:
        values: float [B, C].
        groups: Any group number of each row, such as its session. int64 [B].

    Returns:
        float64 [G, C], groups in the order of their numbers.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((int(index.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def bootstrap_intervals(
    sums: Floats, statistic: Callable[[Floats], Floats], bootstrap: Bootstrap
) -> list[Estimate]:
    """Percentile intervals of figures that are made of sums over groups, resampling whole groups.

    Args:
        sums: Sums of each group, as of ``group_sums``. float64 [G, C].
        statistic: Takes sums over all groups, float64 [R, C], and returns the figures, float64 [R, Q].
        bootstrap: Resamples, coverage and seed.

    Returns:
        Q estimates: the figure itself, the interval, and n = G.

    Raises:
        ValueError: There is no group, or a value is not finite.

    Source:
        Efron and Tibshirani 1993, ch. 13; Cameron, Gelbach and Miller 2008 for resampling clusters.
    """
    sums = _checked(sums, "group sums")
    num_groups = len(sums)
    points = statistic(sums.sum(axis=0, keepdims=True))[0]  # [Q]
    if num_groups < 2:
        return [Estimate(float(point), None, None, num_groups) for point in points]
    rng = np.random.default_rng(bootstrap.seed)
    chunk = max(1, min(bootstrap.num_resamples, 4_000_000 // num_groups))
    draws = []
    for start in range(0, bootstrap.num_resamples, chunk):
        size = min(chunk, bootstrap.num_resamples - start)
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size)
        draws.append(statistic(counts @ sums))  # [size, Q]
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.nanquantile(np.concatenate(draws), [tail, 1 - tail], axis=0)  # [Q], [Q]
    return [_estimate(p, lo, hi, num_groups) for p, lo, hi in zip(points, low, high, strict=True)]


def mean_intervals(samples: Floats, groups: NDArray[np.int64], bootstrap: Bootstrap) -> list[Estimate]:
    """Mean over rows of each column, by bootstrap over groups. Rows float [B, C], groups int64 [B]; C estimates."""
    rows = np.asarray(samples, np.float64)
    sums = group_sums(np.column_stack([rows, np.ones(len(rows))]), groups)  # [G, C+1]
    return bootstrap_intervals(sums, lambda totals: totals[:, :-1] / totals[:, -1:], bootstrap)


def _checked(samples: Floats, what: str) -> Floats:
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or len(samples) == 0:
        raise ValueError(
            f"{what}: expected rows and columns with at least one row, got shape {samples.shape}."
        )
    if not np.isfinite(samples).all():
        raise ValueError(
            f"{what}: expected finite numbers, got {int((~np.isfinite(samples)).sum())} that are not."
        )
    return samples


def _estimate(mean: float, low: float, high: float, n: int) -> Estimate:
    return Estimate(float(mean), float(low), float(high), n)
