"""The gate on logged slates: each rule refuses in its own words, and says what would decide."""

import re
from dataclasses import replace

import numpy as np
import pytest

from rl.evaluation.config import GateConfig
from rl.evaluation.gate import judge
from rl.evaluation.gate_logged import fairness_rules, logged_findings, parity_rule
from rl.evaluation.intervals import Estimate
from rl.evaluation.logged import judge_logged

GATE = GateConfig()
TASKS = ("view", "purchase")


def log_of(
    spread: float,
    gain: float,
    sessions: int = 4000,
    seed: int = 0,
    fall: float = 0.0,
    unsupported: float = 0.0,
):
    """One slate a session. Weights of this spread; the reward rises with the weight as the gain asks."""
    dice = np.random.default_rng(seed)
    noise = dice.normal(size=sessions)
    weights = np.exp(spread * noise - spread**2 / 2)
    slope = gain / max(np.exp(spread**2) - 1, 1e-9)  # then E[(w - 1) r] is the gain
    view = 1 + slope * (weights - 1) + 0.3 * dice.normal(size=sessions)
    purchase = 1 - fall / max(np.exp(spread**2) - 1, 1e-9) * (weights - 1) + 0.3 * dice.normal(size=sessions)
    rewards = np.column_stack([view, view, purchase])
    return judge_logged(weights, rewards, np.arange(sessions), unsupported)


def reasons(findings, passed: bool) -> list[str]:
    return [finding.reason for finding in findings if finding.passed is passed]


def test_near_and_better_policy_passes_with_the_numbers_said():
    findings = logged_findings(log_of(0.3, 0.05), "ppo", TASKS, GATE)

    assert judge(findings)["promote"]
    assert any(
        re.search(r"lower bound \+0\.0\d+ at 95%\): a gain is shown", r) for r in reasons(findings, True)
    )


def test_worse_policy_is_shown_to_lose():
    findings = logged_findings(log_of(0.3, -0.1), "ppo", TASKS, GATE)

    assert any("a loss is shown" in r for r in reasons(findings, False))


def test_gain_not_shown_names_the_slates_that_would_show_it():
    logged = log_of(0.9, 0.002, sessions=1500, seed=3)

    refused = reasons(logged_findings(logged, "ppo", TASKS, GATE), False)

    assert len(refused) == 1
    more = int(re.search(r"about ([\d,]+) more slates", refused[0])[1].replace(",", ""))
    assert 100 < more < 50_000
    larger = log_of(0.9, 0.06, sessions=1500 + 2 * more, seed=4)
    assert judge(logged_findings(larger, "ppo", TASKS, GATE))["promote"]


def test_no_gain_on_a_large_log_says_that_a_gain_of_interest_would_have_shown():
    refused = reasons(logged_findings(log_of(0.1, 0.0, sessions=40_000, seed=2), "ppo", TASKS, GATE), False)

    assert len(refused) == 1
    assert re.search(
        r"no gain is shown\. 0\.0499 would have shown\. If it gains .* more slates would", refused[0]
    )


def test_low_effective_share_asks_for_exploration_and_judges_nothing_else():
    refused = logged_findings(log_of(2.0, 0.5), "ppo", TASKS, GATE)

    assert not judge(refused)["promote"]
    assert len(refused) == 1
    assert re.search(r"Low effective sample size: .* below 10% of the log", refused[0].reason)
    assert re.search(r"Give it \d+% of the sessions for about [\d,]+ slates", refused[0].reason)


def test_low_effective_number_asks_for_more_slates():
    refused = reasons(logged_findings(log_of(0.3, 0.5, sessions=300), "ppo", TASKS, GATE), False)

    assert re.search(r"below 500\. About \d+ more slates would be enough", refused[0])


def test_missing_support_is_said_apart_whether_counted_or_seen_in_the_weights():
    counted = logged_findings(log_of(0.3, 0.1, unsupported=0.2), "ppo", TASKS, GATE)
    assert reasons(counted, False)[0].startswith(
        "Missing support: 20.0% of what ppo shows the log never does"
    )

    half = judge_logged(np.full(2000, 0.5), np.ones((2000, 3)), np.arange(2000), 0.0)
    seen = logged_findings(half, "ppo", TASKS, GATE)
    assert seen[0].reason.startswith("Missing support: ppo's session weights have a mean of 0.500")


def test_propensities_that_are_too_small_refuse():
    logged = log_of(0.3, 0.1)
    wrong = replace(logged, calibration=Estimate(1.3, 1.2, 1.4, 100))
    right = replace(logged, calibration=Estimate(0.9, 0.85, 1.0, 100))

    assert reasons(logged_findings(wrong, "ppo", TASKS, GATE), False)[0].startswith(
        "Propensities: items were shown 1.300"
    )
    assert judge(logged_findings(right, "ppo", TASKS, GATE))["promote"]


def test_task_that_falls_refuses_a_gain_in_the_weighted_return():
    findings = logged_findings(log_of(0.3, 0.1, fall=0.3), "ppo", TASKS, GATE)

    assert len(reasons(findings, False)) == 1
    assert re.search(r"Task purchase on the log: .* above the allowed 5%", reasons(findings, False)[0])


def test_log_that_only_reports_passes_and_says_what_it_would_refuse():
    findings = logged_findings(log_of(2.0, 0.5), "ppo", TASKS, GateConfig(logged="report"))

    assert judge(findings)["promote"]
    assert findings[0].reason.startswith("The log would refuse, but here only reports: Low effective")


def test_log_without_propensities_is_said_to_have_none():
    findings = logged_findings(None, "ppo", TASKS, GATE)

    assert findings[0].passed
    assert "no slates with propensities" in findings[0].reason


@pytest.mark.parametrize(("now", "passed"), [(0.2, True), (0.14, False), (0.0, False)])
def test_fairness_limit_is_a_share_of_todays_exposure(now, passed):
    findings = fairness_rules({"small": now, "own": 1 - now}, {"small": 0.3, "own": 0.7}, "ppo", GATE)

    assert [finding.passed for finding in findings] == [passed, True]
    assert "Fairness: group small" in findings[0].reason


@pytest.mark.parametrize(("gap", "passed"), [(1e-5, True), (0.1, False), (float("nan"), False)])
def test_parity_failure_refuses(gap, passed):
    finding = parity_rule(gap, GATE)

    assert finding.passed is passed
    assert finding.reason.startswith("Parity: ")
