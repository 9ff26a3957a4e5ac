"""Calibration: mean predicted chances equal the rates on users not learned from."""

import torch
from torch import Tensor

from rl.simulator.response_model import ResponseModel
from rl.simulator.steps import Steps


@torch.no_grad()
def calibrate(model: ResponseModel, steps: Steps, past: Tensor) -> None:
    """Shift each level so that mean predicted chances equal the rates on users not learned from (in place)."""
    vectors, biases = model.item_table()
    states = model.run(vectors, steps.items, steps.responses, steps.values)
    context = model.context(states, past[:, None].expand(-1, states.shape[1], -1))
    before, items = context[:, :-1][steps.known], steps.items[steps.known]
    responses, shown = steps.responses[steps.known], items >= 0
    scores = model.scores(before, vectors, biases, items)
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
