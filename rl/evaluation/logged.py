"""What logged slates say of a policy: every estimator's row for the report, and the gain that the gate goes by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import LoggedSlates
from rl.evaluation.intervals import Estimate
from rl.evaluation.off_policy import bandit
from rl.evaluation.off_policy.diagnostics import Diagnostics, diagnose, propensity_calibration
from rl.evaluation.off_policy.gain import Controlled, controlled_gain, controlled_return
from rl.evaluation.off_policy.intervals import heavy_tailed_intervals
from rl.evaluation.off_policy.reward_model import cross_fitted
from rl.evaluation.off_policy.sessions import (
    doubly_robust_sessions,
    final_weights,
    per_decision,
    weighted_per_decision,
)
from rl.evaluation.off_policy.slates import cascade_doubly_robust, reward_interaction_ips
from rl.evaluation.off_policy.weights import (
    Steps,
    build_steps,
    cumulative_weights,
    effective_sample_size,
    position_rewards,
    position_weights,
    shrunk,
)
from rl.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LOGGED_WORTH = "What the log itself earned."
MODEL_WORTH = "Rests on the reward model alone: as right as that is."


@dataclass(frozen=True)
class Target:
    """What the policy under evaluation would have done where each of R logged slates was shown."""

    log_probs: Floats  # [R, L] of each logged item at its position given those above
    drawn: Ints  # [R, M, L] slates that it draws there
    expect: Callable[[Ints, Floats], Floats]  # as of reward_model.cross_fitted


@dataclass(frozen=True)
class Logged:
    """What the gate needs of R logged slates of S sessions. Column 0 is the weighted return, then K tasks."""

    gain: Controlled  # return a session less the logged one. [1 + K]
    returns: Floats  # [S, 1 + K] logged
    diagnostics: Diagnostics
    cumulative: Floats  # [R] weight of each slate and those before it
    weights: Floats  # [S] weight of each whole session
    calibration: Estimate | None = (
        None  # of the propensities, 1 where they are what was done; None where not known
    )

    @property
    def num_sessions(self) -> int:
        """S."""
        return len(self.returns)


def judge_logged(
    importance: Floats,
    rewards: Floats,
    sessions: Ints,
    unsupported: float,
    calibration: Estimate | None = None,
) -> Logged:
    """The gain that the gate goes by, with what it rests on.

    Args:
        importance: Weight of each slate. float64 [R].
        rewards: Weighted reward of each slate, then each task's. float64 [R, 1 + K].
        sessions: Session of each slate, its slates together in order of time. int64 [R].
        unsupported: Target probability of items that the log never shows, in [0, 1].
        calibration: Of the propensities, as of ``diagnostics.propensity_calibration``.
    """
    steps = build_steps(sessions)
    cumulative = cumulative_weights(importance, steps)
    return Logged(
        gain=controlled_gain(cumulative, rewards, steps),
        returns=steps.sums(rewards),
        diagnostics=diagnose(cumulative, steps, unsupported=unsupported),
        cumulative=cumulative,
        weights=final_weights(cumulative, steps),
        calibration=calibration,
    )


def known_sessions(slates: LoggedSlates) -> Ints:
    """Slates of the sessions all of whose propensities are known: one gap leaves a session's weight unknown. Rows."""
    unknown = np.isnan(np.where(slates.items >= 0, slates.propensities, 0.0)).any(axis=1)
    return np.flatnonzero(~np.isin(slates.session, slates.session[unknown]))


def exposure(slates: Ints, groups: NDArray[np.str_]) -> dict[str, float]:
    """Share of the shown positions that each item group has.

    Args:
        slates: Item index at each position, -1 where empty. int64, any shape.
        groups: Group of each item. [N].
    """
    names, index = np.unique(groups, return_inverse=True)
    counts = np.bincount(index[slates[slates >= 0]], minlength=len(names))
    return {str(name): float(count / max(counts.sum(), 1)) for name, count in zip(names, counts, strict=True)}


def logged_evidence(
    slates: LoggedSlates,
    target: Target,
    tasks: Tasks,
    num_items: int,
    candidate: str,
    cap: float,
    confidence: float,
) -> tuple[list[dict[str, Any]], Logged]:
    """Every estimator's row for the report, and what the gate goes by.

    Args:
        slates: R logged slates of whole sessions, all propensities known.
        target: The candidate on the same slates.
        tasks: K tasks.
        num_items: Catalogue size, N.
        candidate: Its name.
        cap: Largest weight of the clipped estimates, and the limit of SWITCH; the others shrink to match.
        confidence: Of all intervals.
    """
    by_position = position_rewards(slates, tasks)
    by_position = np.concatenate(
        [(by_position @ tasks.weights.astype(np.float64))[..., None], by_position], -1
    )
    rewards = by_position.sum(axis=1)  # [R, 1 + K]
    position = position_weights(target.log_probs, slates.propensities, slates.items)
    weights, steps = position.prod(axis=1), build_steps(slates.session)
    seen = np.zeros(num_items, dtype=bool)
    seen[slates.items[slates.items >= 0]] = True
    unsupported = float((~seen[target.drawn])[target.drawn >= 0].mean())
    calibration = propensity_calibration(slates.propensities, slates.items, num_items, steps)
    judged = judge_logged(weights, rewards, slates.session, unsupported, calibration)
    models = _predictions(slates, target, by_position, num_items)
    rows = _Rows(candidate, ("weighted", *tasks.names), confidence)
    rows.add_slate("logged", rewards, np.ones_like(weights), steps, LOGGED_WORTH)
    _add_slate_rows(rows, weights, rewards, models, steps, cap)
    rows.add_slate("reward_interaction_ips", reward_interaction_ips(position, by_position), weights, steps)
    cascade = cascade_doubly_robust(position, by_position, models.logged, models.cascade)
    rows.add_slate("cascade_dr", cascade, weights, steps)
    _add_session_rows(rows, judged, rewards, models, steps)
    return rows.rows, judged


