"""The bandit rival finds what pays at once, by item and by user, and nothing else."""

from dataclasses import replace

import numpy as np

from encoders.sessions import LoggedSlates
from encoders.state import States
from rl.evaluation.bandit_rival import bandit_scorer
from rl.tasks import TaskConfig, build_tasks
from tests.unit.rl.evaluation_logs import session_log

TASKS = build_tasks({"view": TaskConfig(weight=1), "back": TaskConfig(weight=1, cost=True)})
EMBEDDINGS = np.array([[1, 0], [1, 0.2], [0, 1], [0.2, 1], [0.7, 0.7], [0.6, 0.8]], np.float32)


def logged(chance, count: int = 4000):
    """Slates of two random items for users of taste (1, 0) or (0, 1); ``chance`` of [taste, item] for each task."""
    rng = np.random.default_rng(0)
    taste = rng.integers(2, size=count)
    items = np.array([rng.permutation(6)[:2] for _ in range(count)])
    responses = (rng.random((count, 2, 2)) < chance[:, taste[:, None], items].transpose(1, 2, 0)).astype(
        np.float32
    )
    slates = LoggedSlates(
        session=np.arange(count),
        items=items,
        responses=responses,
        values=np.zeros_like(responses),
        propensities=np.full((count, 2), 1 / 6),
        behaviours_before=np.zeros(count, np.int64),
    )
    log = session_log([[(0, 0)]] * count, [0] * count, slates=slates)
    return replace(
        log, past=np.eye(2, dtype=np.float32)[taste] + rng.normal(0, 0.05, (count, 2)).astype(np.float32)
    )


def ask(scorer):
    states = States(np.eye(2, dtype=np.float32), np.full((2, 1), -1), np.full((2, 1), -1))
    return scorer(states, np.zeros(2, np.int64))


def test_each_taste_gets_its_items():
    view = 0.1 + 0.5 * np.eye(2) @ EMBEDDINGS.T  # [taste, item]
    chance = np.stack([view, np.zeros((2, 6))])

    scores = ask(bandit_scorer(logged(chance), EMBEDDINGS, TASKS))

    assert set(np.argsort(-scores[0])[:2]) == {0, 1}
    assert set(np.argsort(-scores[1])[:2]) == {2, 3}
    np.testing.assert_allclose(scores, view / 2, atol=0.06)


def test_costs_count_against_an_item():
    chance = np.stack([np.full((2, 6), 0.5), np.tile([0.8, 0, 0, 0, 0, 0], (2, 1))])

    scores = ask(bandit_scorer(logged(chance), EMBEDDINGS, TASKS))

    assert (scores.argmin(axis=1) == 0).all()
    assert (scores[:, 0] < 0).all()


def test_log_without_slates_has_no_bandit():
    assert bandit_scorer(session_log([[(0, 0)]], [0]), EMBEDDINGS, TASKS) is None
