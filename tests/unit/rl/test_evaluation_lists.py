"""Figures of whole lists against slow references."""

import numpy as np
import pytest
from scipy import sparse

from rl.evaluation.intervals import Bootstrap
from rl.evaluation.lists import build_catalogue, diversity, list_table, miscalibration, novelty
from rl.evaluation.pasts import user_pasts
from rl.evaluation.ranking import ranking_states, score_ranking
from rl.evaluation.rivals import unit
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW = 0


def test_diversity_is_one_less_the_mean_cosine_of_all_pairs():
    rng = np.random.default_rng(0)
    embeddings = unit(rng.normal(size=(20, 3)).astype(np.float32))
    lists = np.array([rng.permutation(20)[:4] for _ in range(6)], dtype=np.int32)

    got = diversity(lists, embeddings)

    for row, items in enumerate(lists):
        cosines = [embeddings[a] @ embeddings[b] for a in items for b in items if a != b]
        assert got[row] == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert diversity(lists[:, :1], embeddings).tolist() == [0.0] * 6
    same = np.tile(np.float32([[0.6, 0.8]]), (20, 1))
    np.testing.assert_allclose(diversity(lists, same), 0, atol=1e-6)


def test_novelty_is_the_mean_surprise_in_bits():
    behaviours = np.array([6, 2, 0, 0])  # one added to each makes 7, 3, 1, 1 of 12

    bits = novelty(np.array([[0, 1], [2, 3]], dtype=np.int32), behaviours)

    np.testing.assert_allclose(bits, [-(np.log2(7 / 12) + np.log2(3 / 12)) / 2, np.log2(12)])


def test_miscalibration_is_the_divergence_of_category_shares():
    categories = np.array([0, 0, 1, 2])
    known = sparse.csr_matrix(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0.0]]))
    lists = np.array([[0, 1], [0, 1], [0, 1]], dtype=np.int32)

    got = miscalibration(lists, known, categories)

    assert got[0] == pytest.approx(0)  # the user's one category, and the list's
    q = np.array([0.99 + 0.005, 0.005])
    assert got[1] == pytest.approx((0.5 * np.log(0.5 / q)).sum())
    assert np.isnan(got[2])


def test_table_has_a_row_a_policy_and_null_without_categories():
    log = session_log([[(0, VIEW), (1, VIEW)], [(2, VIEW), (3, VIEW)]], [0, 2], users=["a", "a"])
    judged, pasts = ranking_states(log, 3, 4, 10), user_pasts(log, TASKS)
    scores = {
        "x": score_ranking(
            judged, lambda states, sessions: np.tile([4.0, 3, 2, 1], (len(states), 1)), 4, 2, 100
        )
    }
    embeddings = np.eye(4, dtype=np.float32)

    with_categories = build_catalogue(log, embeddings, ["a", "a", "b", None], None)
    row = list_table(scores, judged, with_categories, pasts, Bootstrap(100))[0]
    bare = list_table(scores, judged, build_catalogue(log, embeddings, None, None), pasts, Bootstrap(100))[0]

    assert with_categories.category_names == ("a", "b", "other")
    assert row["coverage"] == 0.5
    assert row["diversity"]["mean"] == pytest.approx(1)
    assert row["calibration"]["mean"] >= 0
    assert bare["calibration"] is None


def test_largest_categories_are_kept_and_the_rest_is_one():
    log = session_log([[(0, VIEW)]], [0])
    values = [f"c{i}" for i in range(60)] + ["c7"] * 3

    catalogue = build_catalogue(log, np.ones((63, 1), np.float32), values, [None] * 63)

    assert catalogue.category_names[0] == "c7" and catalogue.category_names[-1] == "other"
    assert len(catalogue.category_names) == 51
    assert catalogue.categories is not None and (catalogue.categories == 0).sum() == 4
    assert catalogue.groups is None