@dataclass(frozen=True)
class _Models:
    """Cross-fitted predictions. [R, L, 1 + K] by position, [R, 1 + K] a slate."""

    logged: Floats  # of the item shown
    cascade: Floats  # mean over the target's choice given the items above
    slate: Floats  # mean over the target's whole slates


def _predictions(slates: LoggedSlates, target: Target, by_position: Floats, num_items: int) -> _Models:
    logged, cascade = cross_fitted(slates.items, by_position, slates.session, num_items, target.expect)

    def drawn(rows: Ints, values: Floats) -> Floats:
        return np.asarray(values[target.drawn[rows]].mean(axis=1))  # [r, L, 1 + K]

    _, whole = cross_fitted(slates.items, by_position, slates.session, num_items, drawn)
    return _Models(logged, cascade, whole.sum(axis=1))


def _add_slate_rows(
    rows: "_Rows", weights: Floats, rewards: Floats, models: _Models, steps: Steps, cap: float
) -> None:
    logged, target, strength = models.logged.sum(axis=1), models.slate, cap**2
    for name, contributions, used in (
        ("ips", bandit.ips(weights, rewards), weights),
        ("snips", bandit.snips(weights, rewards), weights),
        ("clipped_ips", bandit.clipped_ips(weights, rewards, cap), np.minimum(weights, cap)),
        ("shrunk_ips", bandit.shrunk_ips(weights, rewards, 1 / cap), shrunk(weights, 1 / cap)),
        ("dm", bandit.direct(target), np.ones_like(weights)),
        ("dr", bandit.doubly_robust(weights, rewards, logged, target), weights),
        ("sndr", bandit.self_normalised_doubly_robust(weights, rewards, logged, target), weights),
        ("switch_dr", bandit.switch_doubly_robust(weights, rewards, logged, target, cap), weights),
        ("shrunk_dr", bandit.shrunk_doubly_robust(weights, rewards, logged, target, strength), weights),
    ):
        rows.add_slate(name, contributions, used, steps, MODEL_WORTH if name == "dm" else "")


def _add_session_rows(rows: "_Rows", judged: Logged, rewards: Floats, models: _Models, steps: Steps) -> None:
    cumulative, worth = judged.cumulative, judged.diagnostics.verdict()
    robust = doubly_robust_sessions(cumulative, rewards, models.logged.sum(axis=1), models.slate, steps)
    rows.add_session("logged", judged.returns, np.ones_like(cumulative), LOGGED_WORTH)
    for name, contributions in (
        ("per_decision", per_decision(cumulative, rewards, steps)),
        ("weighted_per_decision", weighted_per_decision(cumulative, rewards, steps)),
        ("session_dr", robust),
    ):
        rows.add_session(name, contributions, cumulative, worth)
    estimates = controlled_return(cumulative, rewards, steps).estimates(rows.confidence)
    rows.add("controlled", estimates, cumulative, "session", worth)


class _Rows:
    """Rows of the report's ``off_policy`` part."""

    def __init__(self, candidate: str, names: tuple[str, ...], confidence: float) -> None:
        self.candidate, self.names, self.confidence = candidate, names, confidence
        self.rows: list[dict[str, Any]] = []

    def add_slate(
        self, estimator: str, contributions: Floats, weights: Floats, steps: Steps, worth: str = ""
    ) -> None:
        """An estimate a slate. Its interval is over sessions, as a session's slates are alike."""
        means = contributions.mean(axis=0)
        errors = steps.sums(contributions - means) / len(contributions)
        estimates = heavy_tailed_intervals(means, errors, self.confidence)
        worth = worth or diagnose(weights, build_steps(np.arange(len(weights)))).verdict()
        self.add(estimator, estimates, weights, "slate", worth)

    def add_session(self, estimator: str, contributions: Floats, weights: Floats, worth: str) -> None:
        """An estimate a session."""
        n, means = len(contributions), contributions.mean(axis=0)
        errors = (contributions - means) / np.sqrt(n * max(n - 1, 1))
        estimates = heavy_tailed_intervals(means, errors, self.confidence)
        self.add(estimator, estimates, weights, "session", worth)

    def add(self, estimator: str, estimates: list[Estimate], weights: Floats, unit: str, worth: str) -> None:
        """One row a task."""
        size, largest = effective_sample_size(weights), float(weights.max())
        for task, estimate in zip(self.names, estimates, strict=True):
            self.rows.append(
                {
                    "policy": "logging" if estimator == "logged" else self.candidate,
                    "estimator": estimator,
                    "unit": unit,
                    "task": task,
                    "estimate": estimate.to_json(),
                    "effective_sample_size": size,
                    "largest_weight": largest,
                    "worth": worth,
                }
            )
