"""The made-up world itself in the training simulator's place: what is left of the gap is learning's own."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.artifacts import RunDirectory
from pipelines.dataset import load_session_log, load_simulator
from pipelines.shop.logging_policy import ShopLog, make_shop
from pipelines.shop.people import put, rows
from pipelines.shop.truth import ShopSessions, response_worth
from pipelines.train import OpenSimulation
from rl.simulator.simulation import Ensemble, Observation, Simulation


class LiveSessions(ShopSessions):
    """Live sessions that begin anew where they end, as the next of ``waiting`` does."""

    waiting: Any  # users at the door, a row for each session that begins next

    def restart(self, index: Tensor, past: Tensor) -> None:
        """Begin new sessions at these rows."""
        put(self.visitors, index.numpy(), self.waiting)


class LiveSimulation(Simulation):
    """Sessions of the world's users as they were when logged sessions began; they answer in truth."""

    def __init__(self, shop: ShopLog, starts: NDArray[np.int64], ensemble: Ensemble, *rest: Any) -> None:
        """``starts`` are the shop's rows of the sessions whose ``pasts`` are in ``rest``; see ``Simulation``."""
        self.shop, self.starts = shop, starts
        self.live: LiveSessions | None = None
        super().__init__(ensemble, *rest)

    def _draw_pasts(self, count: int) -> Tensor:
        drawn = torch.randint(len(self.pasts), (count,), generator=self.generator)
        self.arriving = rows(self.shop.visitors, self.starts[drawn.numpy()])
        if self.live is not None:
            self.live.waiting = self.arriving
        return self.pasts[drawn]

    def reset(self) -> Observation:
        """Begin all sessions anew."""
        self.live = None
        observation = super().reset()
        world = self.shop.world
        worth = response_worth(world, self.ensemble.tasks)
        self.live = LiveSessions(world, self.arriving, worth, int(self.dice.integers(2**31)))
        self.sessions = self.live  # type: ignore[assignment]  # answers and restarts as the simulator's do
        return observation


def open_live(opener: OpenSimulation, num_sessions: int, seed: int) -> LiveSimulation:
    """In place of ``OpenSimulation.__call__``; levers are not played."""
    config, run = opener.config, RunDirectory(opener.uri)
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    sessions = log.sessions("train")
    row = {session: index for index, session in enumerate(shop.session_ids)}
    starts = np.array([row[log.session_ids[s].rsplit(":", 1)[-1]] for s in sessions], dtype=np.int64)
    return LiveSimulation(
        shop,
        starts,
        load_simulator(run, config, "train"),
        torch.from_numpy(log.past[sessions]),
        num_sessions,
        config.rl.slate_length,
        config.rl.history_length,
        config.rl.ppo.weight_concentration,
        seed,
    )
