"""Reasons: what an influence's odds mean, against scoring by hand."""

import numpy as np
import pytest
import torch

from encoders.state import States
from rl.explain import explain_slate
from rl.policy.network import PolicyShape, SlatePolicy

N, D, H, K = 7, 4, 3, 2


@pytest.fixture
def policy() -> SlatePolicy:
    torch.manual_seed(0)
    shape = PolicyShape(num_items=N, text_width=D, num_tasks=K, slate_length=2, history_length=H)
    made = SlatePolicy(shape, torch.randn(N, D))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    return made.eval().requires_grad_(False)


def centred(policy: SlatePolicy, past, items, tasks, weights) -> np.ndarray:
    given = (torch.from_numpy(np.asarray(x)[None]) for x in (past, items, tasks, weights))
    logits = policy.logits(*given)[0].double().numpy()
    return logits - logits.mean()


def test_odds_are_those_with_and_without_the_part(policy):
    rng = np.random.default_rng(0)
    past, mean_past = rng.normal(size=(2, D)).astype(np.float32)
    items, tasks, weights = np.array([2, 5, 2]), np.array([0, 1, 1]), np.float32([0.25, 0.75])
    slate = np.array([1, 4])

    reasons = explain_slate(policy, States(past[None], items[None], tasks[None]), slate, weights, mean_past)

    whole = centred(policy, past, items, tasks, weights)
    without = {
        ("history", 1): centred(policy, past, np.array([-1, 2, 2]), np.array([-1, 0, 1]), weights),
        ("history", 2): centred(policy, past, np.array([-1, -1, 5]), np.array([-1, -1, 1]), weights),
        ("past", -1): centred(policy, mean_past, items, tasks, weights),
    }
    bias = (policy.item_keys().biases @ torch.from_numpy(weights)).double().numpy()
    for item, found in zip(slate, reasons, strict=True):
        expected = {part: np.exp(whole[item] - other[item]) for part, other in without.items()}
        expected["item", -1] = np.exp(bias[item] - bias.mean())
        got = {(one.kind, one.place): one.odds for one in found}
        assert got == {part: pytest.approx(odds, rel=1e-4) for part, odds in expected.items() if odds > 1}
        assert [one.odds for one in found] == sorted(got.values(), reverse=True)


def test_empty_history_leaves_past_and_item(policy):
    states = States(np.ones((1, D), np.float32), np.full((1, H), -1), np.full((1, H), -1))

    reasons = explain_slate(policy, states, np.arange(N), np.float32([0.5, 0.5]), np.zeros(D, np.float32))

    assert {one.kind for found in reasons for one in found} == {"past", "item"}
