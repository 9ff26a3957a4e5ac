import numpy as np
import pytest
import torch

from encoders.sessions import LoggedSlates, SessionLog
from rl.players import StatelessPlayer, play
from rl.simulator.config import SimulatorConfig
from rl.simulator.fitting import fit_member, step_losses
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import response_shape
from rl.simulator.simulation import Ensemble, Sessions
from rl.simulator.steps import Steps, build_steps
from tests.unit.rl.simulator.ensembles import L, N, P, Q, two_tasks


def made_up_log(num_sessions: int, slates: bool) -> SessionLog:
    """Item 0 is nearly always viewed, the others seldom; one step in three is the last."""
    dice = np.random.default_rng(0)
    session, items, responses = [], [], []
    for s in range(num_sessions):
        for _ in range(dice.geometric(1 / 3)):
            slate = dice.permutation(N)[:L]
            seen = dice.random(L) < np.where(slate == 0, 0.9, 0.1)
            session.append(s)
            items.append(slate)
            responses.append(np.stack([seen, seen & (dice.random(L) < 0.5)], -1))
    shown, answered = np.array(items), np.array(responses)
    step, position, task = np.nonzero(answered)
    at = np.array(session)
    logged = LoggedSlates(
        at,
        shown.astype(np.int64),
        answered.astype(np.float32),
        np.zeros(answered.shape, dtype=np.float32),
        np.full(shown.shape, np.nan),
        np.zeros(len(at), dtype=np.int64),
    )
    counts = np.bincount(at[step], minlength=num_sessions)
    return SessionLog(
        [str(s) for s in range(num_sessions)],
        [str(s) for s in range(num_sessions)],
        np.zeros(num_sessions, dtype=np.int8),
        np.zeros((num_sessions, 5), dtype=np.float32),
        np.concatenate([[0], counts.cumsum()]),
        shown[step, position].astype(np.int64),
        task.astype(np.int64),
        np.zeros(len(step), dtype=np.float32),
        logged if slates else None,
    )


def fit(log: SessionLog) -> tuple[ResponseModel, Steps]:
    steps = build_steps(log, log.sessions("train"), (-1, 0), 40)
    settings = SimulatorConfig(
        num_epochs=12,
        learning_rate=2e-2,
        item_decay=0.01,
        weight_decay=0.01,
        hidden=8,
        likeness_width=Q,
        taste_width=2,
    )
    shape = response_shape(settings, steps, (-1, 0), N, (P, P), log.slates is not None)
    held = np.arange(len(steps)) % 5 == 0
    model, _ = fit_member(
        shape, torch.zeros(N, P), torch.zeros(N, Q), steps, torch.zeros(len(steps), P + Q), held, settings, 0
    )
    return model, steps


@pytest.mark.parametrize("slates", [True, False])
def test_fitted_model_finds_the_good_item(slates: bool) -> None:
    model, _ = fit(made_up_log(600, slates))
    vectors, biases = model.item_table()
    context = model.context(model.start(1), torch.zeros(1, P + Q))

    first = torch.tensor([[1.0, 0.0]])
    chances = model.shelf_worth(context, vectors, biases, first, torch.zeros(2, dtype=bool))[0]

    assert chances[0] > 3 * chances[1:].max()
    if slates:
        assert float(chances[0]) == pytest.approx(0.9, abs=0.08)
        assert float(chances[1:].mean()) == pytest.approx(0.1, abs=0.04)


def test_fitted_sessions_are_as_long_as_logged_ones() -> None:
    model, steps = fit(made_up_log(600, True))
    ensemble = Ensemble((model,), two_tasks(), torch.zeros(5), torch.zeros(5, P + Q), 40, 0.0)
    past = torch.zeros(2_000, 5)
    generator = torch.Generator().manual_seed(0)
    player = StatelessPlayer(lambda n: torch.rand(n, N, generator=generator).topk(L).indices)

    _, lengths = play(
        Sessions(ensemble, past, generator), player, past, torch.ones(2_000, 2), torch.zeros(N, P), 2, 4, 40
    )

    assert float(lengths.float().mean()) == pytest.approx(float(steps.known.sum() / len(steps)), rel=0.12)


def test_sampled_softmax_is_close_to_the_exact_loss() -> None:
    model, steps = fit(made_up_log(200, False))
    rate = torch.full((N,), -np.log(N))
    past = torch.zeros(len(steps), P + Q)
    torch.manual_seed(0)

    exact = step_losses(model, steps, past, rate, None)[0]
    sampled = torch.stack([step_losses(model, steps, past, rate, 4)[0] for _ in range(50)]).mean()

    assert float(sampled) == pytest.approx(float(exact), abs=0.15)


@pytest.mark.parametrize("slates", [True, False])
def test_padding_changes_no_loss(slates: bool) -> None:
    model, steps = fit(made_up_log(100, slates))
    rate, past = torch.full((N,), -np.log(N)), torch.zeros(len(steps), P + Q)
    pad = torch.nn.functional.pad
    padded = Steps(
        steps.session,
        pad(steps.items, (0, 0, 0, 7), value=-1),
        pad(steps.responses, (0, 0, 0, 0, 0, 7)),
        pad(steps.values, (0, 0, 0, 0, 0, 7)),
        pad(steps.known, (0, 7)),
        pad(steps.left, (0, 7)),
    )
    alone = torch.stack(
        [step_losses(model, steps.rows(torch.tensor([s])), past[:1], rate, None) for s in range(len(steps))]
    )
    lengths = steps.known.sum(1).float()

    losses = step_losses(model, padded, past, rate, None)

    torch.testing.assert_close(losses, step_losses(model, steps, past, rate, None))
    torch.testing.assert_close(losses, lengths @ alone / lengths.sum())
