"""Estimators a slate: the Open Bandit Pipeline's figures and definitions, and known truths."""

import numpy as np
import pytest

from rl.evaluation.off_policy import bandit as estimators
from rl.evaluation.off_policy.weights import effective_sample_size
from tests.unit.rl.off_policy.synthetic import bandit

# Worked out with the Open Bandit Pipeline 0.5.7 on bandit(12345); clipping and switching at 2, shrinkage 0.1 and 5.
PIPELINE = {
    "ips": 0.6069058469034577,
    "snips": 0.6020123907709266,
    "clipped_ips": 0.4775137375508757,
    "shrunk_ips": 0.5241278904148171,
    "dm": 0.5062335839623483,
    "dr": 0.594353640921674,
    "sndr": 0.5936431326355425,
    "switch_dr": 0.5596770912885438,
    "shrunk_dr": 0.559155550526672,
}


def contributions(log, name: str) -> np.ndarray:
    w, r, q, v = log.weights, log.reward, log.logged, log.target_mean
    return {
        "ips": lambda: estimators.ips(w, r),
        "snips": lambda: estimators.snips(w, r),
        "clipped_ips": lambda: estimators.clipped_ips(w, r, 2.0),
        "shrunk_ips": lambda: estimators.shrunk_ips(w, r, 0.1),
        "dm": lambda: estimators.direct(v),
        "dr": lambda: estimators.doubly_robust(w, r, q, v),
        "sndr": lambda: estimators.self_normalised_doubly_robust(w, r, q, v),
        "switch_dr": lambda: estimators.switch_doubly_robust(w, r, q, v, 2.0),
        "shrunk_dr": lambda: estimators.shrunk_doubly_robust(w, r, q, v, 5.0),
    }[name]()


@pytest.mark.parametrize("name", PIPELINE)
def test_estimate_is_the_open_bandit_pipelines(name):
    assert contributions(bandit(12345), name).mean() == pytest.approx(PIPELINE[name], abs=1e-12)


@pytest.mark.parametrize("name", PIPELINE)
def test_estimate_matches_a_slow_reference(name):
    log = bandit(7, rounds=200)
    w, r, q, v = log.weights, log.reward[:, 0], log.logged[:, 0], log.target_mean[:, 0]
    n, total = len(w), w.sum()
    slow = {
        "ips": sum(w[i] * r[i] for i in range(n)) / n,
        "snips": sum(w[i] * r[i] for i in range(n)) / total,
        "clipped_ips": sum(min(w[i], 2.0) * r[i] for i in range(n)) / n,
        "shrunk_ips": sum(w[i] / (0.9 + 0.1 * w[i]) * r[i] for i in range(n)) / n,
        "dm": sum(v) / n,
        "dr": sum(v[i] + w[i] * (r[i] - q[i]) for i in range(n)) / n,
        "sndr": sum(v) / n + sum(w[i] * (r[i] - q[i]) for i in range(n)) / total,
        "switch_dr": sum(v[i] + (w[i] if w[i] <= 2 else 0) * (r[i] - q[i]) for i in range(n)) / n,
        "shrunk_dr": sum(v[i] + 5 * w[i] / (w[i] ** 2 + 5) * (r[i] - q[i]) for i in range(n)) / n,
    }

    assert contributions(log, name).mean() == pytest.approx(slow[name])


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr"])
def test_errors_cover_the_truth_of_the_synthetic_bandit(name):
    gaps = []
    for seed in range(30):
        log = bandit(seed, rounds=2000)
        found = contributions(log, name)
        gaps.append((found.mean() - log.truth) / (found.std(ddof=1) / np.sqrt(len(found))))

    assert abs(np.mean(gaps)) < 0.75  # of a standard error
    assert 0.6 < np.std(gaps) < 1.6


def test_linearised_contributions_have_the_spread_that_repetition_shows():
    draws, claimed = [], []
    for seed in range(60):
        log = bandit(seed, rounds=1000)
        log_truth = log.truth
        found = contributions(log, "snips")
        draws.append(found.mean() - log_truth)
        claimed.append(found.std(ddof=1) / np.sqrt(len(found)))

    assert np.std(draws) == pytest.approx(np.mean(claimed), rel=0.35)


def test_target_equal_to_logging_gives_the_mean_reward():
    log = bandit(3, rounds=300)
    ones = np.ones(300)

    for found in (
        estimators.ips(ones, log.reward),
        estimators.snips(ones, log.reward),
        estimators.clipped_ips(ones, log.reward, 1.0),
        estimators.doubly_robust(ones, log.reward, log.logged, log.logged),
    ):
        assert found.mean() == pytest.approx(log.reward.mean())


def test_right_model_makes_doubly_robust_right_with_wrong_propensities():
    log = bandit(5)
    right = log.expected[np.arange(len(log.action)), log.action][:, None]
    value = (log.target * log.expected).sum(axis=1, keepdims=True)

    robust = estimators.doubly_robust(0.5 * log.weights, log.reward, right, value).mean()

    assert robust == pytest.approx(log.truth, abs=0.01)
    assert estimators.ips(0.5 * log.weights, log.reward).mean() < 0.7 * log.truth


def test_opposite_policies_are_told_apart():
    # RLlib 2.60's new-stack estimators weight freshly sampled actions, so that these two would score alike.
    dice = np.random.default_rng(0)
    action = dice.integers(0, 2, size=4000)
    reward = (action == 1).astype(float)[:, None]
    good, bad = np.array([0.02, 0.98]), np.array([0.98, 0.02])

    values = [estimators.ips(policy[action] / 0.5, reward).mean() for policy in (good, bad)]

    assert values == pytest.approx([0.98, 0.02], abs=0.05)


def test_no_weight_at_all_is_worth_nothing():
    assert estimators.snips(np.zeros(4), np.ones((4, 1))).mean() == 0
    assert effective_sample_size(np.zeros(4)) == 0


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="Leave out slates of unknown propensity"):
        estimators.ips(np.array([1.0, np.nan]), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"shape \[2, K\], got \(3, 1\)"):
        estimators.ips(np.ones(2), np.ones((3, 1)))
