"""Sessions that ended are no longer played, and the others come out as if they were."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.config import build_config
from pipelines.shop.config import ShopConfig
from pipelines.shop.truth import OraclePlayer, ShopSessions, response_worth
from pipelines.shop.worlds import open_world
from rl import players
from rl.players import GreedyPlayer, Player, ScorerPlayer, StatelessPlayer, play, play_simulated
from rl.tasks import build_tasks
from tests.unit.rl.simulator.ensembles import L, N, an_ensemble

COUNT = 200


def by_session(states, sessions):
    """Scores that tell sessions apart, and what happened in them."""
    return np.cos(np.outer(sessions + states.history_items.sum(1), 1.0 + np.arange(N)))


MAKERS: dict[str, Callable[[], Player]] = {
    "popular": lambda: StatelessPlayer(lambda count: torch.arange(L).expand(count, -1)),
    "greedy": lambda: GreedyPlayer(an_ensemble(), L, 3),
    "scorer": lambda: ScorerPlayer(by_session, np.arange(COUNT), L),
}


def simulated(player: Player) -> tuple[torch.Tensor, torch.Tensor]:
    past = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(1))
    dice = torch.Generator().manual_seed(2)
    return play_simulated(an_ensemble(), player, past, torch.ones(2), 4, dice)


@pytest.mark.parametrize("name", MAKERS)
def test_simulated_sessions_are_the_same_whoever_ended_before(name: str, monkeypatch) -> None:
    returns, lengths = simulated(MAKERS[name]())
    monkeypatch.setattr(players, "_SEATS_FILLED", 0.0)  # who ended is played to the last step

    every_return, every_length = simulated(MAKERS[name]())

    assert len(lengths.unique()) > 3
    torch.testing.assert_close(lengths, every_length)
    torch.testing.assert_close(returns, every_return)


def live() -> tuple[torch.Tensor, torch.Tensor]:
    dice, tasks = np.random.default_rng(5), build_tasks(build_config({}).rl.tasks)
    world = open_world(ShopConfig(), dice)
    sessions = ShopSessions(world, world.newcomers(COUNT, dice), response_worth(world, tasks), 6)
    player = OraclePlayer(sessions, tasks.weights, 5, (0.5, 1.0))
    weights = torch.from_numpy(tasks.weights).expand(COUNT, -1)
    features = torch.zeros(len(world.table), 1)
    return play(sessions, player, torch.zeros(COUNT, 5), weights, features, len(tasks), 4, 40)


def test_live_sessions_are_the_same_whoever_ended_before(monkeypatch) -> None:
    returns, lengths = live()
    monkeypatch.setattr(players, "_SEATS_FILLED", 0.0)

    every_return, every_length = live()

    assert len(lengths.unique()) > 3
    torch.testing.assert_close(lengths, every_length)
    torch.testing.assert_close(returns, every_return)
