import numpy as np
import pytest
import torch

from rl.players import GreedyPlayer
from rl.simulator.simulation import Sessions, Simulation, WeightDraws, draw_task_weights
from rl.simulator.steps import complete_funnel
from rl.simulator.storage import ensemble_files, load_ensemble
from rl.simulator.trace import Trace, summary_width
from tests.unit.rl.simulator.ensembles import L, N, an_ensemble, two_tasks

DRAWS = WeightDraws(5.0, 0.5)


def test_sessions_begun_anew_are_read_anew() -> None:
    ensemble = an_ensemble(pessimism=1.0)
    sessions = Sessions(ensemble, torch.randn(4, 5), torch.Generator().manual_seed(0))
    slates, past = torch.randint(N, (4, L)), torch.randn(2, 5)
    sessions.answer(slates)
    going_on = [context[[0, 2]].clone() for context in sessions.contexts]

    sessions.restart(torch.tensor([1, 3]), past)

    begun = Sessions(ensemble, past, torch.Generator())
    for context, kept, new in zip(sessions.contexts, going_on, begun.contexts, strict=True):
        torch.testing.assert_close(context[[0, 2]], kept)
        torch.testing.assert_close(context[[1, 3]], new)


def test_pessimism_takes_off_the_members_deviation() -> None:
    ensemble = an_ensemble(members=3, pessimism=0.5)
    sessions = Sessions(ensemble, torch.randn(4, 5), torch.Generator().manual_seed(0))
    slates = torch.randint(N, (4, L))
    rewards, _ = sessions.expected_rewards(slates)

    pessimistic, _, _ = sessions.answer(slates)

    torch.testing.assert_close(pessimistic, (rewards.mean(0) - 0.5 * rewards.std(0)).clamp_min(0))


def test_funnel_chances_fall_along_the_chain() -> None:
    ensemble = an_ensemble()
    sessions = Sessions(ensemble, torch.randn(7, 5), torch.Generator().manual_seed(0))

    _, chances = sessions.expected_rewards(torch.randint(N, (7, L)))

    assert ((chances > 0) & (chances < 1)).all()
    assert (chances[..., 1] <= chances[..., 0]).all()


def test_choice_over_the_catalogue_sums_to_one() -> None:
    ensemble = an_ensemble("next_item", members=1)
    sessions = Sessions(ensemble, torch.randn(3, 5), torch.Generator().manual_seed(0))
    model, context = ensemble.members[0], sessions.contexts[0]
    vectors, biases = sessions.tables[0]

    response = torch.softmax(model.all_response_scores(context, vectors, biases), -1)
    worth = model.shelf_worth(
        context, vectors, biases, torch.tensor([[1.0, 0.0]]), torch.zeros(2, dtype=bool)
    )

    given = torch.sigmoid(model.scores(context, vectors, biases, torch.arange(N).expand(3, N))[..., 1])
    torch.testing.assert_close(worth, response * given)
    torch.testing.assert_close(response.sum(-1), torch.ones(3))


@pytest.mark.parametrize("mode", ["slate", "next_item"])
def test_worth_of_the_shelf_is_that_of_slates_of_one(mode: str) -> None:
    ensemble = an_ensemble(mode, members=1)
    sessions = Sessions(ensemble, torch.randn(3, 5), torch.Generator().manual_seed(0))
    model, context = ensemble.members[0], sessions.contexts[0]
    vectors, biases = sessions.tables[0]
    signed, paid = torch.tensor([[0.7, -0.3], [1.0, 0.0], [0.2, 0.8]]), torch.tensor([False, True])

    worth = model.shelf_worth(context, vectors, biases, signed, paid)

    for item in range(N):
        outlook = model.outlook(context, vectors, biases, torch.full((3, 1), item))
        rewards = torch.where(paid, outlook.chances * outlook.values, outlook.chances)[:, 0]
        torch.testing.assert_close(worth[:, item], (rewards * signed).sum(-1))


def test_sampled_responses_have_the_expected_rates() -> None:
    ensemble = an_ensemble(members=1)
    past = torch.randn(1, 5).expand(20_000, -1)
    slates = torch.tensor([[0, 1]]).expand(20_000, -1)
    sessions = Sessions(ensemble, past, torch.Generator().manual_seed(0))

    rewards, responses, _ = sessions.answer(slates)

    error = (responses.mean(0) - rewards[0]).abs()
    assert (error < 4 * (rewards[0] * (1 - rewards[0]) / 20_000).sqrt() + 1e-4).all()
    assert (responses[..., 1] <= responses[..., 0]).all()


def test_next_item_sessions_take_at_most_one_item() -> None:
    ensemble = an_ensemble("next_item", members=1)
    sessions = Sessions(ensemble, torch.randn(5_000, 5), torch.Generator().manual_seed(0))

    _, responses, _ = sessions.answer(torch.tensor([[0, 1, 2]]).expand(5_000, -1))

    assert responses[..., 0].sum(1).max() == 1


