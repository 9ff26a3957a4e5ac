"""From fragments to the loss, without Ray: rows, credit and probabilities that agree."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rl.policy.balance import TaskBalance
from rl.policy.config import PPOSettings
from rl.policy.connector import ROWS, FragmentsToBatch, build_train_batch, weigh_advantages
from rl.policy.fragments import STATE_COLUMNS, Fragment
from rl.policy.module import SlateModule
from rl.policy.network import PolicyShape
from rl.policy.plackett_luce import slate_log_prob, slate_terms

SHAPE = PolicyShape(num_items=6, text_width=4, num_tasks=2, slate_length=3, history_length=2)


@pytest.fixture
def module():
    torch.manual_seed(0)
    table = torch.randn(6, 4)
    module = SlateModule(
        observation_space=gym.spaces.Box(-1, 1, (1,)),
        action_space=gym.spaces.MultiDiscrete([6] * 3),
        model_config={
            "shape": SHAPE,
            "load_item_embeddings": lambda: table,
            "summary_width": 1,
            "critic_width": 8,
            "popart_rate": 0.1,
            "kl_price": 0.1,
            "limits": [float("inf")] * 2,
            "balance": "fixed",
            "num_candidates": 6,
        },
    )
    torch.nn.init.normal_(module.actor.id_key)
    return module


def observation(size, seed=0):
    random = np.random.default_rng(seed)
    return {
        "past": random.normal(size=(*size, 4)).astype(np.float32),
        "history_items": random.integers(-1, 6, (*size, 2)),
        "history_tasks": random.integers(-1, 2, (*size, 2)),
        "summary": np.zeros((*size, 1), np.float32),
        "task_weights": np.full((*size, 2), 0.5, np.float32),
    }


def fragment(num_sessions=4, num_steps=5):
    random = np.random.default_rng(1)
    size = (num_sessions, num_steps)
    return Fragment(
        {
            **observation((num_sessions, num_steps + 1)),
            "slates": random.permuted(np.tile(np.arange(6), (*size, 1)), axis=-1)[..., :3].copy(),
            "log_probs": np.zeros((*size, 3), np.float32),
            "rewards": random.random((*size, 3, 2)).astype(np.float32),
            "ended": random.random(size) < 0.2,
            "leaving": np.full(size, 0.2, np.float32),
        }
    )


def test_fragment_splits_into_equal_parts_that_join_again():
    whole = fragment()

    parts = whole.split(2)

    assert [len(part) for part in parts] == [10, 10]
    joined = np.concatenate([part.columns["rewards"] for part in parts])
    assert np.array_equal(joined, whole.columns["rewards"])


def test_train_batch_keeps_each_row_together(module):
    whole = fragment()

    batch = build_train_batch(module, whole.split(2), PPOSettings())

    row = 1 * 5 + 3  # session 1, step 3
    assert np.array_equal(batch["past"][row], whole.columns["past"][1, 3])
    assert np.array_equal(batch["slates"][row], whole.columns["slates"][1, 3])
    assert batch["advantages"].shape == (20, 3, 2)
    assert batch["advantages"].sum(-1).std(correction=0) == pytest.approx(1.0, abs=1e-5)
    assert batch["value_targets"].shape == (20, 2)
    assert batch["reward_targets"].shape == (20, 6)
    rewards = torch.from_numpy(whole.columns["rewards"][1, 3]).flatten()
    assert torch.allclose(
        module.critic.reward_head.denormalise(batch["reward_targets"][row]), rewards, atol=1e-5
    )


def test_minibatches_hold_every_row_once_and_in_one_piece(module):
    whole, connector = fragment(), FragmentsToBatch(PPOSettings())

    numbered = connector(rl_module={DEFAULT_MODULE_ID: module}, episodes=whole.split(2))[DEFAULT_MODULE_ID]

    assert set(numbered) == {ROWS}
    assert numbered[ROWS].tolist() != list(range(20))
    assert sorted(numbered[ROWS].tolist()) == list(range(20))
    for rows in numbered[ROWS].split(7):
        batch = connector.minibatch({ROWS: rows})
        for name in ("past", "slates", "log_probs"):
            logged = torch.from_numpy(whole.columns[name])[:, :5].flatten(0, 1)
            assert torch.equal(batch[name], logged[rows])
        assert {len(column) for column in batch.values()} == {len(rows)}


def test_rare_task_is_blown_up_only_on_request():
    torch.manual_seed(0)
    advantages = torch.randn(1000, 2) * torch.tensor([1.0, 0.01])
    rewards = torch.zeros(1000, 3, 2)
    task_weights = torch.full((1000, 2), 0.5)

    shares = []
    for method in ("fixed", "uncertainty"):
        balance = TaskBalance(method, 2)
        balance.follow(advantages, rewards)
        weights = task_weights * balance.factors
        combined = weigh_advantages(advantages, rewards, rewards, weights, PPOSettings()).sum(-1)
        assert combined.std() == pytest.approx(1.0, abs=1e-2)
        shares.append(torch.corrcoef(torch.stack([combined[:, 0], advantages[:, 1]]))[0, 1])

    assert shares[0].abs() < 0.1
    assert shares[1] == pytest.approx(0.7, abs=0.1)


def test_every_trade_off_is_learned_as_eagerly():
    torch.manual_seed(0)
    advantages = torch.randn(2000, 2) * torch.tensor([1.0, 0.05])
    rewards = torch.zeros(2000, 3, 2)
    only_first, only_second, both = torch.eye(2)[0], torch.eye(2)[1], torch.tensor([0.5, 0.5])
    task_weights = torch.stack([only_first, only_second, both])[torch.arange(2000) % 3]

    settings = PPOSettings(scale="session")
    shares = weigh_advantages(advantages, rewards, rewards, task_weights, settings)[:, 0]  # [M, K]

    asked_first, asked_second, asked_both = (shares[start::3] for start in range(3))
    assert asked_first.sum(-1).std() == pytest.approx(1.0, abs=0.1)
    assert asked_second.sum(-1).std() == pytest.approx(1.0, abs=0.1)
    assert asked_both.std(0)[1] / asked_both.std(0)[0] == pytest.approx(0.05, abs=0.01)


def test_weights_on_noise_alone_are_not_followed():
    torch.manual_seed(0)
    advantages = torch.randn(1000, 2) * torch.tensor([1.0, 1e-5])
    rewards = torch.zeros(1000, 3, 2)
    task_weights = torch.eye(2)[torch.arange(1000) % 2]

    settings = PPOSettings(scale="session")
    combined = weigh_advantages(advantages, rewards, rewards, task_weights, settings).sum(-1)

    assert combined[1::2].std() < 1e-3 * combined[::2].std()


def test_samplers_and_learners_agree_on_probabilities(module):
    module.train()
    rows = {name: torch.from_numpy(values) for name, values in observation((50,)).items()}

    drawn = module._forward_exploration(rows)
    logits = module.actor_logits(rows)

    assert torch.allclose(slate_log_prob(logits, drawn["actions"]), drawn["action_logp"], atol=1e-5)


def drawn_fragment(module, seed):
    """A round's fragment with slates that the module drew from candidates."""
    torch.manual_seed(seed)
    whole = fragment()
    state = {name: torch.from_numpy(whole.columns[name][:, 0]) for name in STATE_COLUMNS}
    candidates = module.draw_candidates(state)
    steps = [{n: torch.from_numpy(whole.columns[n][:, step]) for n in STATE_COLUMNS} for step in range(5)]
    drawn = [module._forward_exploration(step) for step in steps]
    columns = dict(whole.columns)
    columns["slates"] = torch.stack([d["actions"] for d in drawn], 1).numpy()
    columns["log_probs"] = torch.stack([d["action_logp"] for d in drawn], 1).numpy()
    return Fragment(columns, candidates)


