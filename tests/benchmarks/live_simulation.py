"""The made-up world itself in the training simulator's place: what is left of the gap is learning's own."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.artifacts import RunDirectory
from pipelines.dataset import load_session_log, load_simulator
from pipelines.openers import OpenSimulation
from pipelines.shop.logging_policy import ShopLog, make_shop
from pipelines.shop.people import put, rows
from pipelines.shop.truth import ShopSessions, response_worth, session_rows
from rl.simulator.simulation import Ensemble, Simulation, WeightDraws


class LiveSessions(ShopSessions):
    """Live sessions that begin anew where they end, as those ``arriving`` do, a row for each that begins next."""

    arriving: Any

    def restart(self, index: Tensor, past: Tensor) -> None:
        """Begin new sessions at these rows."""
        put(self.visitors, index.numpy(), self.arriving)


class LiveSimulation(Simulation):
    """Sessions of the world's users as they were when logged sessions began; they answer in truth."""

    def __init__(self, shop: ShopLog, starts: NDArray[np.int64], ensemble: Ensemble, *rest: Any) -> None:
        """``starts`` are the shop's rows of the sessions whose ``pasts`` are in ``rest``; see ``Simulation``."""
        worth = response_worth(shop.world, ensemble.tasks)
        self.shop, self.starts = shop, starts
        self.live = LiveSessions(shop.world, None, worth, 0)
        super().__init__(ensemble, *rest)

    def _draw_pasts(self, count: int) -> Tensor:
        drawn = torch.randint(len(self.pasts), (count,), generator=self.generator)
        self.live.arriving = rows(self.shop.visitors, self.starts[drawn.numpy()])
        return self.pasts[drawn]

    def _open(self, past: Tensor) -> Any:
        """The live sessions, which answer and restart as the simulator's do."""
        self.live.visitors = self.live.arriving
        self.live.dice = np.random.default_rng(int(self.dice.integers(2**31)))
        return self.live


def open_live(opener: OpenSimulation, num_sessions: int, seed: int) -> LiveSimulation:
    """In place of ``OpenSimulation.__call__``; levers are not played."""
    config, run = opener.config, RunDirectory(opener.uri)
    log, shop = load_session_log(run, config), make_shop(config.shop, config.seed)
    sessions = log.sessions("train")
    return LiveSimulation(
        shop,
        session_rows(shop, [log.session_ids[s] for s in sessions]),
        load_simulator(run, config, "train"),
        torch.from_numpy(log.past[sessions]),
        num_sessions,
        config.rl.slate_length,
        config.rl.history_length,
        WeightDraws(config.rl.ppo.weight_concentration, config.rl.ppo.weight_draw_share),
        seed,
    )
