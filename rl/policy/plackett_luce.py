"""Plackett-Luce: ordered slates drawn item by item, without replacement, in proportion to exp(score).

A candidate's logit is finite; an item that may not be shown has -inf. Position j draws from the softmax over
the candidates that stand in no earlier position. One softmax over the N items outside the slate, and the slate's
own L scores, give the normalisers of all positions at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_DRAWS_A_POSITION = 5  # draws beyond these are rarely needed; short rows are completed exactly
_LOWEST = -1e30  # stands for -inf among the slate's own scores, where infinities would make gradients nan


@dataclass(frozen=True)
class SlateTerms:
    """What a loss asks of slates that were drawn from the logits."""

    log_prob: Tensor  # [B, L] of each position's item given those before it
    entropy: Tensor  # [B] nats, see ``slate_entropy``
    kl: Tensor | None  # [B] nats from the reference, see ``slate_kl``; None without one


def slate_terms(logits: Tensor, slates: Tensor, reference_logits: Tensor | None = None) -> SlateTerms:
    """Log-probability, entropy and divergence of slates, with one pass over the catalogue for all three.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        slates: Item index at each position; -1 where the slate is shorter, at its end. int64 [B, L].
        reference_logits: Of the policy to measure the divergence from, same candidates; without gradient.

    Source:
        Plackett 1975, "The analysis of permutations".
    """
    empty = slates < 0
    inside = torch.where(empty, slates[..., :1], slates).clamp_min(0)  # an empty position repeats the first
    terms = _Outside.apply(logits, inside, reference_logits)  # type: ignore[no-untyped-call]
    scores, rest, mean, reference_mean = terms
    barred = (scores == -torch.inf) & ~empty
    own = scores.masked_fill(barred | empty, _LOWEST)  # [B, L]
    normalisers = _normalisers(own, rest)  # [B, L]
    log_prob = (own - normalisers).masked_fill(barred, -torch.inf).masked_fill(empty, 0.0)
    probs = (own.unsqueeze(-2) - normalisers.unsqueeze(-1)).exp().triu()  # [B, L, L]: later item last
    share = (rest - normalisers).exp()  # [B, L] of the items outside
    expected = (probs * own.unsqueeze(-2)).sum(-1) + share * mean
    entropy = (normalisers - expected).masked_fill(empty, 0.0).sum(-1)
    if reference_logits is None:
        return SlateTerms(log_prob, entropy, None)
    theirs = reference_logits.gather(-1, inside)
    outside = _log_total(reference_logits.scatter(-1, inside, -torch.inf))[1]
    theirs = theirs.masked_fill(barred | empty, _LOWEST)
    their_normalisers = _normalisers(theirs, outside)
    surplus = (probs * (own - theirs).unsqueeze(-2)).sum(-1) + share * (mean - reference_mean)
    kl = (surplus - normalisers + their_normalisers).masked_fill(empty, 0.0).sum(-1)
    return SlateTerms(log_prob, entropy, kl)


class _Outside(torch.autograd.Function):
    """A slate's scores, and what the items outside it come to, with a gradient in three passes over them.

    Returns scores [B, L]; and, over the items outside, logsumexp of the logits and their means and the
    reference's, under the softmax, each [B, 1].
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, inside: Tensor, reference: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        outside = logits.scatter(-1, inside, -torch.inf)
        probs, rest = _log_total(outside)
        finite = _finite(logits)
        mean = torch.linalg.vecdot(probs, finite).unsqueeze(-1)
        theirs = None if reference is None else _finite(reference)
        reference_mean = mean if theirs is None else torch.linalg.vecdot(probs, theirs).unsqueeze(-1)
        ctx.save_for_backward(probs, finite, theirs, inside, mean, reference_mean)
        return logits.gather(-1, inside), rest, mean, reference_mean

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Of logsumexp p, of the mean p (1 + s - mean), of the reference's mean p (r - mean)."""
        probs, finite, theirs, inside, mean, reference_mean = ctx.saved_tensors
        of_scores, of_rest, of_mean, of_reference = grads
        if theirs is None:
            of_mean = of_mean + of_reference  # then the fourth output is the third
            grad = torch.addcmul(of_rest + of_mean * (1 - mean), finite, of_mean)
        else:
            constant = of_rest + of_mean * (1 - mean) - of_reference * reference_mean
            grad = torch.addcmul(constant, finite, of_mean).addcmul_(theirs, of_reference)
        grad = grad.mul_(probs).scatter_add_(-1, inside, of_scores)
        return grad, None, None


