"""A part of the catalogue that stands for the whole."""

import pytest
import torch

from rl.policy.candidates import draw_candidates, inclusion_chances
from rl.policy.network import PolicyShape, SlatePolicy, candidate_keys

WANTED = torch.tensor([0.6, 0.2, 0.1, 0.05, 0.03, 0.02, 0.0, 0.0])


def test_chances_are_proportional_below_1_and_sum_to_the_count():
    chances = inclusion_chances(WANTED, 3)

    assert chances.sum() == pytest.approx(3.0)
    assert chances[0] == 1.0
    assert (chances[1:] < 1).all()
    share = 0.9 * WANTED.double() + 0.1 / 8
    assert torch.allclose(chances[1:] / chances[1], share[1:] / share[1])
    assert (chances > 0).all()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_draws_have_their_chances(count):
    generator = torch.Generator().manual_seed(1)
    num_draws = 3000
    hits = torch.zeros(8)

    for _ in range(num_draws):
        drawn = draw_candidates(WANTED, count, generator)
        assert len(drawn.items) == count
        assert (drawn.items.diff() > 0).all()
        hits[drawn.items] += 1

    chances = inclusion_chances(WANTED, count)
    error = (chances * (1 - chances) / num_draws).sqrt()
    assert ((hits / num_draws - chances).abs() <= 4 * error + 1e-9).all()
    assert torch.allclose(drawn.offsets, -chances[drawn.items].log().float())


def test_sums_over_candidates_are_unbiased_for_sums_over_the_catalogue():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(8, generator=generator)

    sums = []
    for _ in range(4000):
        drawn = draw_candidates(WANTED, 3, generator)
        sums.append((scores[drawn.items] + drawn.offsets).exp().sum())

    sums = torch.stack(sums)
    assert sums.mean() == pytest.approx(scores.exp().sum().item(), abs=4 * sums.std().item() / 4000**0.5)


def test_candidate_logits_are_the_full_ones_raised_by_their_offsets():
    torch.manual_seed(0)
    shape = PolicyShape(num_items=8, text_width=4, num_tasks=2, slate_length=2, history_length=3)
    policy = SlatePolicy(shape, torch.randn(8, 4)).eval()
    for table in (policy.id_key, policy.id_history, policy.id_bias):
        torch.nn.init.normal_(table)
    state = (
        torch.randn(5, 4),
        torch.tensor([[-1, -1, -1], [-1, -1, 7], [0, 7, 0], [-1, 2, 3], [1, 6, 5]]),
        torch.tensor([[-1, -1, -1], [-1, -1, 1], [0, 1, 0], [-1, 1, 1], [0, 0, 1]]),
        torch.rand(5, 2),
    )
    candidates = draw_candidates(WANTED, 3)

    logits = policy.candidate_logits(*state, candidates)

    expected = policy.logits(*state)[:, candidates.items] + candidates.offsets
    assert torch.allclose(logits, expected, atol=1e-5)
    cached = policy.logits(*state, keys=candidate_keys(policy.item_keys(), candidates)) + candidates.offsets
    assert torch.allclose(cached, expected, atol=1e-5)
