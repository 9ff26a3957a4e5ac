"""Values of slates made of values of items, after SlateQ: what a slate is worth is the state's worth and its items'.

An item's part is its logit, centred over the catalogue (dueling) and scaled to units of reward. So the network that
values items is the policy itself: the best slate holds the best logits, and slates drawn by them are Boltzmann's.
"""

import torch
from torch import Tensor

from rl.policy.network import SlatePolicy


def item_values(
    policy: SlatePolicy, past: Tensor, history_items: Tensor, history_tasks: Tensor, slates: Tensor
) -> Tensor:
    """Sum over a slate's items of each task's centred logit. float32 [M, K].

    Args:
        policy: Whose logits.
        past: float32 [M, D].
        history_items: int64 [M, H].
        history_tasks: int64 [M, H].
        slates: int64 [M, L], no place empty.
    """
    met, places = _together(policy.shape.num_items, history_items, slates)
    keys = policy.item_keys(met)
    history, shown = places
    queries = policy.queries(past, history, history_tasks, keys)  # [M, K, W]
    match = torch.einsum("mkw,mlw->mk", queries, keys.keys[shown]) + keys.biases[shown].sum(1)
    mean_key, mean_bias = policy.mean_keys()
    mean = queries @ mean_key + mean_bias  # [M, K]
    return match - slates.shape[1] * mean


def _together(num_items: int, history_items: Tensor, slates: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Items in either, ascending, and both as places among them; -1 stays."""
    seen = torch.zeros(num_items + 1, dtype=torch.bool, device=slates.device)
    seen[history_items] = True  # -1, an empty place, marks the last
    seen[slates] = True
    items = seen[:-1].nonzero()[:, 0]
    place = torch.full((num_items + 1,), -1, dtype=torch.int64, device=slates.device)
    place[items] = torch.arange(len(items), device=slates.device)
    return items, (place[history_items], place[slates])


def temporal_difference_targets(
    rewards: Tensor, ended: Tensor, next_values: Tensor, discount: float
) -> Tensor:
    """What a slate turned out to be worth: its reward, and the worth of the next state's best slate.

    Args:
        rewards: float32 [M, K].
        ended: Whether the session ended with the slate. bool [M].
        next_values: Of the slate that the learning network thinks best, by the network kept for targets
            (double). float32 [M, K].
        discount: In (0, 1].

    Returns:
        float32 [M, K].

    Source:
        van Hasselt et al. 2016, arXiv:1509.06461; for slates Ie et al. 2019, arXiv:1905.12767.
    """
    return rewards + discount * (~ended).to(rewards.dtype).unsqueeze(-1) * next_values
