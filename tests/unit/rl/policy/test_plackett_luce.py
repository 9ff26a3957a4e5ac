"""Slate probabilities against enumeration of every ordered slate."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from rl.policy.plackett_luce import (
    best_slates,
    sample_slates,
    slate_entropy,
    slate_kl,
    slate_log_prob,
    slate_terms,
)

LOGITS = torch.tensor([0.3, -1.0, 1.2, 0.0, -0.4])
BARRED = torch.tensor([0.3, -torch.inf, 1.2, 0.0, -0.4])


def enumerate_slates(logits, length):
    """Every ordered slate of candidates and its probability, item by item."""
    candidates = [i for i in range(len(logits)) if logits[i] > -torch.inf]
    slates, probs = [], []
    for slate in itertools.permutations(candidates, length):
        left, prob = set(candidates), 1.0
        for item in slate:
            prob *= math.exp(logits[item]) / sum(math.exp(logits[i]) for i in left)
            left.remove(item)
        slates.append(slate)
        probs.append(prob)
    return torch.tensor(slates), torch.tensor(probs)


@pytest.mark.parametrize("logits", [LOGITS, BARRED])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_slate_log_prob_against_enumeration(logits, length):
    slates, probs = enumerate_slates(logits, length)

    log_prob = slate_log_prob(logits.expand(len(slates), -1), slates)

    assert torch.allclose(log_prob.sum(-1).exp(), probs, atol=1e-6)
    assert log_prob.sum(-1).exp().sum() == pytest.approx(1.0, abs=1e-5)


def test_slate_log_prob_when_slate_takes_every_item():
    logits = LOGITS.clone().requires_grad_()

    log_prob = slate_log_prob(logits[None], torch.tensor([[4, 3, 2, 1, 0]]))
    log_prob.sum().backward()

    assert log_prob[0, -1] == 0.0
    assert torch.isfinite(logits.grad).all()


def test_slate_log_prob_when_slate_is_short_or_not_allowed():
    logits = BARRED.expand(3, -1)
    slates = torch.tensor([[2, 0, -1], [-1, -1, -1], [2, 1, 0]])

    log_prob = slate_log_prob(logits, slates)

    assert torch.equal(log_prob[0, :2], slate_log_prob(logits[:1], slates[:1, :2])[0])
    assert log_prob[0, 2] == 0.0
    assert torch.equal(log_prob[1], torch.zeros(3))
    assert log_prob[2, 1] == -torch.inf


@pytest.mark.parametrize("logits", [LOGITS, BARRED])
def test_entropy_and_kl_average_to_the_exact_ones(logits):
    reference = torch.where(logits == -torch.inf, logits, torch.tensor([0.0, 0.5, -0.5, 1.0, 0.2]))
    slates, probs = enumerate_slates(logits, 3)
    rows, reference_rows = logits.expand(len(slates), -1), reference.expand(len(slates), -1)
    reference_log_prob = slate_log_prob(reference_rows, slates).sum(-1)

    entropy = (probs * slate_entropy(rows, slates)).sum()
    kl = (probs * slate_kl(rows, reference_rows, slates)).sum()

    assert entropy == pytest.approx(-(probs * probs.log()).sum().item(), abs=1e-5)
    assert kl == pytest.approx((probs * (probs.log() - reference_log_prob)).sum().item(), abs=1e-5)
    assert (slate_kl(rows, rows, slates).abs() < 1e-6).all()


def test_gradients_are_finite_when_candidates_just_fill_the_slate():
    logits = BARRED.clone().requires_grad_()
    rows, slates = logits[None], torch.tensor([[2, 0, 4, 3]])

    (
        slate_log_prob(rows, slates).sum()
        + slate_entropy(rows, slates)
        + slate_kl(rows, rows.detach() * 0.5, slates)
    ).sum().backward()

    assert torch.isfinite(logits.grad[logits > -torch.inf]).all()


def slow_terms(logits, slate, reference):
    """Log-probability, entropy and divergence position by position, as the formulas say it."""
    left, log_prob, entropy, kl = list(range(len(logits))), [], [], []
    for item in slate:
        chosen, theirs = logits[left].log_softmax(-1), reference[left].log_softmax(-1)
        log_prob.append(chosen[left.index(item)])
        entropy.append(-(chosen.exp() * chosen).sum())
        kl.append((chosen.exp() * (chosen - theirs)).sum())
        left.remove(item)
    return torch.stack(log_prob), torch.stack(entropy).sum(), torch.stack(kl).sum()


@pytest.mark.parametrize("slate", [[2, 0, -1], [4, 3, 1]])
def test_terms_and_their_gradients_against_a_slow_reference(slate):
    reference = torch.tensor([0.0, 0.5, -0.5, 1.0, 0.2])
    fast, slow = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    weights = torch.tensor([0.7, -1.1, 0.4])

    terms = slate_terms(fast[None], torch.tensor([slate]), reference[None])
    log_prob, entropy, kl = slow_terms(slow, [item for item in slate if item >= 0], reference)
    ((terms.log_prob[0] * weights).sum() + 0.3 * terms.entropy[0] - 0.6 * terms.kl[0]).backward()
    ((log_prob * weights[: len(log_prob)]).sum() + 0.3 * entropy - 0.6 * kl).backward()

    assert torch.allclose(terms.log_prob[0, : len(log_prob)], log_prob, atol=1e-6)
    assert terms.entropy[0].item() == pytest.approx(entropy.item(), abs=1e-5)
    assert terms.kl[0].item() == pytest.approx(kl.item(), abs=1e-5)
    assert torch.allclose(fast.grad, slow.grad, atol=1e-6)


@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_sampled_slates_have_the_exact_frequencies(sharpness):
    logits = BARRED * sharpness
    slates, probs = enumerate_slates(logits, 3)
    num_draws = 40_000

    drawn = sample_slates(logits.expand(num_draws, -1), 3, torch.Generator().manual_seed(7))

    counts = (drawn[:, None] == slates[None]).all(-1).sum(0)
    assert counts.sum() == num_draws
    frequent = probs * num_draws >= 5
    observed = torch.cat([counts[frequent], counts[~frequent].sum()[None]]).numpy()
    expected = torch.cat([probs[frequent], probs[~frequent].sum()[None]]).double().numpy()
    kept = expected * num_draws >= 1
    assert (
        chisquare(observed[kept], expected[kept] / expected[kept].sum() * observed[kept].sum()).pvalue > 0.001
    )


def test_sampling_when_candidates_are_fewer_than_positions():
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 0.0]]).expand(50, -1)

    drawn = sample_slates(logits, 4, torch.Generator().manual_seed(0))

    assert set(drawn[:, 0].tolist()) == {1, 3}
    assert (drawn[:, 2:] == -1).all()
    assert best_slates(logits, 3)[0].tolist() == [1, 3, -1]


def test_sampling_when_slate_is_longer_than_catalogue():
    with pytest.raises(ValueError, match="expected at most 5 positions"):
        sample_slates(LOGITS[None], 6)
