"""Intervals against slow references, hand figures and their coverage."""

import numpy as np
import pytest
from scipy import stats

from rl.evaluation.intervals import (
    Bootstrap,
    bootstrap_intervals,
    group_sums,
    mean_intervals,
    paired_intervals,
    student_intervals,
    welch_intervals,
)


def test_student_intervals_match_scipy_in_every_column():
    samples = np.random.default_rng(0).normal(size=(17, 3))

    estimates = student_intervals(samples, 0.9)

    for column, estimate in enumerate(estimates):
        x = samples[:, column]
        low, high = stats.t.interval(0.9, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((x.mean(), low, high))
        assert estimate.n == 17


def test_one_session_has_no_interval():
    (estimate,) = student_intervals(np.array([[2.0]]), 0.95)

    assert estimate.to_json() == {"mean": 2.0, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize(("samples", "message"), [(np.zeros((0, 2)), "at least"), ([[np.nan]], "finite")])
def test_samples_that_say_nothing_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        student_intervals(np.asarray(samples), 0.95)


def test_paired_difference_is_narrower_than_welch_when_sessions_vary_together():
    rng = np.random.default_rng(1)
    start = rng.normal(scale=10, size=(50, 1))
    first, second = start + 1 + rng.normal(scale=0.1, size=(50, 1)), start

    paired, welch = paired_intervals(first, second, 0.95)[0], welch_intervals(first, second, 0.95)[0]

    assert paired.mean == pytest.approx(welch.mean) == pytest.approx(1, abs=0.1)
    assert paired.low > 0.9
    assert welch.low < 0 < welch.high


def test_paired_difference_refuses_other_shapes():
    with pytest.raises(ValueError, match="welch_intervals"):
        paired_intervals(np.zeros((3, 1)), np.zeros((4, 1)), 0.95)


def test_welch_matches_scipy_with_unequal_sizes():
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 3, size=30), rng.normal(0, 1, size=200)

    (estimate,) = welch_intervals(a[:, None], b[:, None], 0.95)

    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert estimate.n == 30


def test_group_sums_add_the_rows_of_each_group():
    sums = group_sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([9, 4, 9]))

    np.testing.assert_array_equal(sums, [[3, 4], [6, 8]])


def test_bootstrap_matches_resampling_whole_groups_by_hand():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 12, size=80)
    samples = rng.normal(size=80) + groups
    bootstrap = Bootstrap(num_resamples=4000, confidence=0.9, seed=5)

    (estimate,) = mean_intervals(samples[:, None], groups, bootstrap)

    by_group = [samples[groups == g] for g in np.unique(groups)]
    draws = [
        np.concatenate([by_group[i] for i in rng.integers(0, len(by_group), len(by_group))]).mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(draws, [0.05, 0.95])
    assert estimate.mean == pytest.approx(samples.mean())
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.25)
    assert estimate.n == len(by_group)


def test_bootstrap_by_session_is_wider_than_by_row_when_sessions_repeat_themselves():
    values = np.repeat(np.random.default_rng(4).normal(size=20), 50)[:, None]

    by_session = mean_intervals(values, np.repeat(np.arange(20), 50), Bootstrap())[0]
    by_row = mean_intervals(values, np.arange(1000), Bootstrap())[0]

    assert by_session.high - by_session.low > 4 * (by_row.high - by_row.low)


def test_bootstrap_intervals_cover_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(6)
    samples = rng.exponential(size=(60, 300))

    estimates = bootstrap_intervals(
        np.column_stack([samples, np.ones(60)]), lambda t: t[:, :-1] / t[:, -1:], Bootstrap(300, 0.9)
    )

    covered = np.mean([e.low <= 1 <= e.high for e in estimates])
    assert 0.82 <= covered <= 0.95


def test_bootstrap_repeats_with_the_same_seed():
    values, groups = np.random.default_rng(7).normal(size=(30, 1)), np.arange(30)

    assert mean_intervals(values, groups, Bootstrap(seed=1)) == mean_intervals(
        values, groups, Bootstrap(seed=1)
    )
    assert mean_intervals(values, groups, Bootstrap(seed=1)) != mean_intervals(
        values, groups, Bootstrap(seed=2)
    )