def _log_total(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax [B, N], zero where all are barred, and logsumexp [B, 1], then ``_LOWEST``; one fused pass for both."""
    top = logits.amax(-1, keepdim=True)
    probs = logits.softmax(-1)
    none_left = top == -torch.inf
    if none_left.any():
        probs = probs.masked_fill(none_left, 0.0)
    return probs, (top - probs.amax(-1, keepdim=True).log()).masked_fill(none_left, _LOWEST)


def _normalisers(own: Tensor, rest: Tensor) -> Tensor:
    """logsumexp over the candidates left at each position, from the slate's scores and the others'. [B, L]."""
    later = torch.ones(own.shape[-1:] * 2, dtype=torch.bool, device=own.device).triu()  # [L, L]
    return torch.logaddexp(rest, own.unsqueeze(-2).masked_fill(~later, _LOWEST).logsumexp(-1))


def slate_log_prob(logits: Tensor, slates: Tensor) -> Tensor:
    """Log-probability of each position's item given those before it.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        slates: Item index at each position; -1 where the slate is shorter, at its end. int64 [B, L].

    Returns:
        float32 [B, L]. The sum over positions is the ordered slate's exact log-probability. An empty
        position has 0, an item that is no candidate -inf.
    """
    return slate_terms(logits, slates).log_prob


def slate_entropy(logits: Tensor, slates: Tensor) -> Tensor:
    """Rao-Blackwellised estimate of the slate distribution's entropy from one drawn slate.

    The sum of the positions' exact entropies given the drawn items before each: unbiased over slates drawn
    from ``logits``, and far less noisy than minus the log-probability.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        slates: Drawn slates. int64 [B, L].

    Returns:
        Nats. float32 [B].
    """
    return slate_terms(logits, slates).entropy


def slate_kl(logits: Tensor, reference_logits: Tensor, slates: Tensor) -> Tensor:
    """Rao-Blackwellised estimate of KL(policy, reference) between slate distributions, from one drawn slate.

    Args:
        logits: The policy's score of each item. float32 [B, N].
        reference_logits: The reference's, with the same candidates; without gradient. float32 [B, N].
        slates: Slates drawn from ``logits``. int64 [B, L].

    Returns:
        Nats, at least 0. float32 [B].
    """
    kl = slate_terms(logits, slates, reference_logits).kl
    assert kl is not None
    return kl


def sample_slates(logits: Tensor, length: int, generator: torch.Generator | None = None) -> Tensor:
    """Exact draws of ordered slates.

    Drawing with replacement and dropping repeats is Plackett-Luce. So a few draws a row by inverse CDF
    suffice nearly always; a row that lacks distinct items keeps what it drew, and the rest is drawn by
    Gumbel top-k among the items left.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        length: L, at most N.
        generator: Source of randomness on the logits' device; None takes torch's own.

    Returns:
        int64 [B, L]; -1 at the end of rows with fewer than L candidates.

    Raises:
        ValueError: The slate is longer than the catalogue.
    """
    num_items = logits.shape[-1]
    if length > num_items:
        raise ValueError(
            f"slate: expected at most {num_items} positions, one an item, got {length}. "
            f"Shorten the slate or add items."
        )
    draws = _categorical_draws(logits, _DRAWS_A_POSITION * length, generator)  # [B, M]
    repeats = (draws.unsqueeze(-1) == draws.unsqueeze(-2)).tril(-1).any(-1)  # [B, M]
    order = torch.arange(draws.shape[-1], device=draws.device) + repeats * draws.shape[-1]
    slates = draws.gather(-1, order.topk(length, largest=False).indices)  # [B, L]
    short = (~repeats).sum(-1) < length
    if short.any():
        slates[short] = _complete(logits[short], draws[short], repeats[short], length, generator)
    return slates


def best_slates(logits: Tensor, length: int) -> Tensor:
    """The likeliest slates: items of the highest scores, best first. int64 [B, L]; -1 beyond candidates."""
    best = logits.topk(length)
    return best.indices.masked_fill(best.values == -torch.inf, -1)


def _categorical_draws(logits: Tensor, num_draws: int, generator: torch.Generator | None) -> Tensor:
    cumulated = logits.softmax(-1).cumsum(-1)  # [B, N]
    total = cumulated[:, -1:]
    uniform = torch.rand(len(logits), num_draws, generator=generator, device=logits.device)
    below_total = torch.nextafter(total, torch.zeros_like(total))
    points = torch.minimum(uniform * total, below_total)  # an item of probability 0 is never hit
    return torch.searchsorted(cumulated, points, right=True)  # [B, M]


def _complete(
    logits: Tensor, draws: Tensor, repeats: Tensor, length: int, generator: torch.Generator | None
) -> Tensor:
    """Slates that begin with the distinct draws, in their order, and go on with Gumbel top-k."""
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    keys = logits - uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log().neg().log()  # [B, N]
    keys = keys.masked_fill(logits == -torch.inf, -torch.inf)
    rank = torch.arange(draws.shape[-1], device=draws.device, dtype=keys.dtype)
    prefix = (1e9 - rank * 1e6).expand_as(keys.new_empty(draws.shape)).masked_fill(repeats, -torch.inf)
    keys = keys.scatter_reduce(-1, draws, prefix, "amax")  # first occurrences outrank every Gumbel key
    return best_slates(keys, length)


def _finite(logits: Tensor) -> Tensor:
    """The logits, 0 where an item is no candidate: its probability is 0, its logit must not count."""
    if logits.numel() and logits.amin() > -torch.inf:
        return logits
    return logits.masked_fill(logits == -torch.inf, 0.0)
