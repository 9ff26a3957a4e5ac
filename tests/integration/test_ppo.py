"""PPO on RLlib with a simulation whose best policy is known."""

import os
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from rl.policy.algorithm import Trainer, actor_state, build_algorithm, set_clone
from rl.policy.config import DQNSettings, PPOSettings
from rl.policy.network import PolicyShape, SlatePolicy
from rl.policy.safety import complaint_after_round
from tests.integration.shop_of_eight import (
    HISTORY_LENGTH,
    NUM_ITEMS,
    NUM_TASKS,
    SLATE_LENGTH,
    SUMMARY_WIDTH,
    ShopOfEight,
    ShopWithReturns,
    load_item_embeddings,
)

pytestmark = pytest.mark.ray

SHAPE = PolicyShape(
    num_items=NUM_ITEMS,
    text_width=NUM_ITEMS,
    num_tasks=NUM_TASKS,
    slate_length=SLATE_LENGTH,
    history_length=HISTORY_LENGTH,
)
TINY = {
    "num_iterations": 15,
    "num_sessions": 64,
    "fragment_steps": 8,
    "num_minibatches": 2,
    "critic_width": 16,
    "kl": 0.001,
    "discount": 1.0,
    "learning_rate": 2e-3,  # eight items are learned in a dozen rounds
    "num_epochs": 3,
    "gae_decay": 0.95,
}


@pytest.fixture(scope="module", autouse=True)
def ray_instance():
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def build():
    built = []

    def build_tiny(seed=3, world=ShopOfEight, dqn=None, limits=None, **changes):
        algorithm = build_algorithm(
            PPOSettings(**(TINY | changes)),
            SHAPE,
            load_item_embeddings,
            world,
            summary_width=SUMMARY_WIDTH,
            task_names=("view", "purchase"),
            seed=seed,
            limits=limits,
            dqn=dqn,
        )
        built.append(algorithm)
        return algorithm

    yield build_tiny
    for algorithm in built:
        algorithm.stop()


def sampled_return(result):
    return result["env_runners"]["episode_return_mean"]


def sampler_seeds(algorithm):
    """Seeds of the remote simulations that run, in order of their samplers."""
    seeds = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (runner.worker_index, runner._simulation.seed if runner._simulation else None),
        local_env_runner=False,
    )
    return [seed for _, seed in sorted(seeds) if seed is not None]


def observation():
    simulation = ShopOfEight(16, seed=1)
    return simulation.reset()


def best_actions(algorithm):
    module = algorithm.env_runner.module
    return module.forward_inference(observation())["actions"]


@pytest.mark.parametrize("credit", ["position", "slate"])
def test_return_rises_in_the_driver(build, credit):
    algorithm = build(credit=credit)

    results = [algorithm.train() for _ in range(15)]

    # Random slates return 4 steps * 1.5 (mean of the tasks) * 1.5 / 8 = 1.1; the best return 6.
    assert sampled_return(results[0]) < 1.5
    assert sampled_return(results[-1]) > 3.0
    task_returns = results[-1]["env_runners"]["task_return"]
    assert task_returns["purchase"] == pytest.approx(2 * task_returns["view"], rel=1e-4)
    assert results[-1]["env_runners"]["episode_len_mean"] == pytest.approx(4.0)


def test_cost_stays_at_its_limit_and_no_lower(build):
    costs = {}
    for limit in (float("inf"), 1.5):
        algorithm = build(world=ShopWithReturns, num_iterations=60, limits=[float("inf"), limit])
        results = [algorithm.train() for _ in range(60)][-16:]
        costs[limit] = [-result["env_runners"]["task_return"]["purchase"] for result in results]

    assert sum(costs[float("inf")]) / 16 > 3.0  # of 6 at most
    assert 1.1 < sum(costs[1.5]) / 16 < 1.9


@pytest.mark.parametrize("balance", ["uncertainty", "gradnorm", "pcgrad"])
def test_tasks_are_balanced_in_the_driver(build, balance, tmp_path):
    algorithm = build(balance=balance)

    results = [algorithm.train() for _ in range(15)]

    assert sampled_return(results[-1]) > 3.0
    factors = algorithm.learner_group._learner.module["default_policy"].balance.factors
    if balance == "pcgrad":
        assert factors.tolist() == [1.0, 1.0]
    else:  # the second task pays twice as much for the same
        assert float(factors[0] / factors[1]) == pytest.approx(2.0, rel=0.15)
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    other = build(seed=99, balance=balance)
    other.restore_from_path(path)
    assert torch.equal(other.learner_group._learner.module["default_policy"].balance.factors, factors)


