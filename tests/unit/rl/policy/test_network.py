"""The policy's scores as a whole."""

import torch

from rl.policy.network import PolicyShape, SlatePolicy


def a_policy() -> SlatePolicy:
    shape = PolicyShape(num_items=8, text_width=4, num_tasks=2, slate_length=2, history_length=3)
    policy = SlatePolicy(shape, torch.randn(8, 4)).eval()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


def test_copy_lies_a_share_of_the_way_to_another_policy() -> None:
    torch.manual_seed(0)
    policy, other = a_policy(), a_policy()
    before = {name: value.clone() for name, value in policy.state_dict().items()}

    between = policy.towards(other, 0.25).state_dict()

    for name, value in before.items():
        expected = 0.75 * value + 0.25 * other.state_dict()[name]
        assert torch.allclose(between[name], expected, atol=1e-6)
        assert torch.equal(policy.state_dict()[name], value)


def test_temperature_divides_every_score_of_a_copy() -> None:
    torch.manual_seed(0)
    policy = a_policy()
    state = (
        torch.randn(3, 4),
        torch.tensor([[-1, -1, -1], [-1, 5, 1], [7, 0, 5]]),
        torch.tensor([[-1, -1, -1], [-1, 0, 1], [1, 1, 0]]),
        torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]]),
    )
    before = policy.logits(*state)

    cooled = policy.at_temperature(0.25)

    assert torch.allclose(cooled.logits(*state), 4 * before, rtol=1e-4, atol=1e-4)
    assert torch.equal(policy.logits(*state), before)
