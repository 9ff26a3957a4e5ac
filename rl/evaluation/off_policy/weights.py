"""Importance weights: how much more often the target policy would have done what the log shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import LoggedSlates
from rl.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """Where each slate stands: R slates of S sessions, a session's slates in order of time."""

    session: Ints  # [R] 0 .. S - 1, ascending
    step: Ints  # [R] 0, 1, 2, ... within the session

    @property
    def num_sessions(self) -> int:
        """S."""
        return int(self.session.max(initial=-1)) + 1

    def sums(self, values: Floats) -> Floats:
        """Sum over each session's slates. float64 [R, C] gives [S, C], [R] gives [S]."""
        starts = np.flatnonzero(self.step == 0)
        return np.asarray(np.add.reduceat(values, starts, axis=0), dtype=np.float64)


def build_steps(sessions: Ints) -> Steps:
    """Steps of slates whose rows stand together by session, in order of time.

    Args:
        sessions: Any session number of each slate. int64 [R].

    Raises:
        ValueError: There is no slate, or a session's slates do not stand together.
    """
    if not len(sessions):
        raise ValueError("logged slates: expected at least one, got none.")
    starts = np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]])
    if len(np.unique(sessions[starts])) < len(starts):
        raise ValueError(
            "logged slates: expected the slates of a session to stand together, got one that comes back. "
            "Sort by session and time."
        )
    index = np.cumsum(np.r_[True, sessions[1:] != sessions[:-1]]) - 1  # [R]
    return Steps(index.astype(np.int64), np.arange(len(sessions)) - starts[index])


def slate_rewards(slates: LoggedSlates, tasks: Tasks) -> Floats:
    """Signed reward of each slate per task, summed over its positions.

    Returns:
        float64 [R, K].
    """
    return np.asarray(position_rewards(slates, tasks).sum(axis=1))


def position_rewards(slates: LoggedSlates, tasks: Tasks) -> Floats:
    """Signed reward of each position per task: 1 a response, or the responses' values.

    Returns:
        float64 [R, L, K].
    """
    paid = np.where(tasks.pays_value, slates.values, slates.responses)
    return np.asarray(paid.astype(np.float64) * tasks.signs)


def position_weights(target_log_probs: Floats, propensities: Floats, items: Ints) -> Floats:
    """Target probability over propensity of each item at its position, given those above it.

    Args:
        target_log_probs: Log-probability of each item at its position given those above, under the target policy.
            float64 [R, L].
        propensities: The same as probability, under the logging policy; nan unknown. float64 [R, L].
        items: Item index, -1 where the slate is empty. int64 [R, L].

    Returns:
        float64 [R, L], >= 0; 1 where the slate is empty, nan where the propensity is unknown.

    Raises:
        ValueError: A propensity is outside (0, 1], or the shapes differ.
    """
    if not target_log_probs.shape == propensities.shape == items.shape:
        raise ValueError(
            "importance weights: expected log-probabilities, propensities and items of one shape, got "
            f"{target_log_probs.shape}, {propensities.shape} and {items.shape}."
        )
    shown = items >= 0
    wrong = shown & ~np.isnan(propensities) & ((propensities <= 0) | (propensities > 1 + 1e-9))
    if wrong.any():
        raise ValueError(f"propensity: expected in (0, 1], got {propensities[wrong][0]}. Correct the log.")
    log_ratio = target_log_probs - np.log(np.where(shown, propensities, 1.0))
    return np.asarray(np.exp(np.where(shown, log_ratio, 0.0)))


def importance_weights(target_log_probs: Floats, propensities: Floats, items: Ints) -> Floats:
    """Target probability of each whole slate over its propensity; nan where a shown item's propensity is unknown.

    Arguments and errors as for ``position_weights``. Returns float64 [R], >= 0.
    """
    return np.asarray(position_weights(target_log_probs, propensities, items).prod(axis=1))


def cascade_weights(position: Floats) -> Floats:
    """Weight of each position together with all above it, as in the cascade model. [R, L] of ``position_weights``."""
    return np.asarray(np.cumprod(position, axis=1))


def cumulative_weights(importance: Floats, steps: Steps) -> Floats:
    """Weight of each slate together with all earlier ones of its session: what a session's return needs.

    Args:
        importance: Weight of each slate, >= 0. float64 [R].
        steps: Their places.

    Returns:
        float64 [R].

    Source:
        Precup, Sutton and Singh 2000, "Eligibility traces for off-policy policy evaluation".
    """
    table = np.ones((steps.num_sessions, int(steps.step.max(initial=0)) + 1))
    table[steps.session, steps.step] = importance
    return np.asarray(np.cumprod(table, axis=1)[steps.session, steps.step])


def effective_sample_size(importance: Floats) -> float:
    """Number of equally weighted slates that would say as much: (sum w)^2 / sum w^2. 0 without weight.

    Source:
        Kish 1965; Kong 1992.
    """
    square = float((importance**2).sum())
    return float(importance.sum() ** 2 / square) if square > 0 else 0.0


def clipped(importance: Floats, cap: float) -> Floats:
    """min(w, cap): bounded variance, low for positive rewards.

    Source:
        Ionides 2008, "Truncated importance sampling"; Bottou et al. 2013.
    """
    return np.minimum(importance, cap)


def shrunk(importance: Floats, strength: float) -> Floats:
    """w / (1 - strength + strength w): a smooth cap at 1 / strength. ``strength`` in [0, 1], 0 leaves w alone.

    Source:
        Metelli et al. 2021, "Subgaussian and differentiable importance sampling", NeurIPS.
    """
    return np.asarray(importance / (1 - strength + strength * importance))


def optimistically_shrunk(importance: Floats, strength: float) -> Floats:
    """strength w / (w^2 + strength): small weights stay, large ones fall towards 0. ``strength`` > 0, inf leaves w.

    Source:
        Su et al. 2020, "Doubly robust off-policy evaluation with shrinkage", ICML, section 4.
    """
    if np.isinf(strength):
        return importance
    return np.asarray(strength * importance / (importance**2 + strength))
