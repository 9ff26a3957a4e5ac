"""Paired tests and slices against SciPy and against what was planted."""

import numpy as np
import pytest
from scipy import stats

from rl.evaluation.comparisons import comparison_table, holm, paired_tests
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.lists import build_catalogue
from rl.evaluation.pasts import user_pasts
from rl.evaluation.ranking import RankingScores, ranking_states
from rl.evaluation.segments import build_segments, overall_quality, segment_table, state_worth
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW, PURCHASE, RETURN = 0, 1, 2


def test_paired_test_of_equal_sessions_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.2, 1, size=(40, 2)), rng.normal(0, 1, size=(40, 2))

    estimates, p = paired_tests(first - second, np.ones(40), np.arange(40), 0.95)

    expected = stats.ttest_rel(first, second)
    np.testing.assert_allclose(p, expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose([[e.low, e.high] for e in estimates], np.stack([low, high], 1))


def test_states_of_one_session_count_as_one():
    rng = np.random.default_rng(1)
    session_gap = rng.normal(0.0, 1, size=30)
    gaps, sessions = np.repeat(session_gap, 50)[:, None], np.repeat(np.arange(30), 50)

    _, p = paired_tests(gaps, np.ones(1500), sessions, 0.95)

    assert p[0] == pytest.approx(stats.ttest_1samp(session_gap, 0).pvalue)


def test_false_findings_of_unequal_sessions_are_as_rare_as_claimed():
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(400):
        sizes = rng.integers(1, 9, size=60)
        sessions = np.repeat(np.arange(60), sizes)
        gaps = np.repeat(rng.normal(size=60), sizes)[:, None] + rng.normal(size=(len(sessions), 1))
        found += paired_tests(gaps, rng.random(len(sessions)), sessions, 0.95)[1][0] < 0.05

    assert 0.02 < found / 400 < 0.09


def test_one_session_gives_no_bounds_and_no_finding():
    (estimate,), p = paired_tests(np.array([[1.0], [2.0]]), np.ones(2), np.zeros(2, np.int64), 0.95)

    assert (estimate.mean, estimate.low, estimate.high) == (1.5, None, None)
    assert p[0] == 1


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.9])).tolist() == [1, 1]


def judged_log(num: int = 400):
    """Test sessions of one item each: even users have a past; item 0 is new, 1 popular, 2 and 3 neither."""
    train = [[(1, VIEW)] * 6, [(2, VIEW), (3, VIEW)]]
    rng = np.random.default_rng(3)
    tests = [[(int(rng.integers(4)), PURCHASE if i % 3 else VIEW)] for i in range(num)]
    users = ["u0", "u2", *(f"u{i % 4}" for i in range(num))]
    log = session_log(train + tests, [0, 0] + [2] * num, users=users)
    return log, ranking_states(log, 3, 4, 10_000)


def gains_of(ndcg) -> RankingScores:
    return RankingScores({"ndcg": np.asarray(ndcg, float)}, np.zeros((len(ndcg), 2), np.int32))


def test_comparisons_hold_every_pair_and_find_the_planted_difference():
    _, judged = judged_log()
    rng = np.random.default_rng(4)
    noise = rng.random(len(judged))
    scores = {
        "a": gains_of(noise),
        "b": gains_of(noise + 0.2),
        "c": gains_of(noise + rng.normal(0, 0.3, len(noise))),
    }

    table = comparison_table(scores, judged, TASKS.names, 0.95)

    assert len(table) == 6  # three pairs on two tasks; nothing is returned
    by_pair = {(row["task"], row["first"], row["second"]): row for row in table}
    assert by_pair["view", "a", "b"]["difference"]["mean"] == pytest.approx(-0.2)
    assert by_pair["view", "a", "b"]["p"] < 1e-6
    assert by_pair["purchase", "a", "c"]["p"] > 0.05
    assert comparison_table({}, judged, TASKS.names, 0.95) == []


def test_overall_quality_weighs_states_by_task():
    log = session_log([[(0, VIEW)], [(1, PURCHASE)], [(2, RETURN)]], [2] * 3)
    judged = ranking_states(log, 3, 4, 10)

    overall = overall_quality({"a": gains_of([1.0, 0.5, 0.9])}, judged, TASKS, Bootstrap(100))

    np.testing.assert_allclose(state_worth(judged, TASKS), [0.2, 0.6, 0], rtol=1e-6)
    assert overall["a"].mean == pytest.approx((0.2 * 1 + 0.6 * 0.5) / 0.8)


def test_slices_find_where_the_policy_loses():
    log, judged = judged_log()
    embeddings = np.eye(4, dtype=np.float32)
    catalogue = build_catalogue(log, embeddings, None, ["own", "own", "market", "market"])
    rng = np.random.default_rng(5)
    base = rng.random(len(judged)) * 0.5 + 0.25
    worse_on_new = base - 0.2 * (judged.targets == 0) + rng.normal(0, 0.01, len(judged))
    scores = {"ppo": gains_of(worse_on_new), "popular": gains_of(base)}

    segments = build_segments(judged, catalogue, user_pasts(log, TASKS))
    table = segment_table(scores, judged, segments, TASKS, ("ppo", "popular"), Bootstrap(100))

    assert (table[0]["kind"], table[0]["name"]) == ("items", "new: not in the train split")
    assert table[0]["difference"]["mean"] == pytest.approx(-0.2, abs=0.01)
    assert table[0]["p"] < 1e-6
    assert table[0]["exposure"] == {"candidate": 1.0, "reference": 1.0, "catalogue": 0.25}
    names = {(row["kind"], row["name"]): row["num_states"] for row in table}
    assert names["items", "popular: half of all behaviours"] == (judged.targets == 1).sum()
    assert names["item group", "own"] == (judged.targets < 2).sum()
    assert (
        sum(n for (kind, _), n in names.items() if kind == "users") == len(judged) - 2
    )  # u1 and u3 are new but once
    gaps = [row["difference"]["mean"] for row in table]
    assert gaps == sorted(gaps)
