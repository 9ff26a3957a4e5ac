"""The clone benchmark's figures and its made-up log."""

from pathlib import Path

import numpy as np
import pytest

from encoders.sessions import SessionLog
from rl.evaluation.ranking import JudgedStates
from rl.tasks import TaskConfig, build_tasks
from tests.benchmarks.clone import Judged, ratios
from tests.benchmarks.movie_log import write_movie_log

NAMES = ("nearest_content", "item_knn", "als", "sasrec", "clone")
TASKS = build_tasks({"view": TaskConfig(), "buy": TaskConfig(after="view")})


def judged(ndcg: np.ndarray, labels: np.ndarray, sessions: np.ndarray) -> Judged:
    log = SessionLog([], [], *(np.zeros(0),) * 6, None)  # type: ignore[arg-type]
    states = JudgedStates(log, sessions, sessions, sessions, labels, 1)
    return Judged(states, NAMES, ndcg, np.zeros(len(ndcg), bool), {})


def test_ratio_is_of_the_means_over_tasks_and_of_the_best_rival() -> None:
    dice = np.random.default_rng(0)
    ndcg, labels = dice.random((40, 5)), np.stack([np.ones(40, bool), dice.random(40) < 0.4], 1)
    ndcg[:, 3] += 0.2  # sasrec is the best rival

    found = ratios(judged(ndcg, labels, np.arange(40) // 4), np.ones(40, bool), TASKS, 0.001)

    means = [(ndcg[:, p].mean() + ndcg[labels[:, 1], p].mean()) / 2 for p in range(5)]
    assert found["best_rival"].mean == pytest.approx(means[4] / means[3])
    assert found["item_knn"].mean == pytest.approx(means[4] / means[1])
    low, high = found["best_rival"].low, found["best_rival"].high
    assert low is not None and high is not None and low < found["best_rival"].mean < high
    assert found["best_rival"].n == 10


def test_rival_that_finds_nothing_counts_for_random_order() -> None:
    ndcg = np.zeros((8, 5))
    ndcg[:, 4] = 0.02

    found = ratios(judged(ndcg, np.ones((8, 2), bool), np.arange(8)), np.ones(8, bool), TASKS, 0.004)

    assert found["best_rival"].mean == pytest.approx(5.0)


def test_movie_log_is_of_the_format_and_the_same_again(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_movie_log(tmp_path / name, 30, 100, 4)
        logs.append([(tmp_path / name / file).read_bytes() for file in ("ratings.dat", "movies.dat")])

    assert logs[0] == logs[1]
    rows = [[int(cell) for cell in line.split("::")] for line in logs[0][0].decode().splitlines()]
    users, films, stars, times = np.array(rows).T
    assert set(stars) == {1, 2, 3, 4, 5}
    assert (np.diff(times) >= 0).all()
    assert len(set(zip(users, films, strict=True))) == len(rows)  # nobody rates a film twice
    titles = logs[0][1].decode("latin-1").splitlines()
    assert len(titles) == 100
    assert all(len(line.split("::")) == 3 for line in titles)
