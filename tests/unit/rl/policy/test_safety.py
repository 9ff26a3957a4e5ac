"""What stops training, and what does not."""

import re

import pytest

from rl.policy.config import PPOSettings
from rl.policy.safety import complaint_after_look, complaint_after_round

GOOD = {"not_finite": 0.0, "policy_loss": -0.01, "vf_loss": 0.9, "entropy": 2.0}


def looks(training, held_out):
    return [
        {"iteration": 10.0 * (i + 1), "training": t, "held_out/weighted": h}
        for i, (t, h) in enumerate(zip(training, held_out, strict=True))
    ]


def test_a_good_round_has_no_complaint():
    assert complaint_after_round(GOOD, PPOSettings()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"not_finite": 0.5}, r"not a finite number.*rl\.ppo\.learning_rate"),
        ({"vf_loss": 101.0}, r"exploded: expected at most rl\.ppo\.max_loss = 100, got 101"),
        ({"policy_loss": -1e4}, r"exploded"),
        ({"entropy": 0.004}, r"at least rl\.ppo\.min_entropy = 0\.005 .* got 0\.004"),
    ],
)
def test_complaints_name_the_reason_and_a_remedy(change, message):
    complaint = complaint_after_round(GOOD | change, PPOSettings())

    assert complaint is not None
    assert re.search(message, complaint)


def test_exploited_simulator_is_told_with_both_returns():
    curve = looks([10, 12, 15, 18], [10, 11, 7, 6])

    complaint = complaint_after_look(curve, PPOSettings(exploit_drop=0.3))

    assert complaint is not None
    assert "since round 20 its return rose from 12.000 to 18.000" in complaint
    assert "fell from 11.000 to 6.000" in complaint


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        ([10, 12, 15, 18], [10, 11, 12, 13]),  # both rise
        ([10, 12, 15, 18], [10, 11, 10, 10]),  # flat is no fall
        ([10, 12, 11, 10], [10, 11, 6, 6]),  # both fall: bad, but nothing is exploited
        ([10, 12, 15, 18], [10, 11, 12, 6]),  # one bad look may be chance
        ([10, 12], [10, 1]),  # too early to say
    ],
)
def test_other_curves_are_no_exploitation(training, held_out):
    assert complaint_after_look(looks(training, held_out), PPOSettings(exploit_drop=0.3)) is None
