"""Why a policy shows what it shows: each item's odds with and without a part of what the policy knows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.state import States
from rl.policy.network import ItemKeys, SlatePolicy


@dataclass(frozen=True)
class Influence:
    """A part of the state that speaks for an item."""

    kind: Literal["history", "past", "item"]
    place: int  # of the item's last act in the history, oldest first; -1 for the others
    odds: float  # of the item, as many times what they are without it, against the catalogue's mean


@torch.no_grad()
def explain_slate(
    policy: SlatePolicy,
    states: States,
    slate: NDArray[np.int64],
    task_weights: NDArray[np.float32],
    mean_past: NDArray[np.float32],
    keys: ItemKeys | None = None,
) -> list[list[Influence]]:
    """What speaks for each item of a slate, the strongest first: items of the session, the past, the item itself.

    Each item of the history is left out in turn with all acts on it, the past is replaced by the average user's, and
    the item's own bias is held against the catalogue's. Exact for what the policy computes, and no claim on why users
    act.

    Args:
        policy: In evaluation mode.
        states: One state.
        slate: Item index. int64 [L].
        task_weights: float32 [K].
        mean_past: Average past embedding. float32 [D].
        keys: What ``item_keys`` gave, to spare the item tower.

    Returns:
        L lists of the influences above 1.
    """
    keys = policy.item_keys() if keys is None else keys
    items, tasks = states.history_items[0], states.history_tasks[0]
    last = {int(item): place for place, item in enumerate(items) if item >= 0}  # of each item
    count = len(last) + 2  # as it is, without each item, with the average past
    rows_items, rows_tasks = np.tile(items, (count, 1)), np.tile(tasks, (count, 1))
    for row, item in enumerate(last, start=1):
        order = np.argsort(items != item, kind="stable")  # the others stay in order and to the right
        gone = items[order] == item
        rows_items[row] = np.where(gone, -1, items[order])
        rows_tasks[row] = np.where(gone, -1, tasks[order])
    past = np.repeat(states.past, count, axis=0)
    past[-1] = mean_past
    weights = torch.from_numpy(task_weights).expand(count, -1)
    logits = policy.logits(
        torch.from_numpy(past), torch.from_numpy(rows_items), torch.from_numpy(rows_tasks), weights, keys=keys
    )
    centred = (logits - logits.mean(1, keepdim=True))[:, slate].double()  # [count, L]
    gains = (centred[0] - centred[1:]).numpy()  # [count - 1, L]
    bias = weights[:1] @ keys.biases.T
    own = (bias - bias.mean())[0, slate].double().numpy()  # [L]
    out = []
    for column in range(len(slate)):
        found = [
            Influence("history", place, float(np.exp(gains[row, column])))
            for row, place in enumerate(last.values())
        ]
        found.append(Influence("past", -1, float(np.exp(gains[-1, column]))))
        found.append(Influence("item", -1, float(np.exp(own[column]))))
        out.append(sorted((one for one in found if one.odds > 1), key=lambda one: -one.odds))
    return out
