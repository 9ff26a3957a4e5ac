"""What is measured, turned into rows and findings."""

import numpy as np
import pytest

from encoders.sessions import LoggedSlates
from rl.evaluation.config import EvaluationConfig, GateConfig
from rl.evaluation.evidence import (
    off_policy_evidence,
    off_policy_findings,
    ranking_findings,
    simulated_findings,
)
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.ranking import ranking_states, score_ranking
from rl.evaluation.report import Setting
from tests.unit.rl.evaluation_logs import TASKS, session_log

SETTING = Setting("ppo", TASKS.names, TASKS.weights, 0.95)


def logged_slates(count: int, propensity: float) -> LoggedSlates:
    rng = np.random.default_rng(0)
    return LoggedSlates(
        session=np.arange(count) // 2,
        items=rng.integers(0, 9, size=(count, 2)),
        responses=rng.integers(0, 2, size=(count, 2, 3)).astype(np.float32),
        values=np.zeros((count, 2, 3), dtype=np.float32),
        propensities=np.full((count, 2), propensity),
        behaviours_before=np.zeros(count, dtype=np.int64),
    )


def test_off_policy_rows_agree_with_the_logged_mean_when_the_candidate_is_the_logging_policy():
    slates = logged_slates(300, 0.5)

    evidence = off_policy_evidence(
        slates, np.log(slates.propensities), TASKS, "ppo", EvaluationConfig(), seed=0
    )

    means = {(row["estimator"], row["task"]): row["estimate"]["mean"] for row in evidence.rows}
    view, purchase, cost = slates.responses.sum(axis=1).mean(axis=0)
    for estimator in ("logged", "ips", "snips", "clipped_ips"):
        assert means[estimator, "view"] == pytest.approx(view)
        assert means[estimator, "return"] == pytest.approx(-cost)
        assert means[estimator, "weighted"] == pytest.approx(0.2 * view + 0.6 * purchase - 0.2 * cost)
    assert evidence.effective_sample_size == pytest.approx(300)
    assert evidence.gain is not None
    assert evidence.gain.mean == pytest.approx(0)
    assert evidence.rows[0]["estimate"]["n"] == 150


def test_slates_of_unknown_propensity_are_no_evidence():
    slates = logged_slates(10, float("nan"))

    evidence = off_policy_evidence(slates, np.zeros((10, 2)), TASKS, "ppo", EvaluationConfig(), seed=0)

    assert evidence.rows == []
    assert "no slates with propensities" in off_policy_findings(evidence, "ppo", GateConfig())[0].reason


def returns_of(**means: tuple[float, float, float]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {name: rng.normal(mean, 0.5, size=(400, 3)) for name, mean in means.items()}


def test_candidate_is_held_against_logging_and_else_against_the_clone():
    better, worse = (2.0, 2.0, -1.0), (1.0, 1.0, -1.0)

    findings = simulated_findings(
        returns_of(ppo=better, clone=better, logging=worse), SETTING, TASKS, GateConfig()
    )
    assert all(f.passed for f in findings)
    assert "against logging" in findings[0].reason

    findings = simulated_findings(returns_of(ppo=better, clone=worse), SETTING, TASKS, GateConfig())
    assert "against clone" in findings[0].reason
    with pytest.raises(ValueError, match="expected ppo and logging or clone, got ppo"):
        simulated_findings(returns_of(ppo=better), SETTING, TASKS, GateConfig())


def test_a_task_that_pays_for_the_others_stops_promotion():
    findings = simulated_findings(
        returns_of(ppo=(0.5, 4.0, -1.0), logging=(1.0, 1.0, -1.0)), SETTING, TASKS, GateConfig()
    )

    assert [f.passed for f in findings] == [True, False, True, True]
    assert "view" in findings[1].reason


def test_more_costs_stop_promotion():
    findings = simulated_findings(
        returns_of(ppo=(1.0, 4.0, -3.0), logging=(1.0, 1.0, -1.0)), SETTING, TASKS, GateConfig()
    )

    assert not findings[3].passed
    assert "return" in findings[3].reason


def test_ranking_is_held_against_the_weaker_of_clone_and_popular():
    log = session_log([[(i % 4, 0)] for i in range(60)], [2] * 60)
    judged = ranking_states(log, 3, 4, 100)
    right = score_ranking(judged, lambda part: np.eye(4)[part.targets], 4, 4, 1000)
    tied = score_ranking(judged, lambda part: np.zeros((len(part), 4)), 4, 4, 1000)
    last = score_ranking(judged, lambda part: -np.eye(4)[part.targets], 4, 4, 1000)

    def findings(ppo, clone, popular):
        scores = {"ppo": ppo, "clone": clone, "popular": popular}
        return ranking_findings(scores, judged, SETTING, TASKS, GateConfig(), Bootstrap())

    (passed,) = findings(tied, right, tied)
    (failed,) = findings(last, right, tied)
    assert passed.passed
    assert not failed.passed
    assert "popular" in failed.reason
