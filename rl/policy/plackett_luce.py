"""Plackett-Luce: ordered slates drawn item by item, without replacement, in proportion to exp(score).

A candidate's logit is finite; an item that may not be shown has -inf. Position j draws from the softmax over
the candidates that stand in no earlier position. One masked logsumexp over all N items, and a running one
over the slate's own L scores, give the normalisers of all positions at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_DRAWS_A_POSITION = 5  # draws beyond these are rarely needed; short rows are completed exactly


@dataclass(frozen=True)
class Conditionals:
    """The L categorical distributions that a slate was drawn from, one a position, given those before it."""

    slates: Tensor  # int64 [B, L], -1 where empty
    scores: Tensor  # [B, L] logit of the item at each position, -inf where empty
    log_normalisers: Tensor  # [B, L] logsumexp over the candidates left at each position
    rest_probs: Tensor  # [B, N] softmax over the candidates in no position
    rest_share: Tensor  # [B, L] probability, at each position, of an item in no position

    def log_prob(self) -> Tensor:
        """Log-probability of each position's item given those before it; 0 where empty. [B, L]."""
        barred = self.scores == -torch.inf
        log_prob = (self.scores - self.log_normalisers).masked_fill(barred, -torch.inf)
        return log_prob.masked_fill(self.slates < 0, 0.0)

    def expectation(self, values: Tensor) -> Tensor:
        """Mean, under each position's conditional, of a finite value of each item [B, N]. [B, L]."""
        own = values.gather(-1, _inside(self.slates))  # [B, L]
        barred = (self.scores == -torch.inf).unsqueeze(-2)  # [B, 1, L]
        weights = (self.scores.unsqueeze(-2) - self.log_normalisers.unsqueeze(-1)).masked_fill(
            barred, -torch.inf
        )
        probs = weights.exp().triu()  # [B, L, L]: the later item (last axis) seen from each position
        rest = (self.rest_probs * values).sum(-1, keepdim=True)  # [B, 1]
        mean = (probs * own.unsqueeze(-2)).sum(-1) + self.rest_share * rest
        return mean.masked_fill(self.slates < 0, 0.0)


def conditionals(logits: Tensor, slates: Tensor) -> Conditionals:
    """The distributions behind each position of a slate.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        slates: Item index at each position; -1 where the slate is shorter, at its end. int64 [B, L].

    Source:
        Plackett 1975, "The analysis of permutations".
    """
    empty = slates < 0
    inside = _inside(slates)
    scores = logits.gather(-1, inside).masked_fill(empty, -torch.inf)  # [B, L]
    rest = logits.scatter(-1, inside, -torch.inf)  # [B, N]
    rest_normaliser = _log_sum_exp(rest)  # [B, 1]
    later = torch.ones(slates.shape[-1:] * 2, dtype=torch.bool, device=logits.device).triu()  # [L, L]
    own_normaliser = _log_sum_exp(scores.unsqueeze(-2).masked_fill(~later, -torch.inf)).squeeze(-1)  # [B, L]
    log_normalisers = torch.logaddexp(rest_normaliser, own_normaliser)
    finite = rest_normaliser.masked_fill(rest_normaliser == -torch.inf, 0.0)
    filled = log_normalisers.masked_fill(log_normalisers == -torch.inf, 0.0)
    return Conditionals(
        slates=slates,
        scores=scores,
        log_normalisers=filled,
        rest_probs=(rest - finite).exp(),
        rest_share=(rest_normaliser - filled).exp(),
    )


def slate_log_prob(logits: Tensor, slates: Tensor) -> Tensor:
    """Log-probability of each position's item given those before it.

    Args:
        logits: Score of each item, -inf for one that is no candidate. float32 [B, N].
        slates: Item index at each position; -1 where the slate is shorter, at its end. int64 [B, L].

    Returns:
        float32 [B, L]. The sum over positions is the ordered slate's exact log-probability. An empty
        position has 0, an item that is no candidate -inf.
    """
    return conditionals(logits, slates).log_prob()


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
    return entropy_along(conditionals(logits, slates), logits)


def slate_kl(logits: Tensor, reference_logits: Tensor, slates: Tensor) -> Tensor:
    """Rao-Blackwellised estimate of KL(policy, reference) between slate distributions, from one drawn slate.

    Args:
        logits: The policy's score of each item. float32 [B, N].
        reference_logits: The reference's, with the same candidates. float32 [B, N].
        slates: Slates drawn from ``logits``. int64 [B, L].

    Returns:
        Nats, at least 0. float32 [B].
    """
    return kl_along(conditionals(logits, slates), logits, reference_logits)


def entropy_along(terms: Conditionals, logits: Tensor) -> Tensor:
    """``slate_entropy`` from conditionals that were computed before. [B]."""
    mean = terms.expectation(_finite(logits))  # [B, L]
    return (terms.log_normalisers - mean).masked_fill(terms.slates < 0, 0.0).sum(-1)


def kl_along(terms: Conditionals, logits: Tensor, reference_logits: Tensor) -> Tensor:
    """``slate_kl`` from conditionals that were computed before. [B]."""
    reference = conditionals(reference_logits, terms.slates)
    surplus = terms.expectation(_finite(logits) - _finite(reference_logits))  # [B, L]
    kl = surplus - terms.log_normalisers + reference.log_normalisers
    return kl.masked_fill(terms.slates < 0, 0.0).sum(-1)


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


def _inside(slates: Tensor) -> Tensor:
    """Indices that are safe to gather: an empty position repeats the slate's first item."""
    return torch.where(slates < 0, slates[..., :1], slates).clamp_min(0)


def _finite(logits: Tensor) -> Tensor:
    return logits.masked_fill(logits == -torch.inf, 0.0)


def _log_sum_exp(values: Tensor) -> Tensor:
    """logsumexp over the last axis, kept; -inf with gradient 0 where all are -inf."""
    barred = (values == -torch.inf).all(-1, keepdim=True)
    return values.masked_fill(barred, 0.0).logsumexp(-1, keepdim=True).masked_fill(barred, -torch.inf)