def test_pessimism_takes_disagreement_off() -> None:
    past, slates = torch.randn(4, 5), torch.randint(N, (4, L))
    plain = Sessions(an_ensemble(pessimism=0.0), past, torch.Generator().manual_seed(0))
    wary = Sessions(an_ensemble(pessimism=0.7), past, torch.Generator().manual_seed(0))

    by_member, _ = plain.expected_rewards(slates)
    cautious, _, _ = wary.answer(slates)

    expected = (by_member.mean(0) - 0.7 * by_member.std(0)).clamp_min(0)
    torch.testing.assert_close(cautious, expected)


def test_greedy_is_the_best_of_all_slates_for_the_next_step() -> None:
    ensemble = an_ensemble(members=3)
    past, weights = torch.randn(5, 5), torch.tensor([[0.3, 0.7]]).expand(5, -1)
    player = GreedyPlayer(ensemble, L, 0)
    player.start(past)
    trace = Trace(past, ensemble.members[0].item_features, 2, 4)

    chosen = player.choose(trace.observe(weights))

    def worth(slates: torch.Tensor) -> torch.Tensor:
        rewards, _ = Sessions(ensemble, past, torch.Generator().manual_seed(0)).expected_rewards(slates)
        return (rewards.mean(0).sum(1) * weights).sum(-1)

    best = torch.stack(
        [worth(torch.tensor([[a, b]]).expand(5, -1)) for a in range(N) for b in range(N) if a != b]
    ).amax(0)
    torch.testing.assert_close(worth(chosen), best)


def test_trace_keeps_the_latest_behaviours() -> None:
    trace = Trace(torch.zeros(2, 5), torch.eye(N), 2, 3)
    fired = torch.zeros(2, L, 2)
    fired[0, 1] = 1.0  # viewed and bought the second item

    trace.add(torch.tensor([[4, 5], [1, 2]]), fired)
    trace.add(torch.tensor([[2, 3], [1, 2]]), torch.ones(2, L, 2))

    assert trace.items[0].tolist() == [2, 3, 3]
    assert trace.tasks[0].tolist() == [1, 0, 1]
    assert trace.items[1].tolist() == [1, 2, 2]
    observation = trace.observe(torch.ones(2, 2))
    assert observation["summary"].shape == (2, summary_width(2, N))


def test_simulation_restarts_sessions_that_end() -> None:
    simulation = Simulation(an_ensemble(), torch.randn(9, 5), 16, L, 4, DRAWS, seed=1)
    ended = 0
    for _ in range(20):
        result = simulation.step(torch.randint(N, (16, L)))
        ended += int(result.ended.sum())
        assert len(result.finished["lengths"]) == int(result.ended.sum())
        assert (result.finished["lengths"] <= 8).all()
        rows = result.ended.nonzero()[:, 0]
        assert (simulation.observe()["history_items"][rows] == -1).all()

    assert ended >= 16  # eight steps at most


def test_simulation_tells_the_chance_with_which_sessions_end() -> None:
    simulation = Simulation(an_ensemble(), torch.randn(9, 5), 4_000, L, 4, DRAWS, seed=1)
    ended, leaving = [], []
    for _ in range(10):
        last = simulation.trace.steps == 7  # eight steps at most
        result = simulation.step(torch.randint(N, (4_000, L)))
        assert (result.leaving[last] == 1).all()
        ended.append(result.ended[~last].float())
        leaving.append(result.leaving[~last])

    chance = torch.cat(leaving)
    error = (chance * (1 - chance)).sum().sqrt() / len(chance)
    assert 0 < chance.min() < chance.max() < 1
    assert abs(torch.cat(ended).mean() - chance.mean()) < 4 * error


def test_drawn_task_weights_sum_to_one() -> None:
    weights = draw_task_weights(two_tasks(), 50, DRAWS, np.random.default_rng(0))

    assert weights.sum(1) == pytest.approx(np.ones(50), abs=1e-6)
    assert len(np.unique(weights[:, 0])) > 5


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_share_says_how_many_draw_their_task_weights(share: float) -> None:
    tasks, count = two_tasks(), 4_000

    weights = draw_task_weights(tasks, count, WeightDraws(5.0, share), np.random.default_rng(0))

    drawn = (weights != tasks.weights).any(1)
    assert abs(drawn.mean() - share) <= 4 * np.sqrt(share * (1 - share) / count)
    assert len(np.unique(weights[drawn, 0])) >= 0.99 * drawn.sum()  # float32 has room for few to coincide


def test_ensemble_survives_its_files() -> None:
    ensemble = an_ensemble()
    again = load_ensemble(ensemble_files(ensemble), two_tasks())
    past, slates = torch.randn(4, 5), torch.randint(N, (4, L))

    before, _ = Sessions(ensemble, past, torch.Generator().manual_seed(0)).expected_rewards(slates)
    after, _ = Sessions(again, past, torch.Generator().manual_seed(0)).expected_rewards(slates)

    torch.testing.assert_close(before, after)


def test_children_imply_their_parents() -> None:
    responses = np.array([[0, 1], [1, 0], [0, 0]], dtype=np.float32)

    assert complete_funnel(responses, (-1, 0)).tolist() == [[1, 1], [1, 0], [0, 0]]
