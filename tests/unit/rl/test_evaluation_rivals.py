"""Rivals against figures that can be checked by hand."""

import numpy as np
import pytest

from rl.evaluation.config import RivalsConfig
from rl.evaluation.pasts import left_padded, user_pasts
from rl.evaluation.ranking import ranking_states
from rl.evaluation.rivals import (
    als_scorer,
    bpr_scorer,
    item_knn_scorer,
    nearest_content_scorer,
    popular_scorer,
    popularity,
    random_scorer,
    recent_popularity,
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
    np.testing.assert_array_equal(popular_scorer(scores)(judged.states, judged.sessions), scores[None])


def test_nearest_content_goes_by_the_session_and_else_by_the_past():
    embeddings = np.array([[1, 0], [0, 5], [1, 1]], dtype=np.float32)
    log = session_log([[(0, VIEW), (1, VIEW)]], [2])  # past is [0, 1]
    judged = ranking_states(log, 3, 4, 10)

    scores = nearest_content_scorer(embeddings)(judged.states, judged.sessions)

    np.testing.assert_allclose(scores[0], [0, 1, np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(scores[1], [1, 0, np.sqrt(0.5)], atol=1e-6)


def test_nearest_content_takes_the_mean_of_two_items():
    embeddings = np.array([[2, 0], [0, 7], [1, 1], [-1, 0]], dtype=np.float32)
    judged = ranking_states(session_log([[(0, VIEW), (1, VIEW), (3, VIEW)]], [2]), 3, 4, 10)

    scores = nearest_content_scorer(embeddings)(judged.states, judged.sessions)

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

    scores = item_knn_scorer(user_pasts(log, TASKS), 4, num_neighbours=4)(judged.states, judged.sessions)

    assert judged.targets.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores[0], similarity[1], atol=1e-6)
    np.testing.assert_allclose(scores[1], np.zeros(4))
    np.testing.assert_allclose(scores[2], similarity[2], atol=1e-6)


def test_item_knn_does_not_see_the_users_later_sessions():
    sessions = [[(0, VIEW), (1, VIEW)], [(2, VIEW)], [(0, VIEW)]]
    log = session_log(sessions, [0, 2, 2], users=["a", "b", "b"])
    judged = ranking_states(log, 3, 4, 10)

    scores = item_knn_scorer(user_pasts(log, TASKS), 3, num_neighbours=3)(judged.states, judged.sessions)

    np.testing.assert_allclose(scores, np.zeros((2, 3)))


def test_random_scores_repeat_with_the_seed():
    judged = ranking_states(session_log([[(0, VIEW)]], [2]), 3, 4, 10)

    first, again, other = (random_scorer(50, seed)(judged.states, judged.sessions) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_recent_popularity_looks_at_the_latest_sessions_before_the_test():
    log = session_log([[(0, VIEW)]] * 8 + [[(1, PURCHASE)], [(2, VIEW)], [(3, VIEW)]], [0] * 8 + [0, 1, 2])

    scores = recent_popularity(log, 5, TASKS, share=0.2)

    np.testing.assert_allclose(scores, [0, 3 / 5, 1 / 5, 0, 0], rtol=1e-6)


def two_tastes(num_users: int = 60) -> tuple:
    """Users who like the first or the last five of ten items, each seen with four; a fifth is asked for."""
    rng = np.random.default_rng(0)
    sessions, splits, users = [], [], []
    for split in (0, 2):
        for user in range(num_users):
            own = rng.permutation(5) + 5 * (user % 2)
            sessions.append([(int(i), VIEW) for i in own[:4]] if split == 0 else [(int(own[0]), VIEW)])
            splits.append(split)
            users.append(f"u{user}")
    sessions += [[(1, VIEW), (0, VIEW)], [(7, VIEW), (6, VIEW)]]  # two whom the train split does not know
    return session_log(sessions, [*splits, 2, 2], [*users, "new a", "new b"])


@pytest.mark.parametrize("make", [als_scorer, bpr_scorer])
def test_factors_find_the_users_taste_known_or_not(make):
    log = two_tastes()
    judged = ranking_states(log, 3, 4, 1000)
    known = judged.before > 0  # of the new users, after their first item
    known |= judged.sessions < 120

    scores = make(user_pasts(log, TASKS), 10, RivalsConfig(als_factors=4, bpr_factors=4), seed=0)(
        judged.states, judged.sessions
    )

    right = np.where((judged.targets < 5)[:, None], np.arange(10) < 5, np.arange(10) >= 5)
    gap = np.where(right, scores, np.nan), np.where(right, np.nan, scores)
    assert (np.nanmean(gap[0], axis=1) > np.nanmean(gap[1], axis=1))[known].mean() > 0.95


def test_als_solves_the_users_row_as_by_hand():
    log = two_tastes()
    judged = ranking_states(log, 3, 4, 1000)
    pasts, config = user_pasts(log, TASKS), RivalsConfig(als_factors=3, als_alpha=5.0, als_regularization=0.1)
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=3, regularization=0.1, alpha=5.0, iterations=15, random_state=0, num_threads=1
    )
    model.fit(pasts.train_matrix(10), show_progress=False)
    items = np.asarray(model.item_factors, np.float64)

    scores = als_scorer(pasts, 10, config, seed=0)(judged.states, judged.sessions)

    known = pasts.known_items(judged.states, judged.sessions, 10).toarray()
    for row in (0, 17, len(judged) - 1):
        confidence = 1 + 4.0 * known[row]  # implicit's alpha scales the entry itself
        gram = items.T @ (confidence[:, None] * items) + 0.1 * np.eye(3)
        factor = np.linalg.solve(gram, items.T @ (5.0 * known[row]))
        np.testing.assert_allclose(scores[row], items @ factor, rtol=1e-3, atol=1e-4)


def test_sequences_hold_the_latest_items_without_costs_and_repeats():
    log = session_log(
        [[(0, VIEW), (0, PURCHASE), (1, VIEW), (2, RETURN)], [(3, VIEW)], [(4, VIEW), (4, VIEW), (5, VIEW)]],
        [0, 0, 2],
        users=["a", "b", "a"],
    )
    pasts, judged = user_pasts(log, TASKS), ranking_states(log, 3, 4, 10)

    assert pasts.sequences(judged.states, judged.sessions, 4).tolist() == [[-1, -1, 0, 1], [-1, 0, 1, 4]]
    assert pasts.sequences(judged.states, judged.sessions, 2).tolist() == [[0, 1], [1, 4]]
    assert pasts.counts_before(judged.sessions).tolist() == [3, 3]
    assert pasts.known_items(judged.states, judged.sessions, 6).toarray().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0],
    ]
    assert left_padded(np.array([[-1, 2, 2, -1, 2, 3]]), 3).tolist() == [[-1, 2, 3]]
