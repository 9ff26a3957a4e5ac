"""Intervals of off-policy estimates: their formulas, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from rl.evaluation.off_policy.intervals import empirical_bernstein_intervals, heavy_tailed_intervals


def errors_of(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(samples)
    return samples.mean(axis=0), (samples - samples.mean(axis=0)) / np.sqrt(n * (n - 1))


def test_empirical_bernstein_is_its_formula():
    samples = np.array([[0.0], [1.0], [1.0], [0.5]])

    found = empirical_bernstein_intervals(samples, np.array([1.0]), 0.9)[0]

    variance, log = samples.var(ddof=1), np.log(4 / 0.1)
    half = np.sqrt(2 * variance * log / 4) + 7 * log / (3 * 3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.625, 0.625 - half, 0.625 + half))


def test_empirical_bernstein_holds_where_the_t_interval_fails():
    dice, held, t_held = np.random.default_rng(0), 0, 0
    for _ in range(300):
        samples = (dice.random((60, 1)) < 0.02).astype(float)  # mostly all zero
        low_high = empirical_bernstein_intervals(samples, np.array([1.0]), 0.95)[0]
        held += low_high.low <= 0.02 <= low_high.high
        half = 2 * samples.std(ddof=1) / np.sqrt(60)
        t_held += abs(samples.mean() - 0.02) <= half

    assert held == 300
    assert t_held < 250


def test_empirical_bernstein_refuses_samples_beyond_their_range():
    with pytest.raises(ValueError, match="at most 1 apart, got 3"):
        empirical_bernstein_intervals(np.array([[0.0], [3.0]]), np.array([1.0]), 0.95)


def test_heavy_tailed_interval_is_nearly_students_for_normal_errors():
    samples = np.random.default_rng(1).normal(size=(3000, 1))

    found = heavy_tailed_intervals(*errors_of(samples), 0.95)[0]

    half = stats.t.ppf(0.975, 2999) * samples.std(ddof=1) / np.sqrt(3000)
    assert found.low == pytest.approx(samples.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(samples.mean() + half, abs=0.05 * half)
    assert found.n == 3000


def test_heavy_tailed_interval_is_halls_transformation_at_few_degrees_of_freedom():
    samples = np.array([[0.0], [0.0], [1.0], [0.0], [5.0], [1.0]])
    mean, errors = errors_of(samples)

    found = heavy_tailed_intervals(mean, errors, 0.95)[0]

    e = errors[:, 0]
    scale, freedom = np.sqrt((e**2).sum()), (e**2).sum() ** 2 / (e**4).sum()
    s = (e**3).sum() / scale**3
    for x, bound in ((stats.t.ppf(0.975, freedom), found.low), (stats.t.ppf(0.025, freedom), found.high)):
        t = (mean[0] - bound) / scale  # the bound's own t statistic, transformed back
        assert t + s * t**2 / 3 + s**2 * t**3 / 27 + s / 6 == pytest.approx(x)


def test_heavy_tailed_interval_covers_lognormal_means_where_students_does_not():
    dice, held, t_held = np.random.default_rng(2), 0, 0
    truth = np.exp(1.5**2 / 2)
    for _ in range(400):
        samples = np.exp(1.5 * dice.normal(size=(300, 1)))
        mean, errors = errors_of(samples)
        found = heavy_tailed_intervals(mean, errors, 0.95)[0]
        held += found.low <= truth <= found.high
        half = stats.t.ppf(0.975, 299) * np.sqrt((errors**2).sum())
        t_held += abs(mean[0] - truth) <= half

    assert 0.92 <= held / 400 <= 0.98
    assert t_held / 400 < 0.92


def test_errors_of_nothing_give_a_point():
    found = heavy_tailed_intervals(np.array([2.0]), np.zeros((5, 1)), 0.95)[0]

    assert (found.low, found.high) == (2.0, 2.0)
    assert heavy_tailed_intervals(np.array([2.0]), np.zeros((1, 1)), 0.95)[0].low is None
