"""Real propensities: the Open Bandit sample's figures in both directions, to all digits of its reference."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rl.evaluation.off_policy.bandit import ips, snips
from rl.evaluation.off_policy.diagnostics import propensity_calibration
from rl.evaluation.off_policy.weights import build_steps, effective_sample_size, importance_weights

OPEN_BANDIT = Path(__file__).parents[5] / "shared" / "data" / "open_bandit"

# The production policy's Beta priors of the men's campaign, as published with the data set (Saito et al. 2020).
PRIOR_CLICKS = [47, 8, 62, 142, 3, 6, 100, 48, 23, 71, 61, 13, 16, 518, 30, 7, 4]
PRIOR_CLICKS += [23, 8, 10, 11, 11, 18, 121, 11, 4, 32, 30, 9, 22, 6, 23, 5, 54]
PRIOR_MISSES = [12198, 3566, 15993, 35522, 2367, 3100, 24665, 13210, 7061, 18061, 17449, 5644]
PRIOR_MISSES += [6787, 111326, 8776, 3334, 2271, 7389, 2659, 3665, 4724, 3561, 5085, 27407]
PRIOR_MISSES += [4601, 2923, 8897, 8654, 4000, 6580, 3174, 6766, 2602, 14506]
NUM_ITEMS, NUM_POSITIONS = 34, 3


def open_bandit(policy: str) -> pl.DataFrame:
    path = OPEN_BANDIT / policy / "men" / "men.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: the Open Bandit sample is not on this machine")
    return pl.read_csv(path, columns=["item_id", "position", "click", "propensity_score"])


def figures(rows: pl.DataFrame, target: np.ndarray) -> tuple[float, float, int]:
    """IPS and SNIPS to six digits, effective sample size to whole rows."""
    items = rows["item_id"].to_numpy()[:, None]
    weights = importance_weights(np.log(target)[:, None], rows["propensity_score"].to_numpy()[:, None], items)
    clicks = rows["click"].to_numpy().astype(float)[:, None]
    values = (float(ips(weights, clicks).mean()), float(snips(weights, clicks).mean()))
    return round(values[0], 6), round(values[1], 6), round(effective_sample_size(weights))


def thompson_sampling(num_simulations: int, seed: int) -> np.ndarray:
    """Chance of each item at each position: items ranked by draws of their click rates. [N, L]."""
    dice, counts = np.random.RandomState(seed), np.zeros((NUM_ITEMS, NUM_POSITIONS))
    for _ in range(num_simulations // 50_000):
        draws = dice.beta(PRIOR_CLICKS, PRIOR_MISSES, size=(50_000, NUM_ITEMS))
        shown = np.argsort(draws, axis=1)[:, ::-1][:, :NUM_POSITIONS]
        counts += np.stack([np.bincount(column, minlength=NUM_ITEMS) for column in shown.T], axis=1)
    return counts / num_simulations


def test_thompson_sampling_to_random_has_the_reference_figures():
    rows = open_bandit("bts")

    assert figures(rows, np.full(len(rows), 1 / NUM_ITEMS)) == (0.003009, 0.003189, 656)


def test_random_to_thompson_sampling_has_the_reference_figures():
    rows = open_bandit("random")
    chance = thompson_sampling(1_000_000, 12345)  # the reference's own simulation of the policy, to the draw
    target = chance[rows["item_id"].to_numpy(), rows["position"].to_numpy() - 1]

    assert figures(rows, np.maximum(target, 1e-12)) == (0.004543, 0.004614, 2471)


def test_random_policys_propensities_are_calibrated():
    rows = open_bandit("random")
    items = rows["item_id"].to_numpy()[:, None]
    propensities = rows["propensity_score"].to_numpy()[:, None]

    found = propensity_calibration(propensities, items, NUM_ITEMS, build_steps(np.arange(len(rows))))

    assert found.mean == pytest.approx(1.0)
