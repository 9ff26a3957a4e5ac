"""What is measured, turned into rows and findings."""

from dataclasses import replace

import numpy as np
import pytest

from rl.evaluation.config import GateConfig
from rl.evaluation.evidence import (
    ranking_findings,
    simulated_findings,
)
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.ranking import ranking_states, score_ranking
from rl.evaluation.report import Setting
from tests.unit.rl.evaluation_logs import TASKS, session_log

SETTING = Setting("ppo", TASKS.names, TASKS.weights, 0.95)


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


def test_broken_limit_stops_promotion():
    limited = replace(TASKS, limits=np.array([np.inf, np.inf, 0.5], np.float32))
    returns = returns_of(ppo=(1.0, 4.0, -1.0), logging=(1.0, 1.0, -1.0))

    findings = simulated_findings(returns, SETTING, limited, GateConfig())

    assert not findings[-1].passed
    assert "Limit of return: ppo pays 1" in findings[-1].reason
    assert len(findings) == len(simulated_findings(returns, SETTING, TASKS, GateConfig())) + 1


def test_ranking_is_held_against_the_weaker_of_clone_and_popular():
    log = session_log([[(i % 4, 0)] for i in range(60)], [2] * 60)
    judged = ranking_states(log, 3, 4, 100)
    right = score_ranking(
        judged, lambda states, sessions: np.eye(4)[judged.targets[: len(states)]], 4, 4, 1000
    )
    tied = score_ranking(judged, lambda states, sessions: np.zeros((len(states), 4)), 4, 4, 1000)
    last = score_ranking(
        judged, lambda states, sessions: -np.eye(4)[judged.targets[: len(states)]], 4, 4, 1000
    )

    def findings(ppo, clone, popular):
        scores = {"ppo": ppo, "clone": clone, "popular": popular}
        return ranking_findings(scores, judged, SETTING, TASKS, GateConfig(), Bootstrap())

    (passed,) = findings(tied, right, tied)
    (failed,) = findings(last, right, tied)
    assert passed.passed
    assert not failed.passed
    assert "popular" in failed.reason
