"""The critic's running moments."""

import torch

from rl.policy.critic import Critic, NormalisedHead


def test_predictions_stay_when_moments_move():
    torch.manual_seed(0)
    head = NormalisedHead(width=4, num_outputs=2, rate=0.5)
    hidden = torch.randn(6, 4)
    head.track(torch.randn(50, 2))
    torch.nn.init.normal_(head.linear.weight)
    before = head.denormalise(head(hidden))

    head.track(torch.randn(50, 2) * torch.tensor([10.0, 0.01]) + 3.0)

    assert torch.allclose(head.denormalise(head(hidden)), before, atol=1e-4)


def test_targets_have_mean_0_and_scale_1_after_the_first_round():
    head = NormalisedHead(width=4, num_outputs=1, rate=0.1)
    targets = torch.randn(500, 1) * 0.002 + 7.0

    head.track(targets)

    normalised = head.normalise(targets)
    assert abs(normalised.mean()) < 1e-2
    assert abs(normalised.std() - 1.0) < 1e-2


def test_critic_when_history_is_empty_is_finite_and_ignores_padding():
    critic = Critic(text_width=3, summary_width=2, num_tasks=2, slate_length=4, width=8, rate=0.1)
    torch.nn.init.normal_(critic.value_head.linear.weight)
    observation = {
        "past": torch.zeros(3, 3),
        "history_items": torch.tensor([[-1, -1], [-1, 4], [4, 4]]),
        "summary": torch.zeros(3, 2),
        "task_weights": torch.full((3, 2), 0.5),
    }

    values, rewards = critic.predict(critic.inputs(observation, torch.randn(5, 3)))

    assert values.shape == (3, 2)
    assert rewards.shape == (3, 4, 2)
    assert torch.isfinite(values).all()
    assert torch.allclose(values[1], values[2])
    assert not torch.allclose(values[0], values[1])
