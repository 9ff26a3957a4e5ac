"""What remote samplers and learners open of a run by themselves."""

from dataclasses import dataclass

import torch

from encoders.columns import ITEM_GROUP
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import (
    cached_item_embeddings,
    item_column,
    load_items,
    load_session_log,
    load_simulator,
)
from rl.simulator.levered import LeveredSimulation
from rl.simulator.simulation import Simulation, WeightDraws


@dataclass(frozen=True)
class OpenSimulation:
    """Opens a run's training simulator; picklable."""

    uri: str
    config: Config

    def __call__(self, num_sessions: int, seed: int) -> Simulation | LeveredSimulation:
        """A simulation whose sessions start from the train split's users, with the levers' tasks if there are."""
        run = RunDirectory(self.uri)
        log = load_session_log(run, self.config)
        rl = self.config.rl
        simulation = Simulation(
            load_simulator(run, self.config, "train"),
            torch.from_numpy(log.past[log.sessions("train")]),
            num_sessions,
            rl.slate_length,
            rl.history_length,
            WeightDraws(rl.ppo.weight_concentration, rl.ppo.weight_draw_share),
            seed,
        )
        if not rl.levers.in_training:
            return simulation
        vectors = torch.from_numpy(cached_item_embeddings(self.uri))
        return LeveredSimulation(simulation, rl.levers, vectors, item_column(load_items(run), ITEM_GROUP))


@dataclass(frozen=True)
class OpenItemEmbeddings:
    """Opens a run's item embeddings; picklable."""

    uri: str

    def __call__(self) -> torch.Tensor:
        """float32 [N, D]."""
        return torch.from_numpy(cached_item_embeddings(self.uri))
