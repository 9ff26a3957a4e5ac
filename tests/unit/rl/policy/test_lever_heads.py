"""Heads of levers come and go without changing what they should not."""

import torch

from rl.policy.lever_heads import fold, widen
from rl.policy.network import PolicyShape, SlatePolicy

SHAPE = PolicyShape(num_items=6, text_width=4, num_tasks=2, slate_length=3, history_length=3)
TABLE = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def policy(shape):
    policy = SlatePolicy(shape, TABLE).eval()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


def state():
    torch.manual_seed(2)
    items = torch.tensor([[-1, -1, -1], [-1, 4, 1], [0, 1, 5]])
    tasks = torch.tensor([[-1, -1, -1], [-1, 0, 1], [1, 1, 0]])
    return torch.randn(3, 4), items, tasks, torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]])


def test_widened_policy_chooses_as_before():
    narrow = policy(SHAPE)
    past, items, tasks, weights = state()

    wide_state, wide_shape = widen(narrow.state_dict(), SHAPE, 2)
    wide = SlatePolicy(wide_shape, TABLE).eval()
    wide.load_state_dict(wide_state)

    lever_weights = torch.tensor([0.3, 1.0]).expand(3, -1)
    logits = wide.logits(past, items, tasks, torch.cat([weights, lever_weights], -1))
    assert torch.allclose(logits, narrow.logits(past, items, tasks, weights), atol=1e-5)


def test_folded_policy_scores_as_the_widened_one_at_the_levers_weights():
    wide = policy(SHAPE.model_copy(update={"num_tasks": 4}))
    past, items, tasks, weights = state()
    lever_weights = torch.tensor([0.3, 1.0])

    narrow = SlatePolicy(SHAPE, TABLE).eval()
    narrow.load_state_dict(fold(wide.state_dict(), SHAPE, lever_weights))

    expected = wide.logits(past, items, tasks, torch.cat([weights, lever_weights.expand(3, -1)], -1))
    assert torch.allclose(narrow.logits(past, items, tasks, weights), expected, atol=1e-3, rtol=1e-4)
