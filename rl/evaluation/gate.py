"""The gate: rules that turn evidence into one verdict, each with a reason that a person can check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl.evaluation.config import GateConfig
from rl.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Finding:
    """What one rule says. A finding that does not pass stops promotion."""

    passed: bool
    reason: str


def judge(findings: Sequence[Finding]) -> dict[str, Any]:
    """The verdict: promote if every rule passes. Reasons against promotion come first.

    Raises:
        ValueError: No rule was applied.
    """
    if not findings:
        raise ValueError("gate: expected at least one finding, got none.")
    ordered = sorted(findings, key=lambda finding: finding.passed)
    return {"promote": all(f.passed for f in findings), "reasons": [f.reason for f in ordered]}


def gain_rule(candidate: str, reference: str, gain: Estimate) -> Finding:
    """The candidate's weighted return in the held-out simulator must be above the reference's."""
    where = f"In the held-out simulator {candidate} returns {_signed(gain)} a session against {reference}"
    if gain.low is None:
        return Finding(False, f"{where}, on too few sessions for an interval.")
    if gain.low > 0:
        return Finding(True, f"{where}: the lower bound is above 0.")
    return Finding(False, f"{where}: the lower bound is not above 0, so a gain is not shown.")


def rival_rule(candidate: str, rival: str, gain: Estimate) -> Finding:
    """The best simple rival must not be shown to be better: one would then serve that instead."""
    where = f"In the held-out simulator {candidate} returns {_signed(gain)} a session against {rival}, the best rival"
    if gain.high is not None and gain.high < 0:
        return Finding(False, f"{where}: {rival} is better and simpler, so serve that.")
    if gain.low is not None and gain.low > 0:
        return Finding(True, f"{where}: the lower bound is above 0.")
    return Finding(True, f"{where}: {rival} is not shown to be better.")


def task_rule(
    task: str, candidate: str, reference: str, reference_mean: float, gain: Estimate, max_loss: float
) -> Finding:
    """No task's simulated return may be shown to fall by more than the allowed share of the reference's."""
    allowed = max_loss * abs(reference_mean)
    where = f"Task {task}: {candidate} returns {_signed(gain)} a session against {reference}'s {reference_mean:.4g}"
    if gain.high is not None and gain.high < -allowed:
        return Finding(False, f"{where}: the loss is above the allowed {max_loss:.0%}.")
    if gain.low is not None and gain.low >= -allowed:
        return Finding(True, f"{where}: no loss above the allowed {max_loss:.0%}.")
    return Finding(True, f"{where}: the sessions are too few to rule out a loss above {max_loss:.0%}.")


def limit_rule(task: str, candidate: str, limit: float, spent: Estimate) -> Finding:
    """A cost must be shown to stay within its limit in the held-out simulator.

    Args:
        task: Its name.
        candidate: The policy under judgement.
        limit: Of the mean a session.
        spent: The candidate's signed return, at most 0.
    """
    where = f"Limit of {task}: {candidate} pays {-spent.mean:.4g} a session, of at most {limit:.4g}"
    if spent.low is None:
        return Finding(False, f"{where}, on too few sessions for an interval.")
    if -spent.low <= limit:
        return Finding(True, f"{where}: within it to its upper bound {-spent.low:.4g}.")
    return Finding(False, f"{where}: up to {-spent.low:.4g}, so it is not shown to be kept.")


def ranking_rule(
    task: str, candidate: str, reference: str, means: tuple[float, float], margin: Estimate, max_loss: float
) -> Finding:
    """Ranking of later sessions must not be shown to fall below the reference's by more than the allowed share.

    Args:
        task: Its name.
        candidate: The policy under judgement.
        reference: The weaker of the clone and popularity.
        means: NDCG of candidate and reference.
        margin: As of ``ranking.ndcg_margin``.
        max_loss: Allowed relative loss.
    """
    where = f"Ranking of {task}: {candidate} has NDCG {means[0]:.4f}, {reference} {means[1]:.4f}"
    if margin.high is not None and margin.high < 0:
        return Finding(False, f"{where}: the loss is above the allowed {max_loss:.0%}.")
    if margin.low is not None and margin.low >= 0:
        return Finding(True, f"{where}: no loss above the allowed {max_loss:.0%}.")
    return Finding(True, f"{where}: the states are too few to rule out a loss above {max_loss:.0%}.")


def simulator_rules(
    auc: Mapping[str, float | None], drift: Mapping[str, float], config: GateConfig
) -> list[Finding]:
    """Nothing simulated counts if the simulator cannot tell responses apart, or departs from the log.

    Args:
        auc: Of the held-out simulator on later data, per task; None where the task fires too rarely there.
        drift: Relative gap of a simulated session statistic from the logged one under the logging policy, by name.
        config: The gate's limits.
    """
    findings = []
    for task, value in auc.items():
        if value is None:
            reason = f"The simulator's AUC on {task} is unknown: the task fires too rarely in later data."
            findings.append(Finding(True, reason))
        elif value < config.min_auc:
            reason = (
                f"The simulator is not to be trusted on {task}: AUC {value:.3f}, below {config.min_auc:g}."
            )
            findings.append(Finding(False, reason))
        else:
            findings.append(Finding(True, f"The simulator's AUC on {task} is {value:.3f}."))
    for name, value in drift.items():
        where = f"Replaying the log in the simulator, the {name.replace('_', ' ')} is off by {abs(value):.1%}"
        if abs(value) > config.max_drift:
            findings.append(Finding(False, f"{where}, above the allowed {config.max_drift:.0%}."))
        else:
            findings.append(Finding(True, f"{where}, within the allowed {config.max_drift:.0%}."))
    return findings


def _signed(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:+.4g} (no interval)"
    return f"{estimate.mean:+.4g} [{estimate.low:+.4g}, {estimate.high:+.4g}]"
