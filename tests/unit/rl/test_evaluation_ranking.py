"""Which states are judged, and what a rank earns."""

import numpy as np
import pytest

from encoders.state import session_history
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.lists import coverage_and_gini
from rl.evaluation.ranking import (
    expected_gains,
    ndcg_margin,
    ranking_states,
    ranking_table,
    score_ranking,
    top_items,
)
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW, PURCHASE, RETURN = 0, 1, 2


def test_each_item_of_a_test_session_is_asked_for_once_before_its_first_behaviour():
    log = session_log(
        [[(0, VIEW), (1, VIEW)], [(3, VIEW), (4, VIEW), (3, PURCHASE), (4, VIEW), (5, VIEW)]], splits=[0, 2]
    )

    judged = ranking_states(log, num_tasks=3, history_length=3, max_states=100)

    assert judged.targets.tolist() == [3, 4, 5]
    assert judged.labels.tolist() == [[True, True, False], [True, False, False], [True, False, False]]
    assert judged.sessions.tolist() == [1, 1, 1]
    assert judged.states.history_items.tolist() == [[-1, -1, -1], [-1, -1, 3], [4, 3, 4]]
    assert judged.states.history_tasks.tolist() == [[-1, -1, -1], [-1, -1, VIEW], [VIEW, PURCHASE, VIEW]]
    np.testing.assert_array_equal(judged.states.past, np.repeat(log.past[1:2], 3, axis=0))


def test_judged_states_match_a_walk_through_random_sessions():
    rng = np.random.default_rng(0)
    sessions = [
        [(int(rng.integers(6)), int(rng.integers(3))) for _ in range(rng.integers(0, 9))] for _ in range(40)
    ]
    splits = sorted(rng.integers(0, 3, size=40).tolist())
    log = session_log(sessions, splits)
    expected = []
    for s, session in enumerate(sessions):
        for t, (item, _) in enumerate(session):
            if splits[s] == 2 and item not in [i for i, _ in session[:t]]:
                tasks = {k for i, k in session[t:] if i == item}
                history = session_history([i for i, _ in session[:t]], [k for _, k in session[:t]], 4)
                expected.append((s, item, sorted(tasks), history[0].tolist(), history[1].tolist()))

    judged = ranking_states(log, 3, 4, max_states=10_000)

    got = [
        (
            int(judged.sessions[b]),
            int(judged.targets[b]),
            np.flatnonzero(judged.labels[b]).tolist(),
            judged.states.history_items[b].tolist(),
            judged.states.history_tasks[b].tolist(),
        )
        for b in range(len(judged))
    ]
    assert len(expected) > 20
    assert got == expected
    assert ranking_states(log, 3, 4, max_states=7).targets.tolist() == [row[1] for row in expected[:7]]


def test_log_without_test_sessions_gives_no_states():
    judged = ranking_states(session_log([[(0, VIEW)]], [0]), 3, 4, 10)

    assert len(judged) == 0
    scores = score_ranking(judged, lambda states, sessions: np.zeros((len(states), 5)), 5, 3, 1000)
    assert ranking_table({"p": scores}, judged, TASKS.names, 3, Bootstrap()) == {
        "view": [],
        "purchase": [],
        "return": [],
    }


def test_gains_of_a_rank_are_those_of_the_textbook():
    gains = expected_gains(better=np.array([0, 2, 9, 10]), tied=np.zeros(4, np.int64), k=10)

    np.testing.assert_allclose(gains["hit"], [1, 1, 1, 0])
    np.testing.assert_allclose(gains["mrr"], [1, 1 / 3, 0.1, 0])
    np.testing.assert_allclose(gains["ndcg"], [1, 0.5, 1 / np.log2(11), 0])


def test_tied_scores_earn_what_random_order_earns():
    better, tied, k = 3, 4, 5
    ranks = np.arange(better + 1, better + tied + 2)

    gains = expected_gains(np.array([better]), np.array([tied]), k)

    assert gains["hit"][0] == pytest.approx(np.mean(ranks <= k))
    assert gains["mrr"][0] == pytest.approx(np.mean(np.where(ranks <= k, 1 / ranks, 0)))
    assert gains["ndcg"][0] == pytest.approx(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0)))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_metrics_equal_torchmetrics_on_random_cases(k):
    torch = pytest.importorskip("torch")
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    rng = np.random.default_rng(k)
    log = session_log([[(int(rng.integers(40)), VIEW)] for _ in range(200)], [2] * 200)
    judged = ranking_states(log, 3, 4, 1000)
    table = rng.permuted(np.tile(np.arange(40.0), (200, 1)), axis=1)  # no ties

    scores = score_ranking(judged, lambda states, sessions: table[sessions], 40, k, 1000)

    for row, target in enumerate(judged.targets):
        preds, truth = torch.from_numpy(table[row]), torch.zeros(40, dtype=torch.int64)
        truth[target] = 1
        expected = {
            "hit": retrieval.retrieval_hit_rate(preds, truth, top_k=k),
            "ndcg": retrieval.retrieval_normalized_dcg(preds, truth, top_k=k),
            "mrr": retrieval.retrieval_reciprocal_rank(preds, truth, top_k=k),
        }
        for metric, value in expected.items():
            assert scores.gains[metric][row] == pytest.approx(float(value), abs=1e-6), metric
        assert scores.lists[row].tolist() == np.argsort(-table[row])[:k].tolist()


