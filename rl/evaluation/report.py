"""The report: all evidence as one JSON object, with the plainest answer first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.intervals import Estimate, student_intervals, welch_intervals

REPORT_VERSION = 1
Returns = Mapping[str, NDArray[Any]]  # policy name: signed return of each session per task, float [S, K]


@dataclass(frozen=True)
class Setting:
    """What every part of the report refers to."""

    candidate: str  # the policy under judgement
    task_names: tuple[str, ...]  # K
    task_weights: NDArray[np.float32]  # [K], sums to 1
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """What was measured; the parts are as in ``report.schema.json``."""

    verdict: dict[str, Any]
    simulated: Returns
    ranking: dict[str, list[dict[str, Any]]]
    overall: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    lists: list[dict[str, Any]] = field(default_factory=list)
    segments: dict[str, Any] | None = None
    fitness: dict[str, Any] | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    importance: dict[str, Any] | None = None
    front: dict[str, Any] | None = None
    off_policy: list[dict[str, Any]] = field(default_factory=list)
    simulator: dict[str, Any] = field(default_factory=dict)
    log: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Any] | None = None
    learning_curve: list[dict[str, Any]] = field(default_factory=list)


def weighted_returns(returns: NDArray[Any], task_weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return of each session in one number. float [S, K] and [K] give [S]."""
    return np.asarray(np.asarray(returns, np.float64) @ np.asarray(task_weights, np.float64))


def policy_estimates(returns: Returns, setting: Setting) -> list[dict[str, Any]]:
    """One entry a policy: its weighted return and that of each task, with Student t intervals over sessions.

    Raises:
        ValueError: A policy's returns have no session, or another number of tasks.
    """
    entries = []
    for name, values in returns.items():
        if np.ndim(values) != 2 or np.shape(values)[1] != len(setting.task_names):
            raise ValueError(
                f"returns of {name}: expected [sessions, {len(setting.task_names)}], got shape {np.shape(values)}."
            )
        columns = np.column_stack([weighted_returns(values, setting.task_weights), values])  # [S, 1 + K]
        weighted, *tasks = (e.to_json() for e in student_intervals(columns, setting.confidence))
        entries.append(
            {"name": name, "weighted": weighted, "tasks": dict(zip(setting.task_names, tasks, strict=True))}
        )
    return entries


def weighted_gain(first: NDArray[Any], second: NDArray[Any], setting: Setting) -> Estimate:
    """Weighted return of the first policy minus the second's, sessions not paired. Two float [S, K]."""
    a, b = (weighted_returns(values, setting.task_weights)[:, None] for values in (first, second))
    return welch_intervals(a, b, setting.confidence)[0]


def build_report(setting: Setting, evidence: Evidence) -> dict[str, Any]:
    """The report as ``report.schema.json`` describes it, without ``truth``."""
    return {
        "version": REPORT_VERSION,
        "summary": _summary(evidence.simulated, setting, "in the held-out simulator"),
        "verdict": evidence.verdict,
        "candidate": setting.candidate,
        "task_weights": {n: float(w) for n, w in zip(setting.task_names, setting.task_weights, strict=True)},
        "confidence": setting.confidence,
        "truth": None,
        "ranking": evidence.ranking,
        "overall": evidence.overall,
        "comparisons": evidence.comparisons,
        "lists": evidence.lists,
        "segments": evidence.segments,
        "fitness": evidence.fitness,
        "examples": evidence.examples,
        "importance": evidence.importance,
        "front": evidence.front,
        "simulated": {"policies": policy_estimates(evidence.simulated, setting)},
        "off_policy": evidence.off_policy,
        "simulator": evidence.simulator,
        "log": evidence.log,
        "kept": evidence.kept,
        "learning_curve": evidence.learning_curve,
    }


def add_truth(report: Mapping[str, Any], returns: Returns, upper_bound_name: str | None) -> dict[str, Any]:
    """The report with the true returns of a made-up shop, and a summary that goes by them.

    Args:
        report: As ``build_report`` returns it.
        returns: Signed return of each live session per task, by policy. float [S, K].
        upper_bound_name: The policy of ``returns`` that knows the hidden state; it is listed apart from the others.
            None where there is none.

    Raises:
        ValueError: ``returns`` lacks the upper bound, or as for ``policy_estimates``.
    """
    setting = setting_of(report)
    rest = {name: values for name, values in returns.items() if name != upper_bound_name}
    bound = None
    if upper_bound_name is not None:
        if upper_bound_name not in returns:
            raise ValueError(
                f"truth: expected returns of {upper_bound_name!r}, got those of {', '.join(returns)}."
            )
        entry = policy_estimates({upper_bound_name: returns[upper_bound_name]}, setting)[0]
        bound = {"name": upper_bound_name, **entry["weighted"], "tasks": entry["tasks"]}
    return {
        **report,
        "summary": _summary(rest, setting, "in the made-up shop's truth"),
        "truth": {"policies": policy_estimates(rest, setting), "upper_bound": bound},
    }


def setting_of(report: Mapping[str, Any]) -> Setting:
    """What ``build_report`` was told about candidate and tasks."""
    weights = report["task_weights"]
    return Setting(
        candidate=report["candidate"],
        task_names=tuple(weights),
        task_weights=np.array(list(weights.values()), dtype=np.float32),
        confidence=report["confidence"],
    )


def _summary(returns: Returns, setting: Setting, where: str) -> str:
    """One or two plain sentences: is reinforcement learning worth it, or is a simple rival as good?"""
    rivals = [
        n for n in returns if n != setting.candidate and not n.endswith("_oracle")
    ]  # those know hidden states
    if setting.candidate not in returns or not rivals:
        return "Whether reinforcement learning is worth it here is unknown: no rival was played beside it."
    means = {name: float(weighted_returns(v, setting.task_weights).mean()) for name, v in returns.items()}
    rival = max(rivals, key=lambda name: means[name])
    gain = weighted_gain(returns[setting.candidate], returns[rival], setting)
    figures = (
        f"{setting.candidate} returns {means[setting.candidate]:.4g} a session {where}, "
        f"the best simple rival, {rival}, {means[rival]:.4g}{_difference(gain)}."
    )
    if gain.low is not None and gain.low > 0:
        return f"Reinforcement learning is worth it here: {figures}"
    if gain.high is not None and gain.high < 0:
        return f"Reinforcement learning is not worth it here, a simple rival is better: {figures}"
    return f"Reinforcement learning is not shown to be worth it here, a simple rival is as good: {figures}"


def _difference(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return ""
    return f" (difference {gain.mean:+.4g}, interval {gain.low:+.4g} to {gain.high:+.4g})"


def log_counts(
    split: NDArray[np.int8], num_behaviours: int, num_items: int, users: Sequence[str]
) -> dict[str, int]:
    """Counts of the log for the report. ``split`` is int8 [S], ``users`` the user of each session."""
    counts = np.bincount(split, minlength=3)
    return {
        "behaviours": num_behaviours,
        "items": num_items,
        "users": len(set(users)),
        "sessions": len(split),
        "train_sessions": int(counts[0]),
        "validation_sessions": int(counts[1]),
        "test_sessions": int(counts[2]),
    }
