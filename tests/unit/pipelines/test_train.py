"""What training keeps: the mean of what was learned, the best of it, or the tilt that did not have to learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.config import load_config
from pipelines.learning import Learned, blend
from pipelines.train import TrainedPolicy, better_of, learning_curve, settled
from rl.policy.network import PolicyShape, SlatePolicy


def a_policy(bias: float = 0.0) -> SlatePolicy:
    shape = PolicyShape(num_items=3, text_width=2, num_tasks=1, slate_length=1, history_length=1)
    policy = SlatePolicy(shape, np.zeros((3, 2), np.float32))
    with torch.no_grad():
        policy.id_bias.fill_(bias)
    return policy


def look(weighted: float, iteration: int = 120) -> dict[str, float]:
    return {
        "iteration": float(iteration),
        "training": 2 * weighted,
        "held_out/weighted": weighted,
        "held_out/error": 0.1,
        "held_out/excess": 0.0,
    }


def learned(bias: float, weighted: float, iteration: int = 120, stopped: str | None = None) -> Learned:
    kept = look(weighted, iteration)
    return Learned(dict(a_policy(bias).state_dict()), [look(1.0, 60), kept], kept, stopped)


def trained() -> TrainedPolicy:
    return TrainedPolicy(a_policy(), a_policy(), [[look(10.0)]], look(10.0), [120], None, None)


@pytest.mark.parametrize(
    ("returns", "searched_in", "tilt_is_kept"),
    [(13.0, 30.0, True), (12.0, 30.0, False), (9.0, 30.0, False), (13.0, 21.0, False), (13.0, 9.0, False)],
)
def test_tilt_is_kept_only_where_both_simulators_find_it_clearly_better(
    returns: float, searched_in: float, tilt_is_kept: bool
) -> None:
    before, tilted = trained(), a_policy()

    kept = better_of(
        before,
        tilted,
        lambda policy: look(returns),
        lambda policy: look(searched_in if policy is tilted else 20.0),
        load_config(),
    )

    assert kept.policy is (tilted if tilt_is_kept else before.policy)
    assert kept.look["held_out/weighted"] == (returns if tilt_is_kept else 10.0)
    assert kept.iterations == ([] if tilt_is_kept else [120])
    assert kept.tilt is not None and kept.tilt["held_out/weighted"] == returns
    assert kept.curves == before.curves and kept.clone is before.clone


def test_without_a_tilt_the_trained_policy_stays() -> None:
    before = trained()

    better = look(99.0)
    assert better_of(before, None, lambda policy: better, lambda policy: better, load_config()) is before


@pytest.mark.parametrize(("returns", "is_kept"), [(11.0, True), (9.0, True), (5.0, False)])
def test_policy_stays_as_trained_where_what_was_made_of_it_is_clearly_worse(
    returns: float, is_kept: bool
) -> None:
    before = replace(trained(), policy=a_policy(1.0), clone=a_policy(3.0))

    kept = settled(
        before, lambda policy: look(returns), load_config(None, ["rl.temperature=0.25", "rl.clone_share=0.5"])
    )

    assert kept.policy.id_bias.tolist() == [[8.0 if is_kept else 1.0]] * 3  # half of the way to the clone
    assert kept.look["held_out/weighted"] == (returns if is_kept else 10.0)
    assert kept.clone.id_bias.tolist() == [[12.0]] * 3  # a rival at its best, whatever became of the policy
    assert before.policy.id_bias.tolist() == [[1.0]] * 3


def test_policy_goes_no_way_back_to_a_clone_that_knows_no_levers() -> None:
    before = replace(trained(), policy=a_policy(1.0), clone=a_policy(3.0))
    levers = load_config(None, ["rl.temperature=0.5", "rl.clone_share=0.5", "rl.levers.diversity=0.1"])

    kept = settled(before, lambda policy: look(11.0), levers)

    assert kept.policy.id_bias.tolist() == [[2.0]] * 3
    assert kept.clone.id_bias.tolist() == [[6.0]] * 3


def test_costs_above_their_limits_outweigh_what_a_temperature_returns() -> None:
    above = look(20.0) | {"held_out/excess": 0.1}

    assert settled(trained(), lambda policy: above, load_config()).look == look(10.0)


def test_as_trained_nothing_is_judged_again() -> None:
    before, neither = trained(), load_config(None, ["rl.temperature=1", "rl.clone_share=0"])

    assert settled(before, lambda policy: look(99.0), neither) is before


@pytest.mark.parametrize(("returns", "bias", "num_parts"), [(9.0, 1.5, 2), (7.0, 1.5, 2), (5.0, 2.0, 1)])
def test_mean_is_kept_unless_clearly_worse_than_all(returns: float, bias: float, num_parts: int) -> None:
    policy, kept, parts = blend(
        [learned(1.0, 8.0), learned(2.0, 10.0)], a_policy(), lambda policy: look(returns), 0.2
    )

    assert policy.id_bias.tolist() == [[bias]] * 3
    assert kept["held_out/weighted"] == (returns if num_parts == 2 else 10.0)
    assert len(parts) == num_parts


def test_training_that_was_stopped_is_left_out_where_another_was_not() -> None:
    broken = learned(5.0, 12.0, stopped="round 130: the simulator is exploited")

    policy, _, parts = blend([broken, learned(2.0, 10.0)], a_policy(), lambda policy: look(99.0), 0.2)
    of_two, _, both = blend([broken, broken], a_policy(), lambda policy: look(11.0), 0.2)

    assert policy.id_bias.tolist() == [[2.0]] * 3 and len(parts) == 1
    assert of_two.id_bias.tolist() == [[5.0]] * 3 and len(both) == 2


def test_curve_has_a_row_an_iteration_and_a_key_a_training() -> None:
    curves = [[look(1.0, 60), look(2.0, 120)], [look(3.0, 60)]]
    several = TrainedPolicy(a_policy(), a_policy(), curves, look(4.0), [120, 60], look(5.0), None)

    rows = learning_curve(several)

    assert rows[0] == {
        "iteration": 60,
        "training": 4.0,
        **{"held_out_1": 1.0, "held_out_2": 3.0, "held_out_kept": 4.0, "held_out_tilt": 5.0},
    }
    assert rows[1].keys() == {"iteration", "training", "held_out_1", "held_out_kept", "held_out_tilt"}
    assert learning_curve(trained()) == [
        {"iteration": 120, "training": 20.0, "held_out": 10.0, "held_out_kept": 10.0}
    ]
