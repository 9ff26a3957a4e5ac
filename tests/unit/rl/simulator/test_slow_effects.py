"""What builds up over a session: learned from the log at full size, and believed ever less beyond what it has shown."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.simulator import fitting
from rl.simulator.config import SimulatorConfig
from rl.simulator.fitting import fit_member
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import response_shape
from rl.simulator.steps import Steps

NUM_ITEMS, LENGTH, STEPS = 10, 3, 12
GOOD = 5  # items below it build trust, the others destroy it
GAIN = 0.25  # of the logit of buying what is viewed, a view


def logged_steps(num_sessions: int) -> tuple[Steps, Tensor]:
    """Sessions of random slates: each view of a good item makes later buying likelier, of a bad one less likely.

    Also the trust at the end of each session. float32 [S].
    """
    dice = np.random.default_rng(0)
    items = np.stack(
        [dice.permuted(np.tile(np.arange(NUM_ITEMS), (num_sessions, 1)), axis=1) for _ in range(STEPS)], 1
    )
    items = items[..., :LENGTH]
    viewed = dice.random(items.shape) < 0.4
    effect = (np.where(items < GOOD, GAIN, -GAIN) * viewed).sum(-1)  # [S, T]
    trust = np.cumsum(effect, 1)
    before = trust - effect
    bought = viewed & (dice.random(items.shape) < 1 / (1 + np.exp(1.0 - before[..., None])))
    responses = torch.from_numpy(np.stack([viewed, bought], -1).astype(np.float32))
    known = torch.ones(num_sessions, STEPS, dtype=torch.bool)
    left = torch.zeros_like(known)
    left[:, -1] = True
    steps = Steps(
        torch.arange(num_sessions),
        torch.from_numpy(items),
        responses,
        torch.zeros_like(responses),
        known,
        left,
    )
    return steps, torch.from_numpy(trust[:, -1].astype(np.float32))


def fitted(steps: Steps, **changes: float) -> ResponseModel:
    settings = SimulatorConfig.model_validate({"taste_width": 0, **changes})
    shape = response_shape(settings, steps, (-1, 0), NUM_ITEMS, (2, 2), True)
    held = np.arange(len(steps)) % 5 == 0
    features = torch.randn(NUM_ITEMS, 2, generator=torch.Generator().manual_seed(0))
    model, _ = fit_member(
        shape, features, torch.zeros(NUM_ITEMS, 0), steps, torch.zeros(len(steps), 2), held, settings, 0
    )
    return model


def buying_after(model: ResponseModel, item: int, times: int) -> float:
    """Logit of buying what is viewed, after as many slates on which the item was viewed."""
    table, past = model.item_table(), torch.zeros(1, 2)
    state, slate = model.start(1), torch.tensor([[item, 4, 9]])
    responses = torch.zeros(1, LENGTH, 2)
    responses[0, 0, 0] = 1.0
    for _ in range(times):
        state = model.advance(state, table, slate, responses, torch.zeros_like(responses), past)
    context = model.context(state, past)
    return float(model.scores(context, *table, torch.tensor([[2]]))[0, 0, 2])


def test_slow_effects_are_learned_at_full_size_and_bounded_by_the_log() -> None:
    steps, trust = logged_steps(300)  # so few that what is regularised away shows
    bounded, free = fitted(steps), fitted(steps, reach=1e6)

    learned = buying_after(free, 0, 6) - buying_after(free, 7, 6)
    assert learned == pytest.approx(2 * 6 * GAIN, rel=0.5)
    # Forty views build more than any logged session did, eighty twice as much.
    logged = float(trust.quantile(0.99) - trust.quantile(0.01))
    wild, tame = (
        [buying_after(model, 0, times) - buying_after(model, 7, times) for times in (40, 80)]
        for model in (free, bounded)
    )
    assert wild[0] > 2 * logged and wild[1] > 1.8 * wild[0]
    assert tame[0] < 0.7 * wild[0] and tame[0] + 0.05 < tame[1] < 1.5 * tame[0]


def test_sums_go_on_by_their_logarithm_beyond_the_logs_range() -> None:
    steps, _ = logged_steps(200)
    model = fitted(steps, num_epochs=1)
    past, width = torch.zeros(1, 2), len(model.least)
    place = slice(model.shape.hidden, model.shape.hidden + width)

    def held(learned: Tensor) -> Tensor:
        state = torch.cat([learned, torch.zeros(model.state_width - width)])
        return model.context(state[None], past)[0, place]

    assert (model.least < 0).all() and (model.most > 0).all() and (model.most < 1e6).all()
    for edge in (model.most, model.least):
        assert torch.equal(held(0.5 * edge), 0.5 * edge)
        assert torch.allclose(held(edge * np.e), 2 * edge)
        assert torch.allclose(held(edge * 1.0001), edge, rtol=1e-3)


def test_members_learn_from_sessions_drawn_with_replacement() -> None:
    steps, _ = logged_steps(400)
    seen: set[int] = set()

    def note(model: ResponseModel, rows: Steps, *others: object) -> Tensor:
        if model.training:
            seen.update(rows.session.tolist())
        return real(model, rows, *others)  # type: ignore[arg-type]

    real = fitting.step_losses
    with patch.object(fitting, "step_losses", note):
        fitted(steps, num_epochs=2)

    assert 0.55 < len(seen) / 320 < 0.71  # 1 - 1 / e of those to learn from
