"""Re-ranked slates keep their bound and their limits."""

import itertools

import pytest
import torch

from rl.policy.reranking import rerank


def made_up(seed, rows=6, num_items=12):
    generator = torch.Generator().manual_seed(seed)
    worths = torch.rand(rows, num_items, generator=generator).softmax(-1)
    vectors = torch.nn.functional.normalize(torch.randn(num_items, 3, generator=generator), dim=-1)
    return worths, vectors


def spread(vectors, slate):
    """Mean distance of an item to the nearest above it."""
    shown = vectors[slate]
    return sum(1 - float((shown[i] @ shown[:i].T).max()) for i in range(1, len(slate)))


def test_without_a_lever_the_slate_is_the_best():
    worths, vectors = made_up(0)

    reranked = rerank(worths, vectors, 4, 0.0)

    assert torch.equal(reranked.slates, worths.topk(4).indices)
    assert (reranked.limits_loss == 0).all()
    assert (reranked.diversity_loss == 0).all()


@pytest.mark.parametrize("allowed", [0.02, 0.1, 0.4])
def test_loss_stays_within_the_bound_and_buys_diversity(allowed):
    gained = []
    for seed in range(5):
        worths, vectors = made_up(seed)
        best = worths.topk(4).indices

        reranked = rerank(worths, vectors, 4, allowed)

        worth = worths.gather(1, reranked.slates).sum(-1)
        assert (worth >= (1 - allowed) * worths.gather(1, best).sum(-1) - 1e-6).all()
        loss = 1 - worth / worths.gather(1, best).sum(-1)
        assert torch.allclose(reranked.diversity_loss, loss, atol=1e-5)
        assert all(len(set(slate.tolist())) == 4 for slate in reranked.slates)
        gained += [
            spread(vectors, a) - spread(vectors, b) for a, b in zip(reranked.slates, best, strict=True)
        ]

    assert sum(gained) > 0
    if allowed == 0.4:
        assert sum(gained) / len(gained) > 0.5


def test_limits_cost_what_the_best_allowed_slate_lacks():
    worths, vectors = made_up(1)
    groups = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, -1, -1, -1, -1])
    limits = torch.tensor([0.25, 0.5])

    reranked = rerank(worths, vectors, 4, 0.0, groups, limits)

    for row, slate in enumerate(reranked.slates):
        allowed = [
            s
            for s in itertools.combinations(range(12), 4)
            if sum(groups[list(s)] == 0) <= 1 and sum(groups[list(s)] == 1) <= 2
        ]
        best = max(float(worths[row, list(s)].sum()) for s in allowed)
        assert float(worths[row, slate].sum()) == pytest.approx(best, abs=1e-6)
        free = float(worths[row].topk(4).values.sum())
        assert float(reranked.limits_loss[row]) == pytest.approx(1 - best / free, abs=1e-5)


def test_limits_hold_for_diverse_slates_too():
    worths, vectors = made_up(2)
    groups = torch.tensor([0] * 8 + [-1] * 4)

    reranked = rerank(worths, vectors, 4, 0.3, groups, torch.tensor([0.5]))

    assert ((groups[reranked.slates] == 0).sum(-1) <= 2).all()
    within = rerank(worths, vectors, 4, 0.0, groups, torch.tensor([0.5])).slates
    worth, bound = (worths.gather(1, slates).sum(-1) for slates in (reranked.slates, within))
    assert (worth >= 0.7 * bound - 1e-6).all()


def test_limits_that_leave_too_few_items():
    worths, vectors = made_up(3)

    with pytest.raises(ValueError, match=r"expected limits that leave 4 items for a slate, got 1"):
        rerank(worths, vectors, 4, 0.0, torch.zeros(12, dtype=torch.int64), torch.tensor([0.1]))
