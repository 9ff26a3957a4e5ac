"""Greedy as a ranker: the members stand where the logged session stands."""

import numpy as np
import pytest
import torch

from encoders.sessions import LoggedSlates
from rl.evaluation.ranking import ranking_states
from rl.greedy import greedy_scorer
from rl.players import ScorerPlayer
from rl.simulator.response_model import ResponseModel
from rl.simulator.simulation import Ensemble, Sessions
from rl.tasks import TaskConfig, build_tasks
from tests.unit.rl.evaluation_logs import session_log
from tests.unit.rl.simulator.ensembles import a_shape

VIEW, BUY, N = 0, 1, 6
TASKS = build_tasks({"view": TaskConfig(weight=1), "buy": TaskConfig(weight=3, after="view")})


def an_ensemble(mode: str) -> Ensemble:
    torch.manual_seed(0)
    shape = a_shape(
        mode,
        num_items=N,
        slate_length=2,
        feature_width=3,
        past_width=3,
        likeness_width=2,
        value_cap=(9.0, 9.0),
    )
    members = []
    for _ in range(2):
        model = ResponseModel(shape, torch.randn(N, 3), torch.randn(N, 2))
        torch.nn.init.normal_(model.query.weight, 0.0, 0.5)
        members.append(model.eval().requires_grad_(False))
    return Ensemble(tuple(members), TASKS, torch.zeros(2), torch.randn(2, 5), 8, 0.0)


def stepped(ensemble: Ensemble, past, steps) -> np.ndarray:
    """What greedy sees after these (slate, responses), one by one."""
    sessions = Sessions(ensemble, torch.from_numpy(past)[None], torch.Generator())
    for slate, responses in steps:
        sessions.follow(torch.tensor([slate]), torch.tensor([responses], dtype=torch.float32))
    return sessions.shelf_rewards(torch.from_numpy(TASKS.weights)[None])[0].numpy()


def test_without_slates_each_item_is_a_step_with_all_that_is_known_of_it():
    ensemble = an_ensemble("next_item")
    log = session_log([[(3, VIEW), (1, VIEW), (3, BUY), (4, VIEW), (5, VIEW)]], [2])
    judged = ranking_states(log, 2, 4, 10)

    scores = greedy_scorer(ensemble, log)(judged.states, judged.sessions)

    assert judged.targets.tolist() == [3, 1, 4, 5]
    past = log.past[0]
    steps = [([3], [[1, 0]]), ([1], [[1, 0]])]
    np.testing.assert_allclose(scores[0], stepped(ensemble, past, []), atol=1e-6)
    np.testing.assert_allclose(scores[1], stepped(ensemble, past, steps[:1]), atol=1e-6)
    bought = [([3], [[1, 1]]), ([1], [[1, 0]])]
    np.testing.assert_allclose(scores[2], stepped(ensemble, past, bought), atol=1e-6)
    assert not np.allclose(scores[2], stepped(ensemble, past, steps), atol=1e-6)


def test_with_slates_the_ignored_ones_before_the_state_count():
    ensemble = an_ensemble("slate")
    responses = np.zeros((3, 2, 2), np.float32)
    responses[0, 1, VIEW] = responses[2, 0, VIEW] = 1
    slates = LoggedSlates(
        session=np.zeros(3, np.int64),
        items=np.array([[0, 1], [2, 3], [4, 5]]),
        responses=responses,
        values=np.zeros_like(responses),
        propensities=np.full((3, 2), 0.5),
        behaviours_before=np.array([0, 1, 1]),
    )
    log = session_log([[(1, VIEW), (4, VIEW)]], [2], slates=slates)
    judged = ranking_states(log, 2, 4, 10)

    scores = greedy_scorer(ensemble, log)(judged.states, judged.sessions)

    before = [([0, 1], responses[0].tolist()), ([2, 3], responses[1].tolist())]
    np.testing.assert_allclose(scores[0], stepped(ensemble, log.past[0], []), atol=1e-6)
    np.testing.assert_allclose(scores[1], stepped(ensemble, log.past[0], before), atol=1e-6)


@pytest.mark.parametrize("length", [1, 3])
def test_a_rival_at_play_shows_its_best_items_but_none_of_the_session(length):
    order = np.arange(6, dtype=np.float32)
    asked = []

    def scorer(states, sessions):
        asked.append(sessions.tolist())
        return np.tile(order, (len(states), 1))

    player = ScorerPlayer(scorer, np.array([7, 8, 9]), length)
    history = torch.tensor([[-1, 5], [-1, -1]])
    observation = {"past": torch.zeros(2, 2), "history_items": history, "history_tasks": history}

    player.start(torch.zeros(2, 2))
    slates = player.choose(observation)
    player.start(torch.zeros(1, 2))
    player.choose({name: value[:1] for name, value in observation.items()})

    assert slates.tolist() == [[4, 3, 2][:length], [5, 4, 3][:length]]
    assert asked == [[7, 8], [9]]
    assert order.tolist() == [0, 1, 2, 3, 4, 5]