@pytest.mark.parametrize("num_fragments", [1, 2])
def test_samplers_and_learners_agree_on_probabilities_among_candidates(module, num_fragments):
    module.model_config["num_candidates"] = 4
    fragments = [drawn_fragment(module, seed) for seed in range(num_fragments)]
    assert len({tuple(f.candidates.items.tolist()) for f in fragments}) == num_fragments

    batch = build_train_batch(module, fragments, PPOSettings())
    order = torch.randperm(len(batch["slates"]))
    batch = {name: column[order] for name, column in batch.items()}
    terms = slate_terms(module.actor_logits(batch), batch["slates"], module.reference_logits(batch))

    assert torch.allclose(terms.log_prob, batch["log_probs"], atol=1e-5)
    assert (terms.kl > 0).all()  # the actor's ids were moved, the clone's were not
    terms.log_prob.sum().backward()
    assert torch.isfinite(module.actor.id_key.grad).all()


def test_candidates_serve_only_catalogues_that_are_larger(module):
    rows = {name: torch.from_numpy(values) for name, values in observation((8,)).items()}

    assert module.draw_candidates(rows) is None


def test_item_keys_are_renewed_when_weights_change(module):
    rows = {name: torch.from_numpy(values) for name, values in observation((50,)).items()}
    before = module._forward_inference(rows)["actions"]
    state = module.get_state()
    state["actor.id_key"] = -state["actor.id_key"]

    module.set_state(state)

    assert not torch.equal(module._forward_inference(rows)["actions"], before)
    assert not any(name.endswith("item_embeddings") for name in state)


def test_state_for_samplers_holds_the_actor_alone(module):
    state = module.get_state(inference_only=True)

    assert state.keys() == {f"actor.{name}" for name in module.actor.state_dict()}
