"""Small ensembles of random members."""

import torch

from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import ResponseShape
from rl.simulator.simulation import Ensemble
from rl.tasks import TaskConfig, Tasks, build_tasks

N, L, P, Q = 6, 2, 4, 3


def two_tasks() -> Tasks:
    return build_tasks({"view": TaskConfig(), "buy": TaskConfig(after="view")})


def a_shape(mode: str = "slate", **changes: object) -> ResponseShape:
    return ResponseShape.model_validate(
        {
            "mode": mode,
            "num_items": N,
            "slate_length": L if mode == "slate" else 1,
            "feature_width": P,
            "past_width": P,
            "likeness_width": Q,
            "taste_width": 2,
            "parents": (-1, 0),
            "item_width": 3,
            "sum_width": 4,
            "innovations": False,
            "hidden": 8,
            "dropout": 0.0,
            "value_scale": (1.0, 1.0),
            "value_cap": (1.0, 1.0),
        }
        | changes
    )


def an_ensemble(mode: str = "slate", members: int = 2, pessimism: float = 0.0, **changes: object) -> Ensemble:
    torch.manual_seed(0)
    models = []
    for _ in range(members):
        model = ResponseModel(a_shape(mode, **changes), torch.randn(N, P), torch.randn(N, Q))
        torch.nn.init.normal_(model.query.weight, 0.0, 0.5)
        torch.nn.init.normal_(model.tastes.surprise, 0.0, 0.3)
        models.append(model.eval().requires_grad_(False))
    return Ensemble(tuple(models), two_tasks(), torch.zeros(5), torch.randn(5, P + Q), 8, pessimism)
