"""Rivals against figures that can be checked by hand."""

import numpy as np

from rl.evaluation.ranking import ranking_states
from rl.evaluation.rivals import (
    item_knn_scorer,
    nearest_content_scorer,
    popular_scorer,
    popularity,
    random_scorer,
)
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW, PURCHASE, RETURN = 0, 1, 2


def test_popularity_weighs_tasks_and_leaves_out_costs_and_later_splits():
    log = session_log(
        [[(0, VIEW), (0, VIEW), (1, PURCHASE), (2, RETURN), (2, RETURN)], [(3, PURCHASE)], [(3, VIEW)]],
        [0, 1, 2],
    )

    scores = popularity(log, 5, TASKS)

    np.testing.assert_allclose(scores, [2 / 5, 3 / 5, 0, 0, 0], rtol=1e-6)
    judged = ranking_states(log, 3, 4, 10)
    np.testing.assert_array_equal(popular_scorer(scores)(judged), scores[None])


def test_nearest_content_goes_by_the_session_and_else_by_the_past():
    embeddings = np.array([[1, 0], [0, 5], [1, 1]], dtype=np.float32)
    log = session_log([[(0, VIEW), (1, VIEW)]], [2])  # past is [0, 1]
    judged = ranking_states(log, 3, 4, 10)

    scores = nearest_content_scorer(embeddings)(judged)

    np.testing.assert_allclose(scores[0], [0, 1, np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(scores[1], [1, 0, np.sqrt(0.5)], atol=1e-6)


def test_nearest_content_takes_the_mean_of_two_items():
    embeddings = np.array([[2, 0], [0, 7], [1, 1], [-1, 0]], dtype=np.float32)
    judged = ranking_states(session_log([[(0, VIEW), (1, VIEW), (3, VIEW)]], [2]), 3, 4, 10)

    scores = nearest_content_scorer(embeddings)(judged)

    np.testing.assert_allclose(scores[2], [np.sqrt(0.5), np.sqrt(0.5), 1, -np.sqrt(0.5)], atol=1e-6)


def test_item_knn_matches_cosine_by_hand_with_past_and_session_items():
    sessions = [
        [(0, VIEW), (1, VIEW), (1, VIEW)],  # user a
        [(0, VIEW), (2, PURCHASE)],  # user b
        [(1, VIEW), (3, RETURN)],  # user c
        [(0, VIEW)],  # user c again, test: past item 1, session starts empty
        [(2, VIEW), (1, VIEW)],  # user d, test
    ]
    log = session_log(sessions, [0, 0, 0, 2, 2], users=["a", "b", "c", "c", "d"])
    matrix = np.zeros((4, 4))
    for user, item in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1)]:
        matrix[user, item] = 1
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    similarity = unit.T @ unit
    judged = ranking_states(log, 3, 4, 10)

    scores = item_knn_scorer(log, 4, TASKS, num_neighbours=4)(judged)

    assert judged.targets.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores[0], similarity[1], atol=1e-6)
    np.testing.assert_allclose(scores[1], np.zeros(4))
    np.testing.assert_allclose(scores[2], similarity[2], atol=1e-6)


def test_item_knn_does_not_see_the_users_later_sessions():
    sessions = [[(0, VIEW), (1, VIEW)], [(2, VIEW)], [(0, VIEW)]]
    log = session_log(sessions, [0, 2, 2], users=["a", "b", "b"])
    judged = ranking_states(log, 3, 4, 10)

    scores = item_knn_scorer(log, 3, TASKS, num_neighbours=3)(judged)

    np.testing.assert_allclose(scores, np.zeros((2, 3)))


def test_random_scores_repeat_with_the_seed():
    judged = ranking_states(session_log([[(0, VIEW)]], [2]), 3, 4, 10)

    first, again, other = (random_scorer(50, seed)(judged) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
