"""Delayed effects: does what a slate shows change what the session earns after it?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal, stats

from encoders.sessions import SPLITS, LoggedSlates, SessionLog
from rl.tasks import Tasks

WIDTH = 16  # leading directions of the embeddings that stand for a slate, and for a user's past
DISCOUNT = 0.8  # worth of a reward a slate later: what comes much later is mostly noise
MIN_SESSIONS = 50
MAX_P = 0.01  # below which effects are found
POWER = 0.8  # with which the test finds an effect that explains ``share_detectable``

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DelayTest:
    """A Wald test of the slates' content on what follows them."""

    p_value: float
    share_explained: float  # of the variance that the controls leave, in [0, 1]
    share_detectable: float  # the same, of an effect that would be found four times in five
    num_slates: int
    num_sessions: int


def find_delay(log: SessionLog, embeddings: NDArray[np.float32], tasks: Tasks) -> DelayTest | None:
    """Regress what the train sessions earn after each slate on the slate's content, given what went before it.

    The outcome is the discounted weighted reward of the session's later slates, 0 where it ended. The content is the
    leading directions of the shown items' mean embedding, its likeness to what the session was shown before, and the
    share of items shown again. The controls are the user's past, the step, what was shown and earned so far, and the
    share to be expected again. The logging policy chose on no more than that in the made-up shop; in a log where it
    knew more, this is an association.

    Returns:
        None where there are no slates, or too few sessions have two of them.
    """
    if log.slates is None:
        return None
    kept = np.flatnonzero(log.split[log.slates.session] == SPLITS.index("train"))
    if not len(kept):
        return None
    slates = log.slates
    session, first = slates.session[kept], _first_of_session(slates.session[kept])
    reward = _rewards(slates, tasks)[kept]
    shown = _mean_shown(slates, kept, _leading(embeddings))
    earlier = _before(shown, first)
    step = np.arange(len(session)) - first
    counts = np.maximum(step, 1)[:, None]
    again, expected = _repeats(slates.items[kept], first)
    controls = np.column_stack(
        [
            np.ones(len(session)),
            step,
            step**2,
            step == 0,
            _leading(log.past[log.split == SPLITS.index("train")], log.past)[session],
            earlier / counts,
            _before(reward[:, None], first),
            expected,
        ]
    )
    likeness = (shown * earlier / counts).sum(axis=1)
    content = np.column_stack([shown, likeness, (shown**2).sum(axis=1), again])
    later = _after(reward, session)
    if len(np.unique(session[step > 0])) < MIN_SESSIONS:
        return None
    return wald_test(later, content, controls, session)


def wald_test(outcome: Floats, tested: Floats, controls: Floats, groups: NDArray[np.int64]) -> DelayTest:
    """Do the tested columns add to the controls? Residuals of one group may depend on each other.

    Args:
        outcome: float64 [B].
        tested: float64 [B, P].
        controls: With a constant. float64 [B, Q].
        groups: int64 [B].

    Source:
        Frisch, Waugh and Lovell; Liang and Zeger 1986 for the covariance over clusters; F as its reference with one
        degree of freedom less than there are clusters, Cameron and Miller 2015.
    """
    basis = _basis(controls)
    left = outcome - basis @ (basis.T @ outcome)
    columns = _basis(tested - basis @ (basis.T @ tested))  # orthonormal, so the coefficients are projections
    rank = columns.shape[1]
    effect = columns.T @ left  # [P']
    residual = left - columns @ effect
    _, number = np.unique(groups, return_inverse=True)
    num_groups = int(number.max()) + 1
    scores = np.zeros((num_groups, rank))
    np.add.at(scores, number, columns * residual[:, None])
    covariance = scores.T @ scores * num_groups / max(num_groups - 1, 1)
    if rank == 0 or not residual.any():
        return DelayTest(1.0, 0.0, 1.0, len(outcome), num_groups)
    wald = float(effect @ np.linalg.pinv(covariance) @ effect)
    variance = max(float((left**2).sum()), 1e-300)
    needed = _noncentrality(rank, num_groups - 1) * float(np.trace(covariance)) / rank  # squared length
    return DelayTest(
        float(stats.f.sf(wald / rank, rank, num_groups - 1)),
        float((effect**2).sum()) / variance,
        min(1.0, needed / variance),
        len(outcome),
        num_groups,
    )


