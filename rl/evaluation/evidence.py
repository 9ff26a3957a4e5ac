"""Rules applied to what was measured: the findings that the gate judges."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rl.evaluation.config import GateConfig
from rl.evaluation.gate import (
    Finding,
    gain_rule,
    limit_rule,
    ranking_rule,
    rival_rule,
    simulator_rules,
    task_rule,
)
from rl.evaluation.intervals import Bootstrap, student_intervals, welch_intervals
from rl.evaluation.ranking import JudgedStates, RankingScores, ndcg_margin
from rl.evaluation.report import Returns, Setting, weighted_gain
from rl.tasks import Tasks


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
    spent = student_intervals(first, setting.confidence)
    for k in np.flatnonzero(np.isfinite(tasks.limits)).tolist():
        findings.append(limit_rule(tasks.names[k], setting.candidate, float(tasks.limits[k]), spent[k]))
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
