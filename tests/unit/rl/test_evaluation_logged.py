"""Every estimator's rows of the report, from logged slates."""

from dataclasses import replace

import numpy as np
import pytest

from encoders.sessions import LoggedSlates
from rl.evaluation.logged import Target, exposure, known_sessions, logged_evidence
from tests.unit.rl.evaluation_logs import TASKS

NUM_ITEMS = 9


def logged_slates(count: int, seed: int = 0) -> LoggedSlates:
    """Two slates a session, drawn uniformly without repeats."""
    dice = np.random.default_rng(seed)
    chance = np.tile([1 / NUM_ITEMS, 1 / (NUM_ITEMS - 1)], (count, 1))
    return LoggedSlates(
        session=np.arange(count) // 2,
        items=np.argsort(dice.random((count, NUM_ITEMS)), axis=1)[:, :2],
        responses=dice.integers(0, 2, size=(count, 2, 3)).astype(np.float32),
        values=np.zeros((count, 2, 3), dtype=np.float32),
        propensities=chance,
        behaviours_before=np.zeros(count, dtype=np.int64),
    )


def expect_uniform(slates: LoggedSlates):
    def expect(rows, values):
        means = []
        for row in rows:
            left = np.delete(values, slates.items[row, :1], axis=0)
            means.append([values.mean(axis=0), left.mean(axis=0)])
        return np.array(means)

    return expect


def evidence_of(slates: LoggedSlates, log_probs: np.ndarray, drawn: np.ndarray | None = None):
    target = Target(log_probs, slates.items[:, None] if drawn is None else drawn, expect_uniform(slates))
    return logged_evidence(slates, target, TASKS, NUM_ITEMS, "ppo", cap=20.0, confidence=0.95)


def test_all_estimators_agree_with_the_log_when_the_candidate_is_the_logging_policy():
    slates = logged_slates(300)

    rows, judged = evidence_of(slates, np.log(slates.propensities))

    by_unit = {"slate": slates.responses.sum(axis=1).mean(axis=0)}
    by_unit["session"] = 2 * by_unit["slate"]  # two slates a session
    estimators = {row["estimator"] for row in rows}
    assert len(estimators) == 16
    for row in rows:
        view, purchase, cost = by_unit[row["unit"]]
        truth = {"view": view, "purchase": purchase, "return": -cost}
        truth["weighted"] = 0.2 * view + 0.6 * purchase - 0.2 * cost
        loose = row["estimator"] in ("dm", "dr", "cascade_dr", "session_dr", "switch_dr", "shrunk_dr", "sndr")
        tolerance = 0.1 if loose else 0.06 if row["estimator"] == "shrunk_ips" else 1e-9
        if row["estimator"] == "shrunk_dr":
            tolerance = 0.15
        assert row["estimate"]["mean"] == pytest.approx(truth[row["task"]], abs=tolerance), row
        assert row["estimate"]["low"] <= row["estimate"]["mean"] <= row["estimate"]["high"]
        assert row["estimate"]["n"] == 150
    worths = {(row["unit"], row["estimator"]): row["worth"] for row in rows}
    assert worths["session", "controlled"].startswith("Good: the log's 300 slates are worth 300 (100.0%)")
    assert worths["slate", "dm"].startswith("Rests on the reward model alone")
    assert judged.diagnostics.effective_sample_size == pytest.approx(300)
    assert judged.gain.means == pytest.approx(np.zeros(4))


def test_candidate_that_shows_what_earns_gains():
    slates = logged_slates(6000, 1)
    first_earns = (slates.items == 0)[..., None] * np.ones(3, dtype=np.float32)
    slates = replace(slates, responses=first_earns.astype(np.float32))
    weight = np.where(np.arange(NUM_ITEMS) == 0, 3.0, 1.0)
    shown = weight[slates.items]
    chance = shown / (weight.sum() - (shown.cumsum(axis=1) - shown))

    rows, judged = evidence_of(slates, np.log(chance))

    first = 3 / 11
    truth = first + (1 - first) * 3 / 10  # chance that item 0 is on the slate
    for name in ("ips", "snips", "reward_interaction_ips"):
        found = next(r for r in rows if r["estimator"] == name and r["task"] == "view")
        assert found["estimate"]["low"] < truth < found["estimate"]["high"], name
    gain = judged.gain.estimates(0.95)[1]
    assert gain.low < 2 * (truth - 2 / NUM_ITEMS) < gain.high
    assert gain.low > 0


def test_items_that_the_log_never_shows_are_counted():
    slates = logged_slates(40)
    slates = replace(slates, items=slates.items % 7)
    drawn = np.tile(np.array([[7, 1]]), (40, 1, 1))

    _, judged = evidence_of(slates, np.log(slates.propensities), drawn)

    assert judged.diagnostics.unsupported == pytest.approx(0.5)


def test_a_gap_in_a_session_leaves_the_whole_session_out():
    slates = logged_slates(6)
    slates.propensities[3, 1] = np.nan

    assert known_sessions(slates).tolist() == [0, 1, 4, 5]


def test_exposure_is_each_groups_share_of_the_places():
    groups = np.array(["own", "own", "marketplace"])

    assert exposure(np.array([[0, 2], [1, -1]]), groups) == pytest.approx(
        {"marketplace": 1 / 3, "own": 2 / 3}
    )
