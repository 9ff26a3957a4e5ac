"""Rivals of a run: which there are, and that those without a player of their own are played in batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines import players, rivals
from pipelines.artifacts import RunDirectory
from pipelines.config import build_config
from rl.evaluation.pasts import user_pasts
from rl.players import StatelessPlayer
from rl.simulator.response_model import ResponseModel
from rl.simulator.simulation import Ensemble
from rl.tasks import build_tasks
from tests.unit.pipelines.test_evaluate import NUM_ITEMS, made_up_log
from tests.unit.rl.simulator.ensembles import a_shape

SIMPLE = ("random", "popular", "recently_popular", "nearest_content", "item_knn", "als", "bpr", "sasrec")
CONFIG = build_config(
    {
        "rl": {
            "evaluation": {
                "num_sessions": 50,
                "rivals": {"sasrec_epochs": 1, "als_factors": 4, "bpr_factors": 4},
            }
        }
    }
)
TASKS = build_tasks(CONFIG.rl.tasks)


@pytest.fixture(autouse=True)
def embeddings(monkeypatch):
    table = np.random.default_rng(0).random((NUM_ITEMS, 2), dtype=np.float32)
    for module in (players, rivals):
        monkeypatch.setattr(module, "cached_item_embeddings", lambda uri: table)


def an_ensemble() -> Ensemble:
    torch.manual_seed(0)
    count = len(TASKS)
    shape = a_shape(
        num_items=NUM_ITEMS,
        slate_length=5,
        feature_width=3,
        past_width=3,
        likeness_width=2,
        parents=TASKS.parents,
        value_scale=(1.0,) * count,
        value_cap=(9.0,) * count,
    )
    model = (
        ResponseModel(shape, torch.randn(NUM_ITEMS, 3), torch.randn(NUM_ITEMS, 2))
        .eval()
        .requires_grad_(False)
    )
    return Ensemble((model,), TASKS, torch.zeros(2), torch.randn(2, 5), 6, 0.0)


@pytest.mark.parametrize(("slates", "bandit"), [(True, ("bandit",)), (False, ())])
def test_every_rival_scores_the_whole_catalogue(monkeypatch, tmp_path, slates, bandit):
    log = made_up_log(with_slates=slates)
    ones = lambda states: np.ones((len(states), NUM_ITEMS), np.float32)  # noqa: E731
    monkeypatch.setattr(rivals, "load_simulator", lambda *given: None)
    monkeypatch.setattr(rivals, "greedy_scorer", lambda ensemble, log: lambda states, sessions: ones(states))
    monkeypatch.setattr(rivals, "policy_scores", lambda run, config: {"clone": ones, "ppo": ones})
    sessions = log.sessions("test")[:7]
    states = log.states(sessions, np.zeros(7, np.int64), 4)

    scorers = rivals.make_scorers(RunDirectory(str(tmp_path)), CONFIG, log, user_pasts(log, TASKS), TASKS)

    assert tuple(scorers) == (*SIMPLE, *bandit, "greedy", "clone", "ppo")
    for name, scorer in scorers.items():
        scores = scorer(states, sessions)
        assert scores.shape == (7, NUM_ITEMS), name
        assert np.isfinite(scores).all(), name


def test_rivals_are_played_in_batches_from_their_own_sessions(monkeypatch, tmp_path):
    log = made_up_log(with_slates=True)
    asked = []

    def scorer(states, sessions):
        asked.append(sessions.tolist())
        return np.tile(np.arange(NUM_ITEMS, dtype=np.float32), (len(states), 1))

    worst = torch.arange(5)
    own = {"popular": StatelessPlayer(lambda count: worst.expand(count, -1))}
    monkeypatch.setattr(players, "make_players", lambda *given: own)
    one_slate = replace(an_ensemble(), max_steps=1)
    monkeypatch.setattr(players, "load_simulator", lambda *given: one_slate)
    monkeypatch.setattr(players, "PLAYED", 20)
    scorers = {"popular": lambda states, sessions: 1 / 0, "als": scorer}

    returns = players.simulated_returns(RunDirectory(str(tmp_path)), CONFIG, log, scorers)

    assert {name: values.shape for name, values in returns.items()} == {
        "popular": (50, len(TASKS)),
        "als": (50, len(TASKS)),
    }
    started = players.evaluation_sessions(log, 50).tolist()
    assert asked == [started[:20], started[20:40], started[40:]]
    assert (returns["als"] > 0).all()