@pytest.mark.parametrize("balance", ["gradnorm", "pcgrad"])
def test_remote_learners_agree_on_balance(build, balance):
    algorithm = build(num_learners=2, num_iterations=3, balance=balance)
    for _ in range(2):
        algorithm.train()

    states = [
        result.get()
        for result in algorithm.learner_group.foreach_learner(
            lambda learner: {
                name: value
                for name, value in learner.module["default_policy"].unwrapped().state_dict().items()
                if name.startswith(("actor", "balance"))
            }
        )
    ]
    assert len(states) == 2 and "balance.factors" in states[0]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_limits_and_balance_are_refused_by_dqn(build):
    with pytest.raises(ValueError, match=r"rl\.ppo\.balance: expected fixed"):
        build(dqn=DQNSettings(), balance="pcgrad")
    with pytest.raises(ValueError, match="at_most"):
        build(dqn=DQNSettings(), limits=[float("inf"), 1.0])


def test_dqn_learns_on_the_same_module_parts(build, tmp_path):
    dqn = DQNSettings(batch_rows=256, num_updates=16, replay_rounds=4, learning_rate=3e-3)
    algorithm = build(dqn=dqn)

    results = [algorithm.train() for _ in range(15)]

    assert sampled_return(results[0]) < 1.5
    assert sampled_return(results[-1]) > 3.0
    learned = results[-1]["learners"]["default_policy"]
    assert complaint_after_round(learned, PPOSettings(**TINY)) is None
    steps = results[-1]["env_runners"]["num_env_steps_sampled_lifetime"]
    assert steps == 15 * 64 * 8
    other = build(seed=99, dqn=dqn)
    other.restore_from_path(algorithm.save_to_path(str(tmp_path / "checkpoint")))
    assert torch.equal(best_actions(other), best_actions(algorithm))
    assert other.train()["training_iteration"] == 16


def test_dqn_on_remote_learners(build):
    algorithm = build(num_env_runners=1, num_learners=2, dqn=DQNSettings(batch_rows=64, num_updates=4))

    for _ in range(2):
        algorithm.train()

    states = [
        result.get()
        for result in algorithm.learner_group.foreach_learner(
            lambda learner: learner.module["default_policy"].unwrapped().actor.state_dict()
        )
    ]
    assert len(states) == 2
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_remote_samplers_follow_the_remote_learner(build):
    algorithm = build(num_env_runners=2, num_learners=1, num_iterations=3)

    for _ in range(2):
        result = algorithm.train()

    learned = actor_state(algorithm)
    sampled = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.actor.state_dict(), local_env_runner=False
    )
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 2 * 64 * 8
    assert len(sampled) == 2
    for state in sampled:
        assert state.keys() == learned.keys()
        for name, values in state.items():
            assert torch.equal(values, learned[name]), name
    assert len(set(sampler_seeds(algorithm))) == 2


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


def test_clone_reaches_actor_and_reference_everywhere(build):
    algorithm = build(num_env_runners=1)
    torch.manual_seed(5)
    clone = SlatePolicy(SHAPE, load_item_embeddings()).state_dict()
    algorithm.train()

    set_clone(algorithm, clone)

    module = algorithm.learner_group._learner.module["default_policy"]
    (sampler,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.actor.state_dict(), local_env_runner=False
    )
    for name, values in clone.items():
        for state in (actor_state(algorithm), module.reference.state_dict(), sampler):
            assert torch.equal(state[name], values), name


def test_price_holds_the_policy_near_the_clone(build):
    free, priced = build(kl=1e-6), build(kl=3.0)

    for _ in range(5):
        free_result, priced_result = free.train(), priced.train()

    assert sampled_return(priced_result) < sampled_return(free_result)
    distances = [r["learners"]["default_policy"]["clone_kl"] for r in (free_result, priced_result)]
    assert distances[1] < 0.5 * distances[0]


def test_actor_rests_when_a_round_went_too_far(build):
    algorithm = build(max_update_kl=1e-9)
    before = actor_state(algorithm)

    first = algorithm.train()

    # The first minibatch is on the sampling policy itself; the second sees what that step did.
    moved = actor_state(algorithm)
    learner = first["learners"]["default_policy"]
    assert learner["actor_stopped"] == 1.0
    step = max(float((moved[name] - before[name]).abs().max()) for name in moved)
    assert step <= 1.01 * 3e-3


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
