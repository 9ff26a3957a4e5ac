"""Replayed rows and their targets, without Ray."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl.policy.config import DQNSettings
from rl.policy.fragments import STATE_COLUMNS, Fragment
from rl.policy.network import PolicyShape
from rl.policy.q_learner import SlateQModule, build_q_batch, draw_rows

SHAPE = PolicyShape(num_items=6, text_width=4, num_tasks=2, slate_length=3, history_length=2)
SETTINGS = DQNSettings(num_updates=5, batch_rows=40, temperature=0.5)


@pytest.fixture
def module():
    torch.manual_seed(0)
    table = torch.randn(6, 4)
    return SlateQModule(
        observation_space=gym.spaces.Box(-1, 1, (1,)),
        action_space=gym.spaces.MultiDiscrete([6] * 3),
        model_config={
            "shape": SHAPE,
            "load_item_embeddings": lambda: table,
            "summary_width": 1,
            "critic_width": 8,
            "popart_rate": 0.1,
            "kl_price": 0.0,
            "limits": [float("inf")] * 2,
            "balance": "fixed",
            "num_candidates": 6,
        },
    )


def fragment(number):
    """Summaries count steps, rewards name the fragment, the session and the step."""
    random = np.random.default_rng(number)
    sessions, steps = 3, 4
    size = (sessions, steps + 1)
    code = 100.0 * number + 10.0 * np.arange(sessions)[:, None] + np.arange(steps + 1)
    return Fragment(
        {
            "past": random.normal(size=(*size, 4)).astype(np.float32),
            "history_items": random.integers(-1, 6, (*size, 2)),
            "history_tasks": random.integers(-1, 2, (*size, 2)),
            "summary": code[..., None].astype(np.float32),
            "task_weights": np.full((*size, 2), 0.5, np.float32),
            "slates": random.permuted(np.tile(np.arange(6), (sessions, steps, 1)), axis=-1)[..., :3].copy(),
            "log_probs": np.full((sessions, steps, 3), -1.5, np.float32),
            "rewards": np.repeat(code[:, :-1], 6).reshape(sessions, steps, 3, 2).astype(np.float32),
            "ended": random.random((sessions, steps)) < 0.3,
        }
    )


def test_drawn_rows_keep_a_step_and_the_observation_after_it_together():
    torch.manual_seed(1)
    fragments = [fragment(1), fragment(2)]

    rows = draw_rows(fragments, SETTINGS)

    code = rows["summary"][:, 0]
    assert len(code) == 200
    assert torch.equal(rows["rewards"][:, 2, 1], code)
    assert torch.equal(rows["next_summary"][:, 0], code + 1)
    assert set(code.tolist()) == {
        100.0 * n + 10 * session + step for n in (1, 2) for session in range(3) for step in range(4)
    }


def test_targets_are_rewards_and_double_values_of_what_comes_next(module):
    torch.manual_seed(2)
    rows = draw_rows([fragment(0)], SETTINGS)
    module.nat.fill_(0.7)
    for network in (module.actor, module.target_actor, module.target_critic):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.5)
    following = {name.removeprefix("next_"): rows[name] for name in rows if name.startswith("next_")}

    with torch.no_grad():
        best = module.actor.logits(*(following[name] for name in STATE_COLUMNS)).topk(3).indices  # online
        values, _ = module.target_critic.predict(
            module.target_critic.inputs(following, module.actor.item_embeddings)
        )
        expected = []
        for task in range(2):
            only = torch.eye(2)[task].expand(len(best), -1)
            logits = module.target_actor.logits(*(following[n] for n in STATE_COLUMNS[:3]), only)
            parts = (logits - logits.mean(-1, keepdim=True)).gather(1, best).sum(1)
            after = values[:, task] + 0.7 * parts
            expected.append(rows["rewards"].sum(1)[:, task] + 0.9 * ~rows["ended"] * after)
    batch = build_q_batch(module, rows, SETTINGS, 0.9)

    targets = module.critic.value_head.denormalise(batch["value_targets"])
    assert torch.allclose(targets, torch.stack(expected, -1), atol=1e-2, rtol=1e-4)


def test_targets_that_are_no_numbers_move_no_moments(module):
    rows = draw_rows([fragment(0)], SETTINGS)
    rows["rewards"][3] = float("nan")

    batch = build_q_batch(module, rows, SETTINGS, 0.9)

    assert module.critic.value_head.num_updates == 0
    assert module.nat == 0
    assert torch.isnan(batch["value_targets"]).any()


def test_samplers_hold_the_actor_alone(module):
    state = module.get_state(inference_only=True)

    assert state.keys() == {f"actor.{name}" for name in module.actor.state_dict()}
