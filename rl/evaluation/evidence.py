"""Rules and rows applied to what was measured: off-policy evidence, and the findings that the gate judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encoders.sessions import LoggedSlates
from rl.evaluation.config import EvaluationConfig, GateConfig
from rl.evaluation.gate import (
    Finding,
    gain_rule,
    off_policy_rule,
    ranking_rule,
    rival_rule,
    simulator_rules,
    task_rule,
)
from rl.evaluation.intervals import Bootstrap, Estimate, welch_intervals
from rl.evaluation.off_policy import (
    Floats,
    WeightedSlates,
    effective_sample_size,
    estimate_values,
    importance_weights,
    logged_values,
    slate_rewards,
    snips_gain,
)
from rl.evaluation.ranking import JudgedStates, RankingScores, ndcg_margin
from rl.evaluation.report import Returns, Setting, weighted_gain
from rl.tasks import Tasks


@dataclass(frozen=True)
class OffPolicyEvidence:
    """What logged slates say of the candidate; ``gain`` is None where no propensity is known."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of the report
    gain: Estimate | None = None  # weighted reward a slate, SNIPS minus logged
    effective_sample_size: float = 0.0
    largest_weight: float = 0.0


def off_policy_evidence(
    slates: LoggedSlates,
    log_probs: Floats,
    tasks: Tasks,
    candidate: str,
    settings: EvaluationConfig,
    seed: int,
) -> OffPolicyEvidence:
    """Estimates of the candidate's weighted and per-task reward a slate, beside the logged one.

    Args:
        slates: R logged slates of later sessions.
        log_probs: Candidate's log-probability of each item at its position given those above. float64 [R, L].
        tasks: K tasks.
        candidate: Its name.
        settings: Cap, resamples and coverage.
        seed: Of the resampling.
    """
    weights = importance_weights(log_probs, slates.propensities, slates.items)
    known = ~np.isnan(weights)
    if not known.any():
        return OffPolicyEvidence()
    rewards = slate_rewards(slates, tasks)[known]
    columns = np.column_stack([rewards @ tasks.weights.astype(np.float64), rewards])  # [R, 1 + K]
    weighted = WeightedSlates(weights[known], columns, slates.session[known])
    bootstrap = Bootstrap(settings.num_bootstrap, settings.confidence, seed)
    size, largest = effective_sample_size(weighted.importance), float(weighted.importance.max())
    names = ("weighted", *tasks.names)
    estimates = [("logging", "logged", logged_values(weighted, bootstrap), float(known.sum()), 1.0)]
    for estimator, values in estimate_values(weighted, settings.max_importance_weight, bootstrap).items():
        if estimator == "clipped_ips":
            clipped = np.minimum(weighted.importance, settings.max_importance_weight)
            estimates.append(
                (candidate, estimator, values, effective_sample_size(clipped), float(clipped.max()))
            )
        else:
            estimates.append((candidate, estimator, values, size, largest))
    rows = [
        {
            "policy": policy,
            "estimator": estimator,
            "task": task,
            "estimate": value.to_json(),
            "effective_sample_size": effective,
            "largest_weight": weight,
        }
        for policy, estimator, values, effective, weight in estimates
        for task, value in zip(names, values, strict=True)
    ]
    return OffPolicyEvidence(rows, snips_gain(weighted, bootstrap)[0], size, largest)


def simulated_findings(returns: Returns, setting: Setting, tasks: Tasks, gate: GateConfig) -> list[Finding]:
    """Findings on the candidate's simulated returns, against the logging policy where it was played, else the clone.

    Raises:
        ValueError: The candidate was not played, or neither reference was.
    """
    reference = next((name for name in ("logging", "clone") if name in returns), None)
    if setting.candidate not in returns or reference is None:
        raise ValueError(
            f"simulated returns: expected {setting.candidate} and logging or clone, got {', '.join(returns) or 'none'}."
        )
    first, second = np.asarray(returns[setting.candidate]), np.asarray(returns[reference])
    findings = [gain_rule(setting.candidate, reference, weighted_gain(first, second, setting))]
    simple = [name for name in returns if name not in (setting.candidate, reference)]
    if simple:
        rival = max(simple, key=lambda name: float((np.asarray(returns[name]) @ setting.task_weights).mean()))
        gain = weighted_gain(first, np.asarray(returns[rival]), setting)
        findings.append(rival_rule(setting.candidate, rival, gain))
    gains = welch_intervals(first, second, setting.confidence)
    for k, name in enumerate(setting.task_names):
        if tasks.weights[k] > 0:
            mean = float(second[:, k].mean())
            findings.append(task_rule(name, setting.candidate, reference, mean, gains[k], gate.max_task_loss))
    return findings


def ranking_findings(
    scores: Mapping[str, RankingScores],
    judged: JudgedStates,
    setting: Setting,
    tasks: Tasks,
    gate: GateConfig,
    bootstrap: Bootstrap,
) -> list[Finding]:
    """One finding a wanted task that fires on a judged state, against the weaker of the clone and popularity.

    The weaker one, because a policy that looks ahead rightly shows other items than those that the log's users
    happened to turn to next; but one that ranks below both has forgotten what the log taught.
    """
    findings = []
    for k, name in enumerate(setting.task_names):
        rows = judged.labels[:, k]
        if tasks.weights[k] == 0 or tasks.signs[k] < 0 or not rows.any():
            continue
        means = {policy: float(result.gains["ndcg"][rows].mean()) for policy, result in scores.items()}
        reference = min(("clone", "popular"), key=lambda policy: means[policy])
        margin = ndcg_margin(
            scores[setting.candidate], scores[reference], judged, k, gate.max_ranking_loss, bootstrap
        )
        assert margin is not None, name
        pair = (means[setting.candidate], means[reference])
        findings.append(ranking_rule(name, setting.candidate, reference, pair, margin, gate.max_ranking_loss))
    return findings


def simulator_findings(report: Mapping[str, Any], gate: GateConfig) -> list[Finding]:
    """Findings on the held-out simulator's ``auc`` per task and ``drift`` per session statistic."""
    return simulator_rules(report["auc"], report["drift"], gate)


def off_policy_findings(evidence: OffPolicyEvidence, candidate: str, gate: GateConfig) -> list[Finding]:
    """The finding on logged slates."""
    size, largest = evidence.effective_sample_size, evidence.largest_weight
    return [off_policy_rule(candidate, evidence.gain, size, largest, gate)]