def _noncentrality(rank: int, freedom: int) -> float:
    """What an F statistic must have to be beyond ``MAX_P`` with ``POWER``."""
    edge = stats.f.isf(MAX_P, rank, freedom)
    return float(optimize.brentq(lambda far: stats.ncf.sf(edge, rank, freedom, far) - POWER, 1e-6, 1e4))


def _basis(columns: Floats) -> Floats:
    """Orthonormal basis of the columns' span, columns of no consequence left out. [B, P] gives [B, P']."""
    scale = np.maximum(np.sqrt((columns**2).sum(axis=0)), 1e-12)
    left, spread, _ = np.linalg.svd(columns / scale, full_matrices=False)
    return np.asarray(left[:, spread > 1e-6])


def _rewards(slates: LoggedSlates, tasks: Tasks) -> Floats:
    """Weighted signed reward of each slate. float64 [R]."""
    paid = np.where(tasks.pays_value, slates.values, slates.responses).sum(axis=1)  # [R, K]
    return np.asarray(paid @ (tasks.signs * tasks.weights).astype(np.float64))


def _leading(fitted: NDArray[np.float32], applied: NDArray[np.float32] | None = None) -> Floats:
    """The leading directions of some vectors, applied to the same or others, in units of standard deviations."""
    mean = fitted.mean(axis=0)
    _, spread, axes = np.linalg.svd(fitted[:20_000] - mean, full_matrices=False)
    kept = min(WIDTH, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()))
    scale = np.sqrt(min(len(fitted), 20_000)) / spread[:kept]
    return np.asarray(((fitted if applied is None else applied) - mean) @ (axes[:kept].T * scale), np.float64)


def _mean_shown(slates: LoggedSlates, kept: NDArray[np.int64], features: Floats) -> Floats:
    items = slates.items[kept]
    padded = np.vstack([features, np.zeros(features.shape[1])])  # -1 picks the last row
    return np.asarray(padded[items].sum(axis=1) / np.maximum((items >= 0).sum(axis=1), 1)[:, None])


def _first_of_session(session: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the session's first slate, for each slate. Sessions ascend. int64 [R]."""
    return np.searchsorted(session, session)


def _before(values: Floats, first: NDArray[np.int64]) -> Floats:
    """Sum of the session's earlier rows. [R, C]."""
    total = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    return np.asarray(total[np.arange(len(values))] - total[first])


def _after(values: Floats, session: NDArray[np.int64]) -> Floats:
    """Discounted sum of the session's later rows, the next one in full. [R]."""
    with_next_sessions = signal.lfilter([1.0], [1.0, -DISCOUNT], values[::-1])[::-1]
    every = np.append(with_next_sessions, 0.0)
    end = np.searchsorted(session, session, side="right")
    within = every[:-1] - DISCOUNT ** (end - np.arange(len(values))) * every[end]
    return np.asarray((within - values) / DISCOUNT)


def _repeats(items: NDArray[np.int64], first: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Share of a slate's items that the session was shown before, and what is to be expected of it. [R] twice.

    Both rise over a session. What the one has beyond the other is chance, and stands for nothing else that rises.
    """
    row, column = np.nonzero(items >= 0)
    shown = items[row, column]
    _, earliest = np.unique(first[row] * (int(items.max()) + 1) + shown, return_index=True)
    fresh = np.zeros(len(row), dtype=bool)
    fresh[earliest] = True  # rows ascend, so the first showing is the earliest
    again = np.bincount(row, weights=~fresh, minlength=len(items)) / np.maximum((items >= 0).sum(axis=1), 1)
    rate = np.bincount(shown) / len(shown)
    new = np.asarray(np.bincount(row, weights=fresh * rate[shown], minlength=len(items)), np.float64)
    return np.asarray(again), _before(new[:, None], first)[:, 0]
