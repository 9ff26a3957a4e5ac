"""The gate's rules on logged slates, fairness and parity: what each refuses, and what would decide it."""

from collections.abc import Mapping, Sequence

import numpy as np

from rl.evaluation.config import GateConfig
from rl.evaluation.gate import Finding
from rl.evaluation.logged import Logged
from rl.evaluation.off_policy.planning import (
    Question,
    exploration_needed,
    growth_needed,
)


def logged_findings(
    logged: Logged | None, candidate: str, task_names: Sequence[str], gate: GateConfig
) -> list[Finding]:
    """Support, sample size, gain and each task, in this order.

    Where the log lacks support or size, it says nothing for or against: gain and tasks are then not judged by it. Where
    the gate only reports what the log says, one finding that passes says it all.

    Args:
        logged: Of later sessions than the candidate learned from; None where no propensity is known.
        candidate: Its name.
        task_names: Those of columns 1 to K.
        gate: Limits.
    """
    if logged is None:
        return [
            Finding(
                True, "The log has no slates with propensities, so it cannot tell what a policy would earn."
            )
        ]
    findings = _logged_rules(logged, candidate, task_names, gate)
    refused = [finding.reason for finding in findings if not finding.passed]
    if gate.logged == "report" and refused:
        return [Finding(True, f"The log would refuse, but here only reports: {' '.join(refused)}")]
    return findings


def _logged_rules(
    logged: Logged, candidate: str, task_names: Sequence[str], gate: GateConfig
) -> list[Finding]:
    enough = [
        propensity_rule(logged, gate),
        support_rule(logged, candidate, gate),
        sample_size_rule(logged, candidate, gate),
    ]
    if not all(finding.passed for finding in enough):
        return [finding for finding in enough if not finding.passed]
    tasks = [
        logged_task_rule(logged, column + 1, task, candidate, gate) for column, task in enumerate(task_names)
    ]
    return [*enough, logged_gain_rule(logged, candidate, gate), *tasks]


def propensity_rule(logged: Logged, gate: GateConfig) -> Finding:
    """Propensities that are smaller than what was done make every weight too large."""
    found = logged.calibration
    if found is None or found.low is None:
        return Finding(True, "The logged propensities were not checked against what was shown.")
    where = f"Propensities: items were shown {found.mean:.3f} times as often as the log says they would be"
    if found.low > 1 + gate.max_propensity_error:
        return Finding(
            False,
            f"{where} (lower bound {found.low:.3f}). Log the chance that was drawn from, then ask again.",
        )
    return Finding(True, f"{where}.")


def support_rule(logged: Logged, candidate: str, gate: GateConfig) -> Finding:
    """The log must be able to show what the candidate does."""
    found = logged.diagnostics
    if found.unsupported > gate.max_unsupported:
        return Finding(
            False,
            f"Missing support: {found.unsupported:.1%} of what {candidate} shows the log never does, above the allowed "
            f"{gate.max_unsupported:.1%}. {_exploration(logged, gate)}",
        )
    if found.missing_support:
        weight = found.session_weight
        return Finding(
            False,
            f"Missing support: {candidate}'s session weights have a mean of {weight.mean:.3f} (upper bound "
            f"{weight.high:.3f}), below 1: part of what it does the log never shows. {_exploration(logged, gate)}",
        )
    return Finding(True, f"Nothing says that {candidate} does what the log cannot show.")


def sample_size_rule(logged: Logged, candidate: str, gate: GateConfig) -> Finding:
    """Enough of the log must speak for the candidate."""
    found = logged.diagnostics
    where = (
        f"the log's {found.num_slates:,} slates are worth {found.effective_sample_size:,.0f} ({found.share:.1%}) "
        f"for {candidate}"
    )
    if found.share < gate.min_effective_share:
        return Finding(
            False,
            f"Low effective sample size: {where}, below {gate.min_effective_share:.0%} of the log. "
            f"{_exploration(logged, gate)}",
        )
    if found.effective_sample_size < gate.min_effective_sample_size:
        more = found.num_slates * (gate.min_effective_sample_size / found.effective_sample_size - 1)
        return Finding(
            False,
            f"Low effective sample size: {where}, below {gate.min_effective_sample_size:,.0f}. "
            f"About {_round(more)} more slates would be enough.",
        )
    return Finding(True, f"Effective sample size: {where}.")


