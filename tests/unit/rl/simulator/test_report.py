"""The simulator's report: its rivals, and what it says in words."""

import numpy as np
import pytest
import torch

from rl.simulator.boosted_trees import SHRINK, boosted_chances, features, item_rates
from rl.simulator.report import auc, log_loss, trust
from rl.simulator.steps import Steps

N, L, K = 6, 3, 2


def some_steps(sessions: int, seed: int, length: int = 5) -> Steps:
    """Random sessions; an item tires of being taken; the second task never fires on odd ones."""
    dice = np.random.default_rng(seed)
    items = np.stack(
        [dice.permuted(np.tile(np.arange(N), (length, 1)), axis=1)[:, :L] for _ in range(sessions)]
    )
    known = np.arange(length) < dice.integers(1, length + 1, (sessions, 1))
    responses = np.zeros((sessions, length, L, K), dtype=np.float32)
    tired = np.zeros((sessions, N))
    rows = np.arange(sessions)[:, None]
    for step in range(length):
        chance = 0.7 * 0.2 ** tired[rows, items[:, step]] * np.where(items[:, step] == 0, 0.2, 1.0)
        fired = (dice.random(chance.shape) < chance) & known[:, step, None]
        responses[:, step, :, 0] = fired
        responses[:, step, :, 1] = fired & (items[:, step] % 2 == 0) & (dice.random(chance.shape) < 0.5)
        np.add.at(tired, (rows, items[:, step]), fired)
    items[0, 0, -1] = -1  # a shorter slate
    responses[0, 0, -1] = 0
    return Steps(
        session=torch.arange(sessions),
        items=torch.from_numpy(items),
        responses=torch.from_numpy(responses),
        values=torch.zeros(sessions, length, L, K),
        known=torch.from_numpy(known),
        left=torch.zeros(sessions, length, dtype=torch.bool),
    )


def test_features_are_those_of_a_slow_walk_through_the_sessions() -> None:
    steps = some_steps(7, 0)
    rates, showings = item_rates(steps, N)

    found = features(steps, rates, showings)

    row = 0
    for session in range(len(steps)):
        counts, ignored, seen, taken = np.zeros(K), 0, np.zeros(N), np.zeros(N)
        for step in np.flatnonzero(steps.known[session].numpy()):
            slate = steps.items[session, step].numpy()
            answers = steps.responses[session, step].numpy()
            slate_rates = rates[slate[slate >= 0]].mean(0)
            for position in np.flatnonzero(slate >= 0):
                item = slate[position]
                expected = [*rates[item], np.log1p(showings[item]), *slate_rates, position, step]
                expected += [*counts, ignored, seen[item], taken[item]]
                assert found[row] == pytest.approx(expected)
                row += 1
            counts += answers.sum(0)
            ignored += int(not answers.any())
            for position in np.flatnonzero(slate >= 0):
                seen[slate[position]] += 1
                taken[slate[position]] += answers[position].max()
    assert row == len(found)


def test_item_rates_lean_on_the_base_rate() -> None:
    steps = some_steps(40, 1)

    rates, showings = item_rates(steps, N + 1)

    shown = steps.items[steps.known]
    fired = steps.responses[steps.known]
    base = fired[shown >= 0].double().mean(0).numpy()
    mine = shown == 3
    assert showings[3] == int(mine.sum())
    assert rates[3] == pytest.approx(
        (fired[mine].sum(0).numpy() + SHRINK * base) / (int(mine.sum()) + SHRINK)
    )
    assert rates[N] == pytest.approx(base)  # never shown


def test_trees_see_what_item_rates_do_not() -> None:
    train, test = some_steps(1500, 2), some_steps(400, 3)

    chances = boosted_chances(train, test, N, 0)

    asked = test.items[test.known]
    fired = (test.responses[test.known][asked >= 0] > 0).numpy()
    rates = item_rates(train, N)[0][asked[asked >= 0].numpy()]
    assert chances.shape == fired.shape
    assert log_loss(chances[:, 0], fired[:, 0]) < 0.95 * log_loss(rates[:, 0], fired[:, 0])  # satiation
    assert (boosted_chances(train, test, N, 0) == chances).all()


def test_task_that_never_fires_has_no_chance() -> None:
    train, test = some_steps(30, 4), some_steps(10, 5)
    train.responses[..., 1] = 0

    assert (boosted_chances(train, test, N, 0)[:, 1] == 0).all()


def test_trust_says_for_what_in_words() -> None:
    good = {
        "view": {"simulator": 0.4, "boosted_trees": 0.5},
        "cart": {"simulator": 0.3, "boosted_trees": 0.2},
    }

    near = trust(good, {"length": 0.1, "return/view": -0.2})
    far = trust(good, {"length": 0.1, "return/view": -0.6})

    assert "better than items' rates and boosted trees: view." in near
    assert "A simple rival tells the next response as well or better: cart." in near
    assert "believe the order" in near
    assert "view -60%" in far and "believe no return" in far
    assert "no slates" in trust({"view": {"simulator": 0.4}}, {"length": 0.0})


def test_auc_counts_pairs() -> None:
    chance, label = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    pairs = [(p > q) + 0.5 * (p == q) for p in chance[label] for q in chance[~label]]

    assert auc(chance, label) == pytest.approx(np.mean(pairs))
    assert auc(chance, np.ones(4, dtype=bool)) is None
    assert log_loss(np.array([0.5]), np.array([True])) == pytest.approx(np.log(2))
