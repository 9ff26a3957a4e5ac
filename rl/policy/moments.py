"""Mean and variance over a batch, and over all learners where there are several."""

import torch
from torch import Tensor, distributed


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the first axis, across learners. Each the shape of one row.

    Args:
        values: float32 [M, ...].
    """
    count = values.new_tensor(float(len(values)))
    mean = average(values.mean(0), count)
    variance = average((values - mean).square().mean(0), count)
    return mean, variance


def average(value: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean of a value over the learners, weighted by their row counts; the value itself with one learner."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return value
    count = value.new_ones(()) if count is None else count
    total = torch.cat([(value * count).flatten(), count.reshape(1)])
    distributed.all_reduce(total)
    return (total[:-1] / total[-1]).reshape(value.shape)
