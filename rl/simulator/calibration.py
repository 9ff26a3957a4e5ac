"""After a fit: mean predicted chances equal the rates on users not learned from, and sums keep to the log's range."""

import torch
from torch import Tensor

from rl.simulator.response_model import ResponseModel
from rl.simulator.steps import Steps

_LEAST_EDGE = 1e-3  # of running sums that the log never moved


@torch.no_grad()
def calibrate(model: ResponseModel, steps: Steps, past: Tensor) -> None:
    """Shift each level so that mean predicted chances equal the rates on users not learned from (in place)."""
    table = model.item_table()
    states = model.run(table, steps.items, steps.responses, steps.values, past)
    context = model.context(states, past[:, None].expand(-1, states.shape[1], -1))
    before, items = context[:, :-1][steps.known], steps.items[steps.known]
    responses, shown = steps.responses[steps.known], items >= 0
    scores = model.scores(before, *table, items)
    answered = responses.amax(-1)
    if model.shape.mode == "slate":
        logit = scores[..., 0] + model.positions(items.shape[1])
        model.level.bias[0] += _shift(logit[shown], answered[shown])
    for task, parent in enumerate(model.shape.parents):
        reached = (answered if parent < 0 else responses[..., parent]) > 0
        model.level.bias[1 + task] += _shift(scores[..., 1 + task][reached], responses[..., task][reached])
    after = context[:, 1:][steps.known]
    model.leave.bias.add_(_shift(model.leaving(after), steps.left[steps.known].float()))


def _shift(logit: Tensor, target: Tensor) -> Tensor:
    """The shift s at which mean sigmoid(logit + s) equals the mean target; 0 where the rate is 0 or 1."""
    rate = target.mean() if len(target) else logit.new_zeros(())
    if len(target) < 50 or rate <= 0 or rate >= 1:
        return logit.new_zeros(())
    low, high = logit.new_tensor(-5.0), logit.new_tensor(5.0)
    for _ in range(40):
        middle = (low + high) / 2
        above = torch.sigmoid(logit + middle).mean() > rate
        low, high = (low, middle) if above else (middle, high)
    return (low + high) / 2


@torch.no_grad()
def bound_sums(model: ResponseModel, steps: Steps, past: Tensor, reach: float) -> None:
    """Have learned sums and surprises beyond ``reach`` times the log's range go on by their logarithm (in place).

    A policy can drive a sum much further than the log ever did, where a linear reading of it promises anything; and a
    sum that stopped at the edge would promise nothing for going on, so that nobody learns to.

    Args:
        model: Fitted.
        steps: Logged sessions.
        past: Fixed features of their pasts. float32 [S, past_width + likeness_width].
        reach: Multiples of the sums' 1% and 99% quantiles, and of the 99% quantile of surprises' length.
    """
    states = model.run(model.item_table(), steps.items, steps.responses, steps.values, past)
    states = states[:, 1:][steps.known]
    edge = (len(states) - 1) // 100
    ranked = states[:, : len(model.least)].sort(0).values * reach
    model.least.copy_(ranked[edge].clamp_max(-_LEAST_EDGE))
    model.most.copy_(ranked[-1 - edge].clamp_min(_LEAST_EDGE))
    surprise = model.tastes.mean_surprise(states[:, len(model.least) :]).norm(dim=-1).sort(0).values * reach
    model.tastes.most.copy_(surprise[-1 - edge].clamp_min(_LEAST_EDGE))
