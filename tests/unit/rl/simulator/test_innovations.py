"""What a step brought beyond a first guess of it."""

import pytest
import torch

from rl.simulator.fitting import step_losses
from rl.simulator.innovations import innovations, reached
from rl.simulator.steps import Steps
from tests.unit.rl.simulator.ensembles import L, N, P, Q, an_ensemble


def test_innovations_count_what_had_its_chance_and_how_even_it_was() -> None:
    responses = torch.tensor(
        [[[1.0, 0.0], [0.0, 0.0]]]
    )  # the first item viewed and not bought, the second ignored
    chances = torch.tensor([[[0.25, 0.5], [0.75, 0.9]]])
    had_chance = reached(torch.ones(1, 2), responses, (-1, 0))

    found = innovations(chances, had_chance, responses)

    assert had_chance.tolist() == [[[1.0, 1.0], [1.0, 0.0]]]
    assert found[0].tolist() == pytest.approx([0.75 - 0.75, -0.5, 0.75 + 0.75, 1.0])


@pytest.mark.parametrize("mode", ["slate", "next_item"])
@pytest.mark.parametrize("innovations", [False, True])
def test_running_sums_equal_stepping_one_by_one(mode: str, innovations: bool) -> None:
    model = an_ensemble(mode, innovations=innovations).members[0]
    length = model.shape.slate_length
    items = torch.randint(N, (3, 5, length))
    responses = (torch.rand(3, 5, length, 2) < 0.4).float()
    values = torch.rand(3, 5, length, 2)
    table, past = model.item_table(), torch.randn(3, P + Q)

    at_once = model.run(table, items, responses, values, past)

    state = model.start(3)
    for step in range(5):
        torch.testing.assert_close(at_once[:, step], state)
        state = model.advance(state, table, items[:, step], responses[:, step], values[:, step], past)
    torch.testing.assert_close(at_once[:, 5], state)


@pytest.mark.parametrize("mode", ["slate", "next_item"])
def test_the_first_guess_knows_nothing_of_innovations_and_later_steps_do(mode: str) -> None:
    model = an_ensemble(mode, innovations=True).members[0]
    length = model.shape.slate_length
    items, past = torch.randint(N, (4, 3, length)), torch.randn(4, P + Q)
    responses = torch.ones(4, 3, length, 2)
    state = model.run(model.item_table(), items, responses, responses, past)[:, -1]
    without = state.clone()
    by_decay = without[:, : len(model.least)].view(4, -1, model.summed)
    assert (by_decay[..., model.shape.sum_width :] != 0).any(-1).all()
    by_decay[..., model.shape.sum_width :] = 0.0

    guess = model.context(state, past, informed=False)

    torch.testing.assert_close(guess, model.context(without, past))
    assert not torch.allclose(guess, model.context(state, past))


def test_fitting_weighs_the_first_guess_and_judging_does_not() -> None:
    items = torch.randint(N, (9, 4, L))
    responses = (torch.rand(9, 4, L, 2) < 0.4).float()
    known, left = torch.ones(9, 4, dtype=torch.bool), torch.zeros(9, 4, dtype=torch.bool)
    steps = Steps(torch.arange(9), items, responses, responses, known, left)
    past, log_rate = torch.randn(9, P + Q), torch.zeros(N)

    def losses(innovations: bool, training: bool) -> torch.Tensor:
        model = an_ensemble(innovations=innovations).members[0]  # without dropout
        return step_losses(model.train(training), steps, past, log_rate, None)

    torch.testing.assert_close(losses(False, True), losses(False, False))
    fitted, judged = losses(True, True), losses(True, False)
    assert (fitted[:2] > 1.3 * judged[:2]).all()
    torch.testing.assert_close(fitted[2:], judged[2:])
