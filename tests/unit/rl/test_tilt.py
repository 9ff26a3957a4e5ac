"""The search for a tilt: it finds what pays over whole sessions, and leaves alone what it should."""

from dataclasses import replace

import pytest
import torch

import rl.tilt
from rl.players import PolicyPlayer, play_simulated
from rl.policy.config import TiltConfig
from rl.policy.network import PolicyShape, SlatePolicy
from rl.simulator.response_model import ResponseModel
from rl.simulator.simulation import Ensemble
from rl.tasks import TaskConfig, Tasks, build_tasks
from rl.tilt import tilt_clone
from tests.unit.rl.simulator.ensembles import P, Q, a_shape

N, D, STEPS = 40, 3, 6
QUICK = TiltConfig(num_generations=6, num_tilts=16, num_sessions=8, num_directions=2)
VIEW = {"view": TaskConfig()}


def a_world(tasks: Tasks) -> tuple[Ensemble, SlatePolicy, torch.Tensor]:
    """Items are taken, task by task, the more the further they lie along a direction of the text of the task's own."""
    torch.manual_seed(0)
    texts = torch.randn(N, D)
    ones = (1.0,) * len(tasks)
    shape = a_shape(num_items=N, parents=tasks.parents, value_scale=ones, value_cap=ones)
    model = ResponseModel(shape, torch.randn(N, P), torch.randn(N, Q))
    model.item_bias.data[:, 0] = 4.0  # whatever is shown is noticed
    for task in range(len(tasks)):
        model.item_bias.data[:, 1 + task] = 2 * texts[:, task] - 1
    ensemble = Ensemble(
        (model.eval().requires_grad_(False),), tasks, torch.zeros(D), torch.randn(D, P + Q), STEPS, 0.0
    )
    policy = SlatePolicy(
        PolicyShape(num_items=N, text_width=D, num_tasks=len(tasks), slate_length=2, history_length=4), texts
    )
    return ensemble, policy.eval(), torch.randn(20, D)


def returns(ensemble: Ensemble, policy: SlatePolicy, pasts: torch.Tensor) -> torch.Tensor:
    """Mean return by task. [K]."""
    dice, weights = torch.Generator().manual_seed(9), torch.from_numpy(ensemble.tasks.weights)
    played, _ = play_simulated(ensemble, PolicyPlayer(policy, 2, 9), pasts.repeat(20, 1), weights, 4, dice)
    return played.mean(0)


@pytest.mark.parametrize(("logits_at_once", "num_candidates"), [(1 << 24, N), (3 * N, N), (3 * N, N // 2)])
def test_a_tilt_finds_what_whole_sessions_pay_for(monkeypatch, logits_at_once, num_candidates):
    monkeypatch.setattr(rl.tilt, "_LOGITS_AT_ONCE", logits_at_once)
    ensemble, clone, pasts = a_world(build_tasks(VIEW))
    before = {name: value.clone() for name, value in clone.state_dict().items()}

    tilted = tilt_clone(
        clone, ensemble, pasts, QUICK.model_copy(update={"num_candidates": num_candidates}), 0
    )

    assert tilted is not None
    assert returns(ensemble, tilted, pasts) > 1.3 * returns(ensemble, clone, pasts)
    assert all(torch.equal(value, before[name]) for name, value in clone.state_dict().items())
    changed = {n for n, value in tilted.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"text_bias.weight"}


def test_the_same_seed_gives_the_same_tilt():
    ensemble, clone, pasts = a_world(build_tasks(VIEW))
    tilts = [tilt_clone(clone, ensemble, pasts, QUICK, seed) for seed in (1, 1, 2)]
    first, again, other = (tilt.text_bias.weight for tilt in tilts if tilt is not None)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_generations_and_without_gain_there_is_no_tilt():
    ensemble, clone, pasts = a_world(build_tasks(VIEW))
    assert tilt_clone(clone, ensemble, pasts, TiltConfig(num_generations=0), 0) is None

    indifferent = replace(ensemble, max_steps=0)  # every return is 0
    assert tilt_clone(clone, indifferent, pasts, QUICK, 0) is None


def test_limits_of_costs_come_before_returns():
    costly = {"view": TaskConfig(), "complain": TaskConfig(cost=True, weight=0.0)}
    limited = {"view": TaskConfig(), "complain": TaskConfig(cost=True, weight=0.0, at_most=2.0)}
    spent, won = [], []
    for configs in (costly, limited):
        ensemble, clone, pasts = a_world(build_tasks(configs))
        ensemble.members[0].item_bias[:, 2] = ensemble.members[0].item_bias[:, 1]  # the same items do both
        tilted = tilt_clone(clone, ensemble, pasts, QUICK, 0)
        assert tilted is not None
        view, complain = returns(ensemble, tilted, pasts)
        won.append(float(view))
        spent.append(-float(complain))
    assert spent[0] > 4 > 2.4 > spent[1]
    assert won[1] < won[0]