def test_ndcg_equals_implicits_on_the_benchmarks_own_work():
    benchmark = pytest.importorskip("tests.benchmarks.ranking", reason="torchmetrics is not installed")
    log = benchmark.made_up_log(2_000, 300)
    judged = ranking_states(log, 2, benchmark.HISTORY, 2_000)
    scorer, table = benchmark.factor_scorer(300, seed=0)

    ours = score_ranking(judged, scorer, 300, benchmark.K, 100_000)
    theirs = benchmark.by_implicit(*benchmark.as_users(judged, table, 300))

    asked = judged.before > 0  # with no history all scores tie, which implicit breaks by place
    assert asked.mean() == pytest.approx(0.9)
    untied = benchmark.by_implicit(*benchmark.as_users(judged.rows(asked), table, 300))
    assert ours.gains["ndcg"][asked].mean() == pytest.approx(untied["ndcg"], abs=1e-6)
    assert ours.gains["ndcg"].mean() == pytest.approx(theirs["ndcg"], abs=0.01)


@pytest.mark.parametrize("num_items", [5, 700, 3000])
def test_best_items_are_those_of_a_full_sort(num_items):
    rng = np.random.default_rng(0)
    apart = rng.permuted(np.tile(np.arange(num_items, dtype=np.float32), (40, 1)), axis=1)
    apart[::3, : num_items // 2] = -np.inf  # not in the running
    tied = rng.integers(3, size=(40, num_items)).astype(np.float32)

    mixed = np.where(np.arange(40)[:, None] % 2, apart, 0.0).astype(np.float32)

    for scores in (apart, tied, mixed):
        best = top_items(scores, 4)
        expected = -np.sort(-scores, axis=1)[:, :4]
        np.testing.assert_array_equal(np.take_along_axis(scores, best, axis=1), expected)
        assert all(len(set(row)) == 4 for row in best.tolist())
    np.testing.assert_array_equal(top_items(apart[1::3], 4), np.argsort(-apart[1::3], axis=1)[:, :4])


def test_constant_scores_hit_k_in_n_and_batches_do_not_matter():
    log = session_log([[(i, VIEW)] for i in range(20)], [2] * 20)
    judged = ranking_states(log, 3, 4, 100)

    for batch_scores in (20, 60, 10_000):
        scores = score_ranking(
            judged, lambda states, sessions: np.zeros((len(states), 20)), 20, 5, batch_scores
        )
        np.testing.assert_allclose(scores.gains["hit"], 5 / 20)


def test_items_of_the_session_stand_back():
    judged = ranking_states(session_log([[(0, VIEW), (1, VIEW)]], [2]), 3, 4, 100)
    order = np.array([3.0, 2.0, 1.0, 0.0], dtype=np.float32)

    scores = score_ranking(judged, lambda states, sessions: np.tile(order, (len(states), 1)), 4, 1, 1000)

    assert scores.gains["hit"].tolist() == [1, 1]
    assert scores.lists.tolist() == [[0], [1]]
    assert order.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("scores", "message"), [(np.zeros((1, 3)), "expected shape"), (np.full((1, 4), np.nan), "NaN")]
)
def test_wrong_scores_are_refused_by_name(scores, message):
    judged = ranking_states(session_log([[(0, VIEW)]], [2]), 3, 4, 100)

    with pytest.raises(ValueError, match=f"scores of clone: .*{message}"):
        score_ranking(judged, lambda states, sessions: scores, 4, 1, 1000, "clone")


def test_ranking_table_reports_each_task_over_its_own_states():
    log = session_log([[(0, VIEW), (1, PURCHASE)], [(1, PURCHASE)]], [2, 2])
    judged = ranking_states(log, 3, 4, 100)
    best = score_ranking(
        judged, lambda states, sessions: np.tile([0.0, 1, 0.5, 0.2], (len(states), 1)), 4, 1, 1000
    )

    table = ranking_table({"best": best}, judged, TASKS.names, 1, Bootstrap())

    assert table["view"][0]["hit@1"] == {"mean": 0.0, "low": None, "high": None, "n": 1}
    assert table["purchase"][0]["hit@1"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert table["return"] == []


def test_coverage_and_gini_of_even_and_of_single_exposure():
    judged = ranking_states(session_log([[(i, VIEW)] for i in range(4)], [2] * 4), 3, 4, 100)
    single = score_ranking(
        judged, lambda states, sessions: np.tile([1.0, 0, 0, 0], (len(states), 1)), 4, 1, 1000
    )
    even = score_ranking(judged, lambda states, sessions: np.eye(4)[sessions % 4], 4, 1, 1000)

    assert coverage_and_gini(single.lists, 4) == pytest.approx((0.25, 0.75))
    assert coverage_and_gini(even.lists, 4) == pytest.approx((1.0, 0.0))


def test_margin_is_negative_only_beyond_the_allowed_loss():
    judged = ranking_states(session_log([[(i % 4, VIEW)] for i in range(40)], [2] * 40), 3, 4, 100)
    right = score_ranking(judged, lambda states, sessions: np.eye(4)[sessions % 4], 4, 4, 1000)
    tied = score_ranking(judged, lambda states, sessions: np.zeros((len(states), 4)), 4, 4, 1000)

    loss = 1 - tied.gains["ndcg"].mean()
    assert ndcg_margin(tied, right, judged, 0, loss - 0.01, Bootstrap()).high < 0
    assert ndcg_margin(tied, right, judged, 0, loss + 0.01, Bootstrap()).low > 0
    assert ndcg_margin(tied, right, judged, RETURN, 0.1, Bootstrap()) is None
