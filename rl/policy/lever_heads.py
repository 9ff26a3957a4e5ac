"""Heads of the levers: added to a policy for training, and folded into its tasks' heads afterwards.

Scores are a sum over tasks, weights times heads, and tasks' weights sum to 1. So a lever's head, times its fixed
weight, can be added to every task's: the policy that serves has the tasks it always had.
"""

import torch
from torch import Tensor

from rl.policy.network import DECAYS, PolicyShape

State = dict[str, Tensor]


def widen(state: State, shape: PolicyShape, num_levers: int) -> tuple[State, PolicyShape]:
    """Weights and shape with heads for the levers, all 0: the policy chooses as before."""
    wide = shape.model_copy(update={"num_tasks": shape.num_tasks + num_levers})
    out = dict(state)
    rows = num_levers * shape.key_width
    out["query.weight"] = _more(state["query.weight"], 0, rows)
    out["query.bias"] = _more(state["query.bias"], 0, rows)
    out["text_bias.weight"] = _more(state["text_bias.weight"], 0, num_levers)
    out["text_bias.bias"] = _more(state["text_bias.bias"], 0, num_levers)
    out["id_bias"] = _more(state["id_bias"], 1, num_levers)
    out["follow_share"] = _more(state["follow_share"], 0, num_levers)
    sums = len(DECAYS) * (shape.history_width + 1)  # columns a task; no behaviour is ever of a lever
    old = state["trunk.0.weight"]
    known, rest = old[:, : shape.num_tasks * sums], old[:, shape.num_tasks * sums :]
    out["trunk.0.weight"] = torch.cat([_more(known, 1, num_levers * sums), rest], 1)
    return out, wide


def fold(state: State, shape: PolicyShape, lever_weights: Tensor) -> State:
    """Weights of a policy of ``shape``, from those of its widened form.

    Args:
        state: Of the widened policy.
        shape: Without the levers.
        lever_weights: Their weights in training. float32 [J].
    """
    tasks, width = shape.num_tasks, shape.key_width
    out = dict(state)
    query = state["query.weight"].view(-1, width, state["query.weight"].shape[1])  # [K + J, W, hidden]
    out["query.weight"] = _folded(query, tasks, lever_weights).flatten(0, 1)
    out["query.bias"] = _folded(state["query.bias"].view(-1, width), tasks, lever_weights).flatten()
    out["text_bias.weight"] = _folded(state["text_bias.weight"], tasks, lever_weights)
    out["text_bias.bias"] = _folded(state["text_bias.bias"], tasks, lever_weights)
    out["id_bias"] = _folded(state["id_bias"].T, tasks, lever_weights).T.contiguous()
    out["follow_share"] = _folded(state["follow_share"], tasks, lever_weights)
    sums = len(DECAYS) * (shape.history_width + 1)
    old = state["trunk.0.weight"]
    levers = len(lever_weights) * sums
    out["trunk.0.weight"] = torch.cat([old[:, : tasks * sums], old[:, tasks * sums + levers :]], 1)
    return out


def _more(values: Tensor, axis: int, count: int) -> Tensor:
    size = list(values.shape)
    size[axis] = count
    return torch.cat([values, values.new_zeros(size)], axis)


def _folded(heads: Tensor, num_tasks: int, lever_weights: Tensor) -> Tensor:
    """Each task's head plus the levers' at their weights, heads along the first axis."""
    shared = torch.einsum("j,j...->...", lever_weights.to(heads), heads[num_tasks:])
    return heads[:num_tasks] + shared