def logged_gain_rule(logged: Logged, candidate: str, gate: GateConfig) -> Finding:
    """The lower bound of the gain in weighted return must be above 0."""
    gain = logged.gain.estimates(2 * gate.confidence - 1)[0]
    base = float(logged.returns[:, 0].mean())
    if gain.low is None or gain.high is None:
        return Finding(
            False, f"On {gain.n} logged session {candidate}'s gain has no interval. Log more sessions."
        )
    where = (
        f"On {gain.n:,} logged sessions {candidate} earns {gain.mean:+.4g} a session against the logged {base:.4g} "
        f"(lower bound {gain.low:+.4g} at {gate.confidence:.0%}"
    )
    if gain.low > 0:
        return Finding(True, f"{where}): a gain is shown.")
    if gain.high < 0:
        return Finding(False, f"{where}, upper bound {gain.high:+.4g}): a loss is shown.")
    interest = _interest(logged, gate)
    error = float(np.sqrt((logged.gain.errors[:, 0] ** 2).sum()))
    question = Question(max(gain.mean, interest), gate.confidence)
    growth, small = growth_needed(error, question), ""
    explore = f" {_exploration(logged, gate)}"
    if growth <= 1:  # what matters would have shown; what is left is small
        small, explore = f" {interest:.3g} would have shown.", ""
        question = Question(gain.mean if gain.mean > 0 else gain.high, gate.confidence)
        growth = max(growth_needed(error, question), 1.0)
    more = logged.diagnostics.num_slates * (growth - 1)
    return Finding(
        False,
        f"{where}): no gain is shown.{small} If it gains {question.effect:.3g}, about {_round(more)} more slates would "
        f"show it with a chance of {question.power:.0%}.{explore}",
    )


def logged_task_rule(logged: Logged, column: int, task: str, candidate: str, gate: GateConfig) -> Finding:
    """No task's return may be shown to fall by more than the allowed share of the logged one."""
    gain = logged.gain.estimates(2 * gate.confidence - 1)[column]
    base = float(logged.returns[:, column].mean())
    allowed = gate.max_task_loss * abs(base)
    where = (
        f"Task {task} on the log: {candidate} earns {gain.mean:+.4g} a session against the logged {base:.4g}"
    )
    if gain.low is None or gain.high is None:
        return Finding(False, f"{where}, without an interval. Log more sessions.")
    if gain.high < -allowed:
        return Finding(
            False,
            f"{where} (upper bound {gain.high:+.4g}): the loss is above the allowed {gate.max_task_loss:.0%}.",
        )
    if gain.low >= -allowed:
        return Finding(True, f"{where}: no loss above the allowed {gate.max_task_loss:.0%}.")
    return Finding(True, f"{where}: a loss above {gate.max_task_loss:.0%} is neither shown nor ruled out.")


def fairness_rules(
    exposure: Mapping[str, float], reference: Mapping[str, float], candidate: str, gate: GateConfig
) -> list[Finding]:
    """No item group may lose more than the allowed share of the exposure that it has today.

    Args:
        exposure: Share of the shown positions by item group, under the candidate.
        reference: The same under the policy in service.
        candidate: Its name.
        gate: Limits.
    """
    findings = []
    for group, before in reference.items():
        now = exposure.get(group, 0.0)
        where = f"Fairness: group {group} has {now:.1%} of what {candidate} shows, and {before:.1%} today"
        if now < (1 - gate.max_exposure_loss) * before:
            findings.append(
                Finding(
                    False,
                    f"{where}: it loses more than the allowed {gate.max_exposure_loss:.0%} of its exposure.",
                )
            )
        else:
            findings.append(
                Finding(True, f"{where}: within the allowed loss of {gate.max_exposure_loss:.0%}.")
            )
    return findings


def parity_rule(largest_gap: float, gate: GateConfig) -> Finding:
    """What serves must be what was judged.

    Args:
        largest_gap: Largest difference between the log-probabilities of the probe slates in the judged policy and in
            the bundle that would serve; nan where one of them has none.
        gate: Limits.
    """
    if not largest_gap <= gate.max_parity_gap:
        return Finding(
            False,
            f"Parity: the bundle's log-probabilities differ from the judged policy's by up to {largest_gap:.3g}, above "
            f"the allowed {gate.max_parity_gap:g}. What would serve is not what was judged: export it again.",
        )
    return Finding(
        True, f"Parity: the bundle's log-probabilities are the judged policy's to {largest_gap:.3g}."
    )


def _interest(logged: Logged, gate: GateConfig) -> float:
    """The smallest gain a session worth waiting for, > 0."""
    return max(gate.gain_of_interest * abs(float(logged.returns[:, 0].mean())), 1e-12)


def _exploration(logged: Logged, gate: GateConfig) -> str:
    """How much exploration would decide a gain of interest."""
    question = Question(_interest(logged, gate), gate.confidence)
    needed = exploration_needed(logged.weights, logged.returns[:, 0], question, gate.min_effective_share)
    slates = logged.diagnostics.num_slates * max(needed.growth, 1.0)
    return (
        f"Give it {needed.share:.0%} of the sessions for about {_round(slates)} slates, and a gain of "
        f"{gate.gain_of_interest:.0%} would show with a chance of {question.power:.0%}."
    )


def _round(slates: float) -> str:
    """Two significant digits, thousands separated."""
    digits = int(np.floor(np.log10(max(slates, 1.0)))) - 1
    return f"{int(round(slates, -max(digits, 0))):,}"
