"""The gate's rules: what stops promotion, what does not count, and that the reasons carry the numbers."""

import pytest

from rl.evaluation.config import GateConfig
from rl.evaluation.gate import (
    Finding,
    gain_rule,
    judge,
    limit_rule,
    ranking_rule,
    rival_rule,
    simulator_rules,
    task_rule,
)
from rl.evaluation.intervals import Estimate

GATE = GateConfig()


def estimate(low: float | None, high: float | None) -> Estimate:
    mean = 0.0 if low is None or high is None else (low + high) / 2
    return Estimate(mean, low, high, 100)


def test_verdict_needs_every_rule_and_puts_reasons_against_it_first():
    assert judge([Finding(True, "a"), Finding(True, "b")]) == {"promote": True, "reasons": ["a", "b"]}
    assert judge([Finding(True, "a"), Finding(False, "b")]) == {"promote": False, "reasons": ["b", "a"]}
    with pytest.raises(ValueError, match="at least one finding"):
        judge([])


@pytest.mark.parametrize(
    ("low", "high", "passed"), [(0.1, 0.5, True), (-0.1, 0.5, False), (-2, -1, False), (None, None, False)]
)
def test_simulated_gain_needs_a_lower_bound_above_zero(low, high, passed):
    finding = gain_rule("ppo", "logging", estimate(low, high))

    assert finding.passed is passed
    assert "ppo" in finding.reason
    assert "logging" in finding.reason


def test_gain_reason_carries_the_interval():
    assert "+0.3 [+0.1, +0.5]" in gain_rule("ppo", "logging", Estimate(0.3, 0.1, 0.5, 10)).reason


@pytest.mark.parametrize(
    ("low", "high", "passed", "says"),
    [
        (0.1, 0.5, True, "the lower bound is above 0"),
        (-0.1, 0.5, True, "popular is not shown to be better"),
        (-0.5, -0.1, False, "popular is better and simpler"),
        (None, None, True, "popular is not shown to be better"),
    ],
)
def test_only_a_rival_shown_to_be_better_stops_promotion(low, high, passed, says):
    finding = rival_rule("ppo", "popular", estimate(low, high))

    assert finding.passed is passed
    assert says in finding.reason


@pytest.mark.parametrize(
    ("low", "high", "passed", "says"),
    [
        (-0.9, -0.6, False, "above the allowed 5%"),
        (-0.4, 0.2, True, "no loss above"),
        (-0.9, 0.2, True, "too few"),
        (-0.9, -0.4, True, "too few"),
    ],
)
def test_task_may_lose_what_is_allowed_of_the_references_return(low, high, passed, says):
    finding = task_rule("view", "ppo", "logging", 10.0, estimate(low, high), 0.05)

    assert finding.passed is passed
    assert says in finding.reason


@pytest.mark.parametrize(
    ("low", "high", "passed", "says"),
    [(-0.2, -0.1, False, "loss is above"), (0.0, 0.1, True, "no loss"), (-0.1, 0.1, True, "too few")],
)
def test_ranking_stops_only_a_shown_loss(low, high, passed, says):
    finding = ranking_rule("view", "ppo", "popular", (0.1, 0.3), estimate(low, high), 0.2)

    assert finding.passed is passed
    assert says in finding.reason
    assert "0.1000" in finding.reason
    assert "0.3000" in finding.reason


def test_simulator_is_not_trusted_beyond_its_limits():
    findings = simulator_rules(
        {"view": 0.8, "cart": 0.5, "purchase": None}, {"return": -0.4, "length": 0.1}, GATE
    )

    assert [f.passed for f in findings] == [True, False, True, False, True]
    assert "0.500" in findings[1].reason
    assert "unknown" in findings[2].reason
    assert "40.0%" in findings[3].reason


@pytest.mark.parametrize(
    ("low", "high", "passed", "says"),
    [(-0.9, -0.5, True, "within it"), (-1.2, -0.6, False, "not shown"), (None, None, False, "too few")],
)
def test_cost_must_be_shown_to_stay_within_its_limit(low, high, passed, says):
    finding = limit_rule("return", "ppo", 1.0, estimate(low, high))

    assert finding.passed is passed
    assert says in finding.reason
