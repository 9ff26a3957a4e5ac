import numpy as np
import pytest
from pydantic import ValidationError

from rl.sweep import Axis, SweepConfig, pareto_mask, search_space


def slow_pareto(rows):
    def beats(a, b):
        return all(x >= y for x, y in zip(a, b, strict=True)) and any(
            x > y for x, y in zip(a, b, strict=True)
        )

    return [not any(beats(other, row) for other in rows) for row in rows]


def test_pareto_mask_of_three_trials_by_hand():
    returns = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])

    assert pareto_mask(returns).tolist() == [True, True, False]


def test_pareto_mask_keeps_equal_trials_together():
    assert pareto_mask(np.array([[1.0, 2.0], [1.0, 2.0]])).tolist() == [True, True]


@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_pareto_mask_agrees_with_brute_force_on_ties_and_costs(num_tasks):
    rng = np.random.default_rng(num_tasks)

    for _ in range(50):
        returns = rng.integers(-2, 3, size=(9, num_tasks)).astype(np.float64)

        assert pareto_mask(returns).tolist() == slow_pareto(returns.tolist())


def test_search_space_without_one_is_every_tasks_weight():
    space = search_space(SweepConfig(), ["view", "purchase"])

    assert list(space) == ["rl.tasks.view.weight", "rl.tasks.purchase.weight"]
    assert space["rl.tasks.view.weight"] == Axis(uniform=(0.0, 1.0))


def test_search_space_given_is_taken_as_it_is():
    sweep = SweepConfig.model_validate({"space": {"rl.ppo.learning_rate": {"log_uniform": [1e-4, 1e-2]}}})

    assert search_space(sweep, ["view"]) == {"rl.ppo.learning_rate": Axis(log_uniform=(1e-4, 1e-2))}


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({}, "exactly one of"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one of"),
        ({"uniform": [1, 1]}, "lowest < highest"),
        ({"log_uniform": [0, 1]}, "above 0"),
        ({"choice": []}, "at least one value"),
    ],
)
def test_axis_that_cannot_be_drawn_from_is_refused(axis, message):
    with pytest.raises(ValidationError, match=message):
        Axis.model_validate(axis)
