"""Off-policy estimators: known truths, slow references, and the Open Bandit Pipeline's figures."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from encoders.sessions import LoggedSlates
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.off_policy import (
    WeightedSlates,
    effective_sample_size,
    estimate_values,
    importance_weights,
    logged_values,
    slate_rewards,
    snips_gain,
)
from rl.tasks import TaskConfig, build_tasks

OPEN_BANDIT = Path(__file__).parents[4] / "shared" / "data" / "open_bandit"

# The production policy's Beta priors of the men's campaign, as published with the data set (Saito et al. 2020).
PRIOR_CLICKS = [47, 8, 62, 142, 3, 6, 100, 48, 23, 71, 61, 13, 16, 518, 30, 7, 4]
PRIOR_CLICKS += [23, 8, 10, 11, 11, 18, 121, 11, 4, 32, 30, 9, 22, 6, 23, 5, 54]
PRIOR_MISSES = [12198, 3566, 15993, 35522, 2367, 3100, 24665, 13210, 7061, 18061, 17449, 5644]
PRIOR_MISSES += [6787, 111326, 8776, 3334, 2271, 7389, 2659, 3665, 4724, 3561, 5085, 27407]
PRIOR_MISSES += [4601, 2923, 8897, 8654, 4000, 6580, 3174, 6766, 2602, 14506]


def slates_of(seed: int, count: int = 400) -> WeightedSlates:
    rng = np.random.default_rng(seed)
    return WeightedSlates(
        importance=rng.lognormal(size=count),
        rewards=rng.normal(size=(count, 2)),
        sessions=np.sort(rng.integers(0, 60, size=count)),
    )


def test_rewards_are_signed_and_pay_value_where_the_task_says_so():
    tasks = build_tasks(
        {"view": TaskConfig(), "watch": TaskConfig(pays="value"), "return": TaskConfig(cost=True)}
    )
    responses = np.array([[[1, 1, 0], [0, 1, 1]]], dtype=np.float32)
    values = np.array([[[9, 30, 0], [0, 12, 5]]], dtype=np.float32)
    slates = LoggedSlates(
        session=np.array([0]),
        items=np.array([[3, 4]]),
        responses=responses,
        values=values,
        propensities=np.ones((1, 2)),
        behaviours_before=np.array([0]),
    )

    assert slate_rewards(slates, tasks).tolist() == [[1, 42, -1]]


def test_importance_weight_is_of_the_whole_slate_and_leaves_empty_places_out():
    items = np.array([[1, 2], [3, -1], [4, 5]])
    target = np.log([[0.5, 0.4], [0.3, 1.0], [0.5, 0.5]])
    propensities = np.array([[0.25, 0.2], [0.6, np.nan], [0.5, np.nan]])

    weights = importance_weights(target, propensities, items)

    assert weights[:2] == pytest.approx([4.0, 0.5])
    assert np.isnan(weights[2])


def test_propensity_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="propensity: expected in"):
        importance_weights(np.zeros((1, 1)), np.array([[0.0]]), np.array([[2]]))


def test_target_equal_to_logging_gives_the_mean_reward():
    rng = np.random.default_rng(0)
    items, propensities = rng.integers(0, 9, size=(300, 3)), rng.uniform(0.05, 1, size=(300, 3))
    rewards = rng.normal(size=(300, 2))
    weights = importance_weights(np.log(propensities), propensities, items)
    slates = WeightedSlates(weights, rewards, np.arange(300) // 4)

    estimates = estimate_values(slates, cap=20, bootstrap=Bootstrap())

    for estimator in ("ips", "snips", "clipped_ips"):
        assert [e.mean for e in estimates[estimator]] == pytest.approx(rewards.mean(axis=0))
    assert effective_sample_size(weights) == pytest.approx(300)
    assert snips_gain(slates, Bootstrap())[0].high == pytest.approx(0, abs=1e-12)


def test_estimates_match_their_formulas_and_intervals_a_slow_bootstrap():
    slates, cap = slates_of(1), 2.0
    w, r = slates.importance, slates.rewards[:, 0]

    estimates = estimate_values(slates, cap, Bootstrap(num_resamples=3000))

    assert estimates["ips"][0].mean == pytest.approx((w * r).mean())
    assert estimates["snips"][0].mean == pytest.approx((w * r).sum() / w.sum())
    assert estimates["clipped_ips"][0].mean == pytest.approx((np.minimum(w, cap) * r).mean())
    rng, names = np.random.default_rng(2), np.unique(slates.sessions)
    draws = []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(slates.sessions == s) for s in rng.choice(names, len(names))])
        draws.append((w[rows] * r[rows]).sum() / w[rows].sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    snips = estimates["snips"][0]
    assert (snips.low, snips.high) == pytest.approx((low, high), abs=0.01)
    assert snips.n == len(names)


def test_gain_is_the_difference_to_the_logged_mean():
    slates = slates_of(3)

    gain = snips_gain(slates, Bootstrap())

    snips = estimate_values(slates, 20, Bootstrap())["snips"]
    logged = logged_values(slates, Bootstrap())
    for k in range(2):
        assert gain[k].mean == pytest.approx(snips[k].mean - logged[k].mean)
        assert gain[k].low < gain[k].mean < gain[k].high


def test_intervals_cover_the_truth_of_a_bandit_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    click, logging, target = np.array([0.1, 0.3, 0.6]), np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    covered = []
    for _ in range(120):
        action = rng.choice(3, size=400, p=logging)
        reward = (rng.random(400) < click[action]).astype(float)[:, None]
        slates = WeightedSlates(target[action] / logging[action], reward, np.arange(400))
        estimates = estimate_values(slates, 20, Bootstrap(200, 0.9))
        covered.append([e[0].low <= click @ target <= e[0].high for e in estimates.values()])

    assert (np.mean(covered, axis=0) > 0.82).all()


def test_no_weight_at_all_is_an_effective_sample_size_of_zero():
    assert effective_sample_size(np.zeros(5)) == 0


def open_bandit(policy: str) -> pl.DataFrame:
    path = OPEN_BANDIT / policy / "men" / "men.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: the Open Bandit sample is not on this machine")
    return pl.read_csv(path, columns=["item_id", "position", "click", "propensity_score"])


def bandit_slates(rows: pl.DataFrame, target: np.ndarray) -> WeightedSlates:
    items = rows["item_id"].to_numpy()[:, None]
    weights = importance_weights(np.log(target)[:, None], rows["propensity_score"].to_numpy()[:, None], items)
    return WeightedSlates(weights, rows["click"].to_numpy().astype(float)[:, None], np.arange(len(rows)))


def test_open_bandit_thompson_sampling_to_random_has_the_published_figures():
    rows = open_bandit("bts")
    slates = bandit_slates(rows, np.full(len(rows), 1 / 34))

    estimates = estimate_values(slates, 1000, Bootstrap(100))

    assert round(estimates["ips"][0].mean, 6) == 0.003009
    assert round(estimates["snips"][0].mean, 6) == 0.003189
    assert round(effective_sample_size(slates.importance)) == 656


def test_open_bandit_random_to_thompson_sampling_is_within_the_noise_of_its_simulation():
    rows = open_bandit("random")
    draws = np.random.default_rng(0).beta(PRIOR_CLICKS, PRIOR_MISSES, size=(100_000, 34))
    shown = np.argsort(-draws, axis=1)[:, :3]
    share = np.stack([np.bincount(shown[:, p], minlength=34) for p in range(3)], axis=1) / len(draws)
    target = share[rows["item_id"].to_numpy(), rows["position"].to_numpy() - 1]
    slates = bandit_slates(rows, np.maximum(target, 1e-12))

    estimates = estimate_values(slates, 1000, Bootstrap(100))

    assert estimates["ips"][0].mean == pytest.approx(0.004543, rel=0.01)
    assert estimates["snips"][0].mean == pytest.approx(0.004614, rel=0.01)
    assert effective_sample_size(slates.importance) == pytest.approx(2471, rel=0.01)
