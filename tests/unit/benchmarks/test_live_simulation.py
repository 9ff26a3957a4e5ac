"""The made-up world in the training simulator's place."""

from typing import cast

import numpy as np
import torch

from pipelines.shop.config import ShopConfig
from pipelines.shop.logging_policy import make_shop
from rl.simulator.response_model import ResponseModel
from rl.simulator.simulation import Ensemble, WeightDraws
from rl.tasks import TaskConfig, build_tasks
from tests.benchmarks.live_simulation import LiveSimulation
from tests.unit.rl.simulator.ensembles import a_shape


def an_ensemble(num_items: int) -> Ensemble:
    ones = (1.0, 1.0, 1.0)
    shape = a_shape(
        num_items=num_items,
        slate_length=5,
        parents=(-1, 0, 1),
        likeness_width=2,
        value_scale=ones,
        value_cap=ones,
    )
    model = ResponseModel(shape, torch.zeros(num_items, 4), torch.zeros(num_items, 2)).eval()
    tasks = {"view": TaskConfig(), "cart": TaskConfig(after="view"), "purchase": TaskConfig(after="cart")}
    return Ensemble((model,), build_tasks(tasks), torch.zeros(5), torch.zeros(5, 6), 8, 0.0)


def test_sessions_begin_as_logged_ones_did_and_answer_in_truth() -> None:
    shop = make_shop(ShopConfig(num_items=20, num_users=30, num_sessions=40), 0)
    starts = np.arange(3, 33)
    pasts = torch.arange(len(starts)).float()[:, None].expand(-1, 5).contiguous()
    simulation = LiveSimulation(shop, starts, an_ensemble(20), pasts, 16, 5, 4, WeightDraws(1.0, 0.0), 0)
    begun = 0
    for _ in range(30):
        result = simulation.step(torch.randint(20, (16, 20)).argsort(1)[:, :5])
        assert set(result.rewards.unique().tolist()) <= {0.0, 1.0}
        assert 0 < result.leaving.min() < result.leaving.max() <= 1  # the world's chances
        live = simulation.live
        for row in result.ended.nonzero()[:, 0].tolist():
            logged = starts[int(simulation.trace.past[row, 0])]
            assert cast(float, live.visitors.trust[row]) == shop.visitors.trust[logged]
            assert live.visitors.sourness[row] == 0
            begun += 1

    assert begun > 16
