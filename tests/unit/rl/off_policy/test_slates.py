"""Slate estimators: the Open Bandit Pipeline's figures, slow references, and the truth of a cascade."""

import numpy as np
import pytest

from rl.evaluation.off_policy.slates import (
    cascade_doubly_robust,
    independent_ips,
    reward_interaction_ips,
)
from tests.unit.rl.off_policy.synthetic import ranking

# Worked out with the Open Bandit Pipeline 0.5.7 on ranking(12345, 2000).
PIPELINE = {
    "independent": 1.2556075489381078,
    "interaction": 1.2202211706259012,
    "cascade": 1.2447450102184208,
}


def estimates(log) -> dict[str, np.ndarray]:
    position = log.target / log.logging
    return {
        "independent": independent_ips(position, log.rewards),
        "interaction": reward_interaction_ips(position, log.rewards),
        "cascade": cascade_doubly_robust(position, log.rewards, log.model, log.target_model),
    }


def test_estimates_are_the_open_bandit_pipelines():
    found = {name: rows.mean() for name, rows in estimates(ranking(12345, 2000)).items()}

    assert found == pytest.approx(PIPELINE, abs=1e-12)


def test_estimates_match_slow_references():
    log = ranking(1, 50)
    w, r = log.target / log.logging, log.rewards[..., 0]
    q, v = log.model[..., 0], log.target_model[..., 0]
    slow = {"independent": 0.0, "interaction": 0.0, "cascade": 0.0}
    for i in range(50):
        for position in range(3):
            down_to = np.prod(w[i, : position + 1])
            slow["independent"] += w[i, position] * r[i, position] / 50
            slow["interaction"] += down_to * r[i, position] / 50
            slow["cascade"] += np.prod(w[i, :position]) * v[i, position] / 50
            slow["cascade"] += down_to * (r[i, position] - q[i, position]) / 50

    assert {name: rows.mean() for name, rows in estimates(log).items()} == pytest.approx(slow)


def test_cascade_estimators_find_the_truth_and_need_less_weight_than_whole_slates():
    log = ranking(2)
    whole = (log.target / log.logging).prod(axis=1) * log.rewards.sum(axis=(1, 2))

    found = estimates(log)

    for name in ("interaction", "cascade"):
        error = found[name].std() / np.sqrt(len(whole))
        assert abs(found[name].mean() - log.truth) < 3 * error + 0.01
        assert error < whole.std() / np.sqrt(len(whole))
    assert found["cascade"].std() < found["interaction"].std()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"slate estimate: expected .* got \(4, 2, 1\)"):
        independent_ips(np.ones((4, 3)), np.ones((4, 2, 1)))
