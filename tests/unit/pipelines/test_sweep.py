import pytest

from pipelines.config import ConfigError, build_config
from pipelines.sweep import checked_space, mark_front, table


def config_with(space):
    return build_config({"rl": {"sweep": {"space": space}}})


def test_checked_space_of_the_defaults_is_the_weights():
    assert list(checked_space(build_config({}))) == [
        "rl.tasks.view.weight",
        "rl.tasks.cart.weight",
        "rl.tasks.purchase.weight",
    ]


@pytest.mark.parametrize("key", ["rl.slate_length", "rl.tasks.view.behaviour", "encoder.precision", "rl.ppo"])
def test_checked_space_refuses_what_earlier_stages_depend_on(key):
    with pytest.raises(ConfigError, match=f"expected keys such as .*, got '{key}'"):
        checked_space(config_with({key: {"choice": [1]}}))


def test_checked_space_refuses_unknown_keys_before_any_trial():
    with pytest.raises(ConfigError, match=r"rl\.ppo\.learning_rat: expected a known key"):
        checked_space(config_with({"rl.ppo.learning_rat": {"uniform": [0.1, 0.2]}}))


def test_checked_space_refuses_an_end_out_of_range():
    with pytest.raises(ConfigError, match=r"rl\.ppo\.clip_range: .* got 1\.5"):
        checked_space(config_with({"rl.ppo.clip_range": {"uniform": [0.1, 1.5]}}))


def test_table_lists_the_best_first_and_stars_the_front():
    trials = [
        {"values": {"rl.ppo.kl": 0.1}, "returns": {"a": 1.0, "b": 1.0}, "weighted": 1.0, "iterations": 4},
        {"values": {"rl.ppo.kl": 0.2}, "returns": {"a": 1.0, "b": 3.0}, "weighted": 2.0, "iterations": 8},
    ]
    mark_front(trials)

    lines = [line.split() for line in table(trials).splitlines()]

    assert lines == [
        ["weighted", "a", "b", "rounds", "ppo.kl"],
        ["*", "2.0000", "1.0000", "3.0000", "8", "0.2"],
        ["1.0000", "1.0000", "1.0000", "4", "0.1"],
    ]
