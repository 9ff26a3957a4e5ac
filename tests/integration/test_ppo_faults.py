"""PPO on RLlib when workers die, rewards are no numbers, and training stops and goes on."""

import os

import numpy as np
import pytest
import torch

from rl.policy.algorithm import Trainer, actor_state
from rl.policy.config import PPOSettings
from rl.policy.safety import complaint_after_round
from tests.integration.shop_of_eight import ShopOfEight
from tests.integration.training_on_eight import TINY, best_actions, sampled_return, sampler_seeds

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_of_four")]


def test_checkpoint_restores_and_goes_on(build, tmp_path):
    algorithm = build(kl_target=0.01)
    for _ in range(3):
        algorithm.train()
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    other = build(seed=99, kl_target=0.01)
    assert not torch.equal(best_actions(other), best_actions(algorithm))

    other.restore_from_path(path)

    assert torch.equal(best_actions(other), best_actions(algorithm))
    critic, restored = (a.learner_group._learner.module["default_policy"] for a in (algorithm, other))
    assert torch.equal(critic.critic.value_head.mean, restored.critic.value_head.mean)
    assert critic.kl_price == restored.kl_price
    assert other.train()["training_iteration"] == 4


def test_restarted_sampler_does_not_replay_its_sessions(build):
    algorithm = build(num_env_runners=2)
    algorithm.train()
    before = sampler_seeds(algorithm)

    algorithm.env_runner_group.foreach_env_runner(
        lambda runner: os._exit(1) if runner.worker_index == 1 else None, local_env_runner=False
    )
    for _ in range(20):  # rounds go on with the survivor until the other is back
        algorithm.train()
        after = sampler_seeds(algorithm)
        if len(after) == 2:
            break

    assert len(before) == len(after) == 2
    assert after[1] == before[1]
    assert after[0] not in before


def test_dead_learner_costs_only_its_round(build):
    settings = {"num_learners": 1, "num_env_runners": 1, "num_iterations": 8}
    trainer = Trainer(lambda: build(**settings))
    for _ in range(3):
        before = trainer.train()
    learned = actor_state(trainer.algorithm)

    trainer.algorithm.learner_group.foreach_learner(lambda learner: os._exit(1))
    trainer.algorithm.env_runner_group.foreach_env_runner(lambda runner: None)
    after = trainer.train()

    assert trainer.num_recoveries == 1
    assert after["training_iteration"] == before["training_iteration"] + 1
    steps = [r["env_runners"]["num_env_steps_sampled_lifetime"] for r in (before, after)]
    assert steps[1] - steps[0] == 64 * 8
    moved = actor_state(trainer.algorithm)
    step = max(float((moved[name] - learned[name]).abs().max()) for name in moved)
    assert 0 < step <= 3 * 2 * 2e-3 * 1.5  # one round of Adam from where the learner was, not from the start


def test_resumed_training_goes_on_along_the_same_curve(build, tmp_path):
    def train(algorithm, rounds):
        return [sampled_return(algorithm.train()) for _ in range(rounds)]

    whole, first = build(seed=1), build(seed=2)
    curve = train(whole, 12)
    half = train(first, 4)
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    second = build(seed=2)
    second.restore_from_path(path)
    resumed = half + train(second, 8)

    between, last = slice(4, 8), slice(8, 12)
    assert np.mean(curve[last]) - np.mean(curve[:4]) > 1.5
    assert np.mean(resumed[between]) == pytest.approx(np.mean(curve[between]), abs=0.5)
    assert np.mean(resumed[last]) == pytest.approx(np.mean(curve[last]), abs=0.5)


class BrokenShop(ShopOfEight):
    """Pays what is no number from its 20th slate on."""

    shown = 0

    def step(self, slates):
        result = super().step(slates)
        self.shown += 1
        if self.shown > 20:
            result.rewards[0, 0, 0] = float("nan")
        return result


def test_rewards_that_are_no_numbers_leave_the_weights_alone(build):
    algorithm = build(world=BrokenShop)
    for _ in range(2):
        result = algorithm.train()  # 16 slates
    assert complaint_after_round(result["learners"]["default_policy"], PPOSettings(**TINY)) is None
    module = algorithm.learner_group._learner.module["default_policy"]
    before = {name: value.clone() for name, value in module.state_dict().items()}

    result = algorithm.train()

    complaint = complaint_after_round(result["learners"]["default_policy"], PPOSettings(**TINY))
    assert "not a finite number" in complaint
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_sessions_that_learners_cannot_share(build):
    with pytest.raises(ValueError, match=r"rl\.ppo\.num_sessions: expected a multiple"):
        build(num_learners=3)
