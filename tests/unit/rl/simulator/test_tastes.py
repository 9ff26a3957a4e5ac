"""Tastes: told by the texts of what was taken, in this session and before it, and from few sessions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.simulator.config import SimulatorConfig
from rl.simulator.fitting import fit_member
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import response_shape
from rl.simulator.steps import Steps
from rl.simulator.tastes import Tastes

NUM_ITEMS, NUM_TOPICS, LENGTH, STEPS, NUM_SESSIONS = 60, 6, 5, 8, 250
TOPIC = np.arange(NUM_ITEMS) % NUM_TOPICS


def texts() -> Tensor:
    """Unit vectors around their topic's. float32 [N, D]."""
    noise = np.random.default_rng(1).normal(0, 0.15, (NUM_ITEMS, NUM_TOPICS))
    near = np.eye(NUM_TOPICS)[TOPIC] + noise
    return torch.from_numpy((near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32))


def fitted(with_past: bool) -> ResponseModel:
    """Fitted to users who view what is of their one topic; the past tells it, or nothing."""
    dice = np.random.default_rng(0)
    liked = dice.integers(0, NUM_TOPICS, NUM_SESSIONS)
    items = dice.integers(0, NUM_ITEMS, (NUM_SESSIONS, STEPS, LENGTH))
    chance = np.where(TOPIC[items] == liked[:, None, None], 0.6, 0.15)
    responses = torch.from_numpy((dice.random(items.shape) < chance)[..., None].astype(np.float32))
    known = torch.ones(NUM_SESSIONS, STEPS, dtype=torch.bool)
    steps = Steps(
        torch.arange(NUM_SESSIONS),
        torch.from_numpy(items),
        responses,
        torch.zeros_like(responses),
        known,
        torch.zeros_like(known),
    )
    settings = SimulatorConfig(likeness_width=NUM_TOPICS, taste_width=NUM_TOPICS, batch_sessions=16)
    shape = response_shape(settings, steps, (-1,), NUM_ITEMS, (2, 2), True)
    past = torch.zeros(NUM_SESSIONS, 2 + NUM_TOPICS)
    if with_past:
        past[:, 2:] = torch.from_numpy(np.eye(NUM_TOPICS, dtype=np.float32)[liked])
    features = torch.zeros(NUM_ITEMS, 2)  # the other paths know items by their ids alone
    held = np.arange(NUM_SESSIONS) % 5 == 0
    model, _ = fit_member(shape, features, texts(), steps, past, held, settings, 0)
    return model


def preference(model: ResponseModel, viewed: list[int], past: Tensor) -> float:
    """How much higher items of topic 0, none of them viewed, score than others."""
    table, state = model.item_table(), model.start(1)
    for item in viewed:
        slate = torch.tensor([[item, 1, 2, 3, 4]])
        responses = torch.zeros(1, LENGTH, 1)
        responses[0, 0] = 1.0
        state = model.advance(state, table, slate, responses, torch.zeros_like(responses), past)
    unseen = torch.arange(30, NUM_ITEMS)
    score = model.scores(model.context(state, past), *table, unseen[None])[0, :, 0]
    same = torch.from_numpy(TOPIC[unseen] == 0)
    return float(score[same].mean() - score[~same].mean())


def test_what_is_like_what_was_viewed_scores_higher_and_not_without_end() -> None:
    model, nothing = fitted(with_past=False), torch.zeros(1, 2 + NUM_TOPICS)

    none, three = preference(model, [], nothing), preference(model, [0, 6, 12], nothing)
    many = preference(model, [0, 6, 12] * 10, nothing)

    assert three > none + 0.7  # of the logit; the truth knows 2.1 between liked and not
    assert none + 0.7 < many < none + 3.0


def test_taking_from_slates_that_hold_nothing_else_is_no_surprise() -> None:
    tastes = Tastes(2, 2, (-1,), 3)
    rates, taken = torch.full((1, 5, 1), 0.2), torch.zeros(1, 5, 1)
    taken[0, 0] = 1.0
    alike = torch.tensor([[[1.0, 0.0]] * 5])
    mixed = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]])

    forced = tastes.step(alike, rates, taken, slates=True)
    chosen = tastes.step(mixed, rates, taken, slates=True)

    torch.testing.assert_close(forced, torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(chosen, torch.tensor([[1.0, -0.2, 1.0]]))


def test_surprises_beyond_the_logs_range_go_on_by_their_logarithm() -> None:
    tastes = Tastes(2, 2, (-1,), 1)
    torch.nn.init.ones_(tastes.surprise)
    tastes.most.fill_(0.5)
    nothing = torch.zeros(1, 2)
    shrunk = 1 + torch.nn.functional.softplus(torch.ones(()))  # one response was to be expected

    def asked(length: float) -> Tensor:
        surprises = torch.cat([length * shrunk * torch.tensor([0.6, -0.8]), torch.ones(1)])
        return tastes.asked(surprises[None], nothing)[0, 0]

    torch.testing.assert_close(asked(0.4), torch.tensor([0.24, -0.32]))
    torch.testing.assert_close(asked(0.5 * np.e), torch.tensor([0.6, -0.8]))


def test_how_far_surprises_count_in_full_is_the_logs_range() -> None:
    model = fitted(with_past=False)

    most = float(model.tastes.most)
    # Four times as much of the liked topic as others take, and a few sessions' luck.
    assert 0.3 < most < 3.0


def test_rates_are_the_logs_with_rare_items_near_the_mean() -> None:
    rates = fitted(with_past=False).item_rates

    assert float(rates.mean()) == pytest.approx(0.15 + 0.45 / NUM_TOPICS, abs=0.02)
    assert 0.1 < float(rates.min()) < float(rates.max()) < 0.4


def test_the_past_tells_tastes_before_anything_is_viewed() -> None:
    model = fitted(with_past=True)
    liked, other = torch.zeros(1, 2 + NUM_TOPICS), torch.zeros(1, 2 + NUM_TOPICS)
    liked[0, 2], other[0, 3] = 1.0, 1.0

    assert preference(model, [], liked) > preference(model, [], other) + 0.7


def test_without_slates_only_what_was_acted_on_tells_a_taste() -> None:
    tastes = Tastes(3, 2, (-1, 0), 5)
    shown, rates = torch.randn(1, 4, 2), torch.full((1, 4, 2), 0.5)
    acted = torch.zeros(1, 4, 2)
    acted[0, 1] = 1.0

    alone = tastes.step(shown[:, 1:2], rates[:, 1:2], acted[:, 1:2], slates=False)
    among = tastes.step(shown, rates, acted, slates=False)

    torch.testing.assert_close(alone, among)
    assert not torch.allclose(tastes.step(shown, rates, acted, slates=True), among)
