"""Session estimators on a small world whose values can be computed, and against slow references."""

import numpy as np
import pytest

from rl.evaluation.off_policy.gain import controlled_gain, controlled_return
from rl.evaluation.off_policy.sessions import (
    doubly_robust_sessions,
    marginalised,
    per_decision,
    weighted_per_decision,
)
from rl.evaluation.off_policy.weights import build_steps, cumulative_weights

# Two states, two actions, at most six steps. Action 1 in state 0 earns now, but leads to state 1, where little is.
REWARD = np.array([[0.4, 1.0], [0.1, 0.2]])
MOVE = np.array([[0.1, 0.8], [0.9, 0.6]])  # chance that the next state is 1
LEAVE, HORIZON = 0.15, 6
LOGGING = np.array([[0.5, 0.5], [0.6, 0.4]])
TARGET = np.array([[0.7, 0.3], [0.8, 0.2]])


def play(sessions: int, seed: int):
    """Rows by session and time: session, state, following state, action, reward."""
    dice, rows = np.random.default_rng(seed), []
    for session in range(sessions):
        state = 0
        for step in range(HORIZON):
            action = int(dice.random() < LOGGING[state, 1])
            reward = float(dice.random() < REWARD[state, action])
            after = int(dice.random() < MOVE[state, action])
            ends = step == HORIZON - 1 or dice.random() < LEAVE
            rows.append((session, state, -1 if ends else after, action, reward))
            if ends:
                break
            state = after
    return (np.array(column) for column in zip(*rows, strict=True))


def to_go(policy: np.ndarray) -> np.ndarray:
    """Expected return from each step, state and action on. [HORIZON, 2, 2]."""
    values, after = np.zeros((HORIZON, 2, 2)), np.zeros(2)
    for step in reversed(range(HORIZON)):
        onward = (1 - LEAVE) * ((1 - MOVE) * after[0] + MOVE * after[1])
        values[step] = REWARD + onward
        after = (policy * values[step]).sum(axis=1)
    return values


def truth(policy: np.ndarray) -> float:
    return float((policy * to_go(policy)[0]).sum(axis=1)[0])


@pytest.fixture(scope="module")
def log():
    session, state, following, action, reward = play(4000, 0)
    steps = build_steps(session)
    weights = TARGET[state, action] / LOGGING[state, action]
    return steps, state, following, action, reward[:, None], weights, cumulative_weights(weights, steps)


def estimates(log) -> dict[str, np.ndarray]:
    steps, state, following, action, reward, weights, cumulative = log
    values = to_go(TARGET)
    logged = values[steps.step, state, action][:, None]
    target = (TARGET[state] * values[steps.step, state]).sum(axis=1, keepdims=True)
    return {
        "per_decision": per_decision(cumulative, reward, steps),
        "weighted": weighted_per_decision(cumulative, reward, steps),
        "dr": doubly_robust_sessions(cumulative, reward, logged, target, steps),
        "marginalised": marginalised(weights, reward, state, following, 2, steps),
    }


def test_every_form_finds_the_targets_return(log):
    for name, found in estimates(log).items():
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - truth(TARGET)) < 3.5 * error, name


def test_models_and_marginals_lower_the_error(log):
    spread = {name: found.std() for name, found in estimates(log).items()}

    assert spread["dr"] < spread["per_decision"]
    assert spread["weighted"] < spread["per_decision"]
    assert spread["marginalised"] < spread["per_decision"]


def test_per_decision_forms_match_slow_references():
    session, state, _, action, reward = play(30, 1)
    steps, w = build_steps(session), TARGET[state, action] / LOGGING[state, action]
    cumulative = cumulative_weights(w, steps)
    q, v = np.full((len(w), 1), 0.3), np.full((len(w), 1), 0.4)
    slow, robust, carried = 0.0, 0.0, np.zeros((30, HORIZON))
    for s in range(30):
        product = 1.0
        rows = np.flatnonzero(session == s)
        for i in rows:
            robust += product * v[i, 0]
            product *= w[i]
            slow += product * reward[i]
            robust += product * (reward[i] - q[i, 0])
            carried[s, steps.step[i] :] = product
    weighted = sum(cumulative[i] * reward[i] / carried[:, steps.step[i]].mean() for i in range(len(w))) / 30

    rewards = reward[:, None]
    assert per_decision(cumulative, rewards, steps).mean() == pytest.approx(slow / 30)
    assert doubly_robust_sessions(cumulative, rewards, q, v, steps).mean() == pytest.approx(robust / 30)
    assert weighted_per_decision(cumulative, rewards, steps).mean() == pytest.approx(weighted)


def test_controlled_return_is_the_intercept_of_a_regression_with_hc3_errors(log):
    steps, _, _, _, reward, _, cumulative = log
    found = controlled_return(cumulative, reward, steps)

    values = per_decision(cumulative, reward, steps)[:, 0]
    last = np.flatnonzero(np.r_[steps.step[1:] == 0, True])
    design = np.column_stack([np.ones(len(last)), cumulative[last] - 1])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ values
    residuals = values - design @ coefficients
    hat = np.array([row @ inverse @ row for row in design])
    meat = sum(
        np.outer(row, row) * e**2 / (1 - h) ** 2 for row, e, h in zip(design, residuals, hat, strict=True)
    )
    assert found.means[0] == pytest.approx(coefficients[0])
    assert (found.errors**2).sum() == pytest.approx((inverse @ meat @ inverse)[0, 0])


def test_gain_is_the_return_less_the_logged_one_with_a_smaller_error(log):
    steps, _, _, _, reward, _, cumulative = log
    value, gain = controlled_return(cumulative, reward, steps), controlled_gain(cumulative, reward, steps)

    assert gain.means[0] == pytest.approx(truth(TARGET) - truth(LOGGING), abs=0.05)
    assert (gain.errors**2).sum() < (value.errors**2).sum()


def test_gain_of_the_logging_policy_itself_is_nothing(log):
    steps, reward = log[0], log[4]

    gain = controlled_gain(np.ones(len(reward)), reward, steps)

    estimate = gain.estimates(0.95)[0]
    assert (estimate.mean, estimate.low, estimate.high) == (0, 0, 0)


def test_slates_of_a_session_must_stand_together():
    with pytest.raises(ValueError, match="Sort by session and time"):
        build_steps(np.array([0, 1, 0]))
    with pytest.raises(ValueError, match="at least one"):
        build_steps(np.array([], dtype=np.int64))
