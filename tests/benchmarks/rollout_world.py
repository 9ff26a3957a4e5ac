"""A catalogue of any size and a simulator over it, alike for every route of the rollout benchmark.

The simulator is the product's own, members with random weights instead of fitted ones: what it answers matters
little here, what it costs is the real thing.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rl.policy.config import PPOSettings
from rl.policy.network import PolicyShape
from rl.simulator.config import SimulatorConfig
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import response_shape
from rl.simulator.simulation import Ensemble, Simulation, WeightDraws
from rl.simulator.steps import Steps
from rl.simulator.trace import summary_width
from rl.tasks import TaskConfig, build_tasks

TEXT_WIDTH = 384  # of the default encoder
FEATURE_WIDTH = 32
SLATE_LENGTH = 5
HISTORY_LENGTH = 32
NUM_USERS = 2000
NUM_TOPICS = 24
TASKS = build_tasks(
    {
        "view": TaskConfig(weight=0.2),
        "cart": TaskConfig(weight=0.3, after="view"),
        "purchase": TaskConfig(weight=0.5, after="cart"),
    }
)
SUMMARY_WIDTH = summary_width(len(TASKS), FEATURE_WIDTH)


@lru_cache(maxsize=1)
def item_embeddings(num_items: int) -> Tensor:
    """Unit vectors around those of topics, as texts have them. float32 [N, D]."""
    generator = torch.Generator().manual_seed(num_items)
    topics = torch.randn(NUM_TOPICS, TEXT_WIDTH, generator=generator)
    topic = torch.randint(NUM_TOPICS, (num_items,), generator=generator)
    noise = torch.randn(num_items, TEXT_WIDTH, generator=generator)
    return torch.nn.functional.normalize(topics[topic] + 0.6 * noise)


def _member(num_items: int, features: Tensor, seed: int) -> ResponseModel:
    config = SimulatorConfig()
    blank = torch.zeros(1, 1, SLATE_LENGTH, len(TASKS))
    session, shown = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1, SLATE_LENGTH, dtype=torch.int64)
    never = torch.zeros(1, 1, dtype=torch.bool)
    steps, widths = Steps(session, shown, blank, blank, never, never), (FEATURE_WIDTH, FEATURE_WIDTH)
    shape = response_shape(config, steps, TASKS.parents, num_items, widths, True)
    torch.manual_seed(0)  # members are alike, as fitted ones are,
    member = ResponseModel(shape, features, item_embeddings(num_items)[:, : config.compared_width])
    torch.nn.init.normal_(member.query.weight, 0.0, 0.1)
    torch.nn.init.constant_(member.level.bias, -2.0)
    torch.nn.init.normal_(member.text_bias.weight, 0.0, 0.15)  # some items are better than others
    torch.nn.init.normal_(member.item_bias, 0.0, 0.3)
    generator = torch.Generator().manual_seed(seed)
    for parameter in member.parameters():  # and yet not the same
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)
    return member.eval().requires_grad_(False)


@dataclass(frozen=True)
class OpenEmbeddings:
    """Picklable ``item_embeddings``."""

    num_items: int

    def __call__(self) -> Tensor:
        """float32 [N, D]."""
        return item_embeddings(self.num_items)


@dataclass(frozen=True)
class OpenWorld:
    """Opens the simulation: number of sessions, seed -> Simulation."""

    num_items: int

    def __call__(self, num_sessions: int, seed: int) -> Simulation:
        """Sessions of random users."""
        generator = torch.Generator().manual_seed(1)
        features = item_embeddings(self.num_items) @ torch.randn(
            TEXT_WIDTH, FEATURE_WIDTH, generator=generator
        )  # [N, FEATURE_WIDTH]: text tells what an item is worth
        config = SimulatorConfig()
        pasts = torch.nn.functional.normalize(torch.randn(NUM_USERS, TEXT_WIDTH, generator=generator))
        ensemble = Ensemble(
            members=tuple(_member(self.num_items, features, 100 + i) for i in range(config.num_members)),
            tasks=TASKS,
            past_mean=torch.zeros(TEXT_WIDTH),
            past_projection=torch.randn(
                TEXT_WIDTH, FEATURE_WIDTH + config.compared_width, generator=generator
            ),
            max_steps=config.max_steps,
            pessimism=config.pessimism,
        )
        return Simulation(
            ensemble,
            pasts,
            num_sessions,
            SLATE_LENGTH,
            HISTORY_LENGTH,
            WeightDraws(PPOSettings().weight_concentration, PPOSettings().weight_draw_share),
            seed,
        )


def policy_shape(num_items: int) -> PolicyShape:
    """The product's default network over this catalogue."""
    return PolicyShape(
        num_items=num_items,
        text_width=TEXT_WIDTH,
        num_tasks=len(TASKS),
        slate_length=SLATE_LENGTH,
        history_length=HISTORY_LENGTH,
    )


def observation_width() -> int:
    """Of an observation as one flat row, for libraries that know no named tensors."""
    return TEXT_WIDTH + 2 * HISTORY_LENGTH + SUMMARY_WIDTH + len(TASKS)


def flatten(observation: dict[str, Tensor]) -> np.ndarray:
    """float32 [B, ``observation_width``]; indices stay exact, being far below 2^24."""
    names = ("past", "history_items", "history_tasks", "summary", "task_weights")
    return torch.cat([observation[name].float() for name in names], -1).numpy()


def unflatten(rows: Tensor) -> dict[str, Tensor]:
    """The observation back from its rows."""
    widths = (TEXT_WIDTH, HISTORY_LENGTH, HISTORY_LENGTH, SUMMARY_WIDTH, len(TASKS))
    past, items, tasks, summary, weights = rows.split(widths, -1)
    return {
        "past": past,
        "history_items": items.long(),
        "history_tasks": tasks.long(),
        "summary": summary,
        "task_weights": weights,
    }
