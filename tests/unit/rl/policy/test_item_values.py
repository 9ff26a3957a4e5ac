"""Values of slates against sums written out."""

import torch

from rl.policy.item_values import item_values, temporal_difference_targets
from rl.policy.network import PolicyShape, SlatePolicy

SHAPE = PolicyShape(num_items=7, text_width=4, num_tasks=2, slate_length=3, history_length=2)


def policy():
    torch.manual_seed(0)
    policy = SlatePolicy(SHAPE, torch.randn(7, 4)).eval()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


def test_item_values_are_centred_logits_summed_over_the_slate():
    actor = policy()
    past = torch.randn(4, 4)
    history_items = torch.tensor([[-1, -1], [-1, 6], [0, 0], [3, 2]])
    history_tasks = torch.tensor([[-1, -1], [-1, 1], [0, 1], [1, 1]])
    slates = torch.tensor([[0, 1, 2], [6, 5, 4], [3, 0, 6], [2, 4, 1]])

    values = item_values(actor, past, history_items, history_tasks, slates)

    for task in range(2):
        only = torch.eye(2)[task].expand(4, -1)
        logits = actor.logits(past, history_items, history_tasks, only)  # [4, 7]
        centred = logits - logits.mean(-1, keepdim=True)
        assert torch.allclose(values[:, task], centred.gather(1, slates).sum(1), atol=1e-4)


def test_targets_add_what_comes_after_unless_the_session_ended():
    rewards = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    ended = torch.tensor([False, True])
    following = torch.tensor([[10.0, 20.0], [10.0, 20.0]])

    targets = temporal_difference_targets(rewards, ended, following, 0.9)

    assert torch.allclose(targets, torch.tensor([[10.0, 18.0], [1.0, 2.0]]))
