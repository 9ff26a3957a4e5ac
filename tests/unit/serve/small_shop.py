"""A bundle of five items that tests serve."""

import numpy as np
import pyarrow as pa
import torch

from encoders.state import States
from pipelines.artifacts import RunDirectory
from rl.policy.bundle import write_bundle
from rl.policy.network import PolicyShape, SlatePolicy
from rl.tasks import TaskConfig, build_tasks

NUM_ITEMS, WIDTH, HISTORY = 5, 4, 3
TASKS = build_tasks({"view": TaskConfig(), "purchase": TaskConfig(after="view", weight=3.0)})
ITEMS = [f"item{i}" for i in range(NUM_ITEMS)]
USERS = ["ann", "bob"]
EMPTY_PAST = [0.5, -0.5, 0.5, -0.5]


def random_policy(num_items=NUM_ITEMS, width=WIDTH, seed=0):
    torch.manual_seed(seed)
    shape = PolicyShape(
        num_items=num_items, text_width=width, num_tasks=2, slate_length=3, history_length=HISTORY
    )
    policy = SlatePolicy(shape, torch.randn(num_items, width) / width**0.5)
    with torch.no_grad():
        for weights in policy.parameters():
            weights.add_(0.5 * torch.randn_like(weights))
    return policy


def states(policy, count=4, seed=0):
    random = np.random.default_rng(seed)
    shape = policy.shape
    items = random.integers(-1, shape.num_items, (count, HISTORY))
    tasks = np.where(items < 0, -1, random.integers(0, 2, (count, HISTORY)))
    past = random.normal(size=(count, shape.text_width)).astype(np.float32)
    return States(past, items, tasks)


def write_small_bundle(path, promote=True, policy=None):
    policy = policy if policy is not None else random_policy()
    count, width = policy.shape.num_items, policy.shape.text_width
    users = np.random.default_rng(1).normal(size=(len(USERS), width)).astype(np.float32)
    probes = states(policy)
    return write_bundle(
        RunDirectory(str(path)),
        policy,
        items=pa.table({"item_id": [f"item{i}" for i in range(count)], "title": ["thing"] * count}),
        embeddings=policy.item_embeddings.numpy(),
        users=pa.table({"user_id": USERS, "embedding": list(users)}),
        encoder={"model": "none", "empty_past": [EMPTY_PAST[i % 4] for i in range(width)]},
        config={"seed": 0},
        verdict={"promote": promote, "reasons": [] if promote else ["purchase: worse than logging."]},
        tasks=TASKS,
        probes=probes,
        task_weights=np.tile(TASKS.weights, (len(probes), 1)),
    )
