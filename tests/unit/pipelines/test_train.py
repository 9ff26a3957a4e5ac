"""What training keeps: the policy that learned, or the tilt that did not have to."""

import numpy as np
import pytest

from pipelines.config import load_config
from pipelines.train import TrainedPolicy, better_of
from rl.policy.network import PolicyShape, SlatePolicy


def a_policy() -> SlatePolicy:
    shape = PolicyShape(num_items=3, text_width=2, num_tasks=1, slate_length=1, history_length=1)
    return SlatePolicy(shape, np.zeros((3, 2), np.float32))


def look(weighted: float) -> dict[str, float]:
    return {"iteration": 120.0, "held_out/weighted": weighted, "held_out/error": 0.1, "held_out/excess": 0.0}


@pytest.mark.parametrize(("returns", "tilt_is_kept"), [(13.0, True), (12.0, False), (9.0, False)])
def test_tilt_is_kept_only_where_it_is_clearly_better(returns: float, tilt_is_kept: bool) -> None:
    trained = TrainedPolicy(a_policy(), a_policy(), [look(10.0)], look(10.0), None, None)
    tilted = a_policy()

    kept = better_of(trained, tilted, lambda policy: look(returns), load_config())

    assert kept.policy is (tilted if tilt_is_kept else trained.policy)
    assert kept.kept["held_out/weighted"] == (returns if tilt_is_kept else 10.0)
    assert kept.kept["iteration"] == (0 if tilt_is_kept else 120)
    assert (kept.kept is kept.tilt) == tilt_is_kept
    assert kept.tilt is not None and kept.tilt["held_out/weighted"] == returns
    assert kept.curve == trained.curve and kept.clone is trained.clone


def test_without_a_tilt_the_trained_policy_stays() -> None:
    trained = TrainedPolicy(a_policy(), a_policy(), [look(10.0)], look(10.0), None, None)

    assert better_of(trained, None, lambda policy: look(99.0), load_config()) is trained
