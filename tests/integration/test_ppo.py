"""PPO on RLlib with a simulation whose best policy is known."""

import pytest
import torch

from rl.policy.algorithm import actor_state, set_clone
from rl.policy.config import DQNSettings, PPOSettings
from rl.policy.network import SlatePolicy
from rl.policy.safety import complaint_after_round
from tests.integration.shop_of_eight import ShopWithReturns, load_item_embeddings
from tests.integration.training_on_eight import SHAPE, TINY, best_actions, sampled_return, sampler_seeds

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_of_four")]


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
