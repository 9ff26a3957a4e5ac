"""Diversity and exposure limits at ranking time: a greedy slate that gives up no more than it says."""

from dataclasses import dataclass

import torch
from torch import Tensor

_REACH = 20  # times L: items further down could only come in at the price of nearly all worth


@dataclass(frozen=True)
class Reranked:
    """Slates and their price."""

    slates: Tensor  # int64 [B, L]
    limits_loss: Tensor  # [B] share of the best slates' worth that the limits cost
    diversity_loss: Tensor  # [B] share that diversity cost beyond; at most the allowed one


def rerank(
    worths: Tensor,
    vectors: Tensor,
    length: int,
    allowed_loss: float,
    groups: Tensor | None = None,
    group_limits: Tensor | None = None,
) -> Reranked:
    """Slates as diverse as the allowed loss lets them be, within each group's limit.

    Position by position, of the items that still leave the slate's worth above the bound when the rest is filled
    with the best that may be shown, the one least like those above is taken; ties go to the worthier one. So the
    bound holds for every slate: worth >= (1 - allowed_loss) * worth of the best slate within the limits.

    Args:
        worths: Worth of each item, at least 0, such as its chance to be shown first. float32 [B, N].
        vectors: Item vectors of length 1. float32 [N, D].
        length: L.
        allowed_loss: Share of the worth, in [0, 1).
        groups: Each item's limited group, -1 for none. int64 [N].
        group_limits: Largest share of a slate by group; ceil(limit * L) items. float32 [G].

    Raises:
        ValueError: The limits leave fewer than L items.
    """
    num_items = worths.shape[1]
    if groups is None or group_limits is None:
        groups, group_limits = torch.full((num_items,), -1), torch.zeros(0)
    room = (group_limits * length - 1e-6).ceil().long().tolist()
    ranked = worths.sort(-1, descending=True)
    slates, limits_loss, diversity_loss = [], [], []
    for row, order in enumerate(ranked.indices):
        shelf = _Shelf(order, ranked.values[row], groups, room, length)
        within = shelf.worth(shelf.fill([]))
        places = shelf.fill([])
        if allowed_loss > 0:
            places = _diversify(shelf, vectors, (1 - allowed_loss) * within)
        slates.append(order[places])
        free = shelf.worth(list(range(length)))
        scale = max(free, torch.finfo(worths.dtype).tiny)
        limits_loss.append((free - within) / scale)
        diversity_loss.append((within - shelf.worth(places)) / scale)
    return Reranked(torch.stack(slates), torch.tensor(limits_loss), torch.tensor(diversity_loss))


class _Shelf:
    """Items by worth, best first, and how many of each limited group a slate may hold; places count from the best."""

    def __init__(self, order: Tensor, worths: Tensor, groups: Tensor, room: list[int], length: int) -> None:
        self.length, self.room = length, room
        self.items = order
        self.worths: list[float] = worths.tolist()
        self.groups: list[int] = groups[order].tolist()

    def worth(self, places: list[int]) -> float:
        """Of the items at these places."""
        return sum(self.worths[place] for place in places)

    def fits(self, places: list[int]) -> bool:
        """Whether they keep the limits."""
        return all(
            sum(self.groups[place] == group for place in places) <= most
            for group, most in enumerate(self.room)
        )

    def fill(self, taken: list[int]) -> list[int]:
        """The places taken, and the best others within the limits."""
        chosen = list(taken)
        left = list(self.room)
        for place in taken:
            if self.groups[place] >= 0:
                left[self.groups[place]] -= 1
        for place, group in enumerate(self.groups):
            if len(chosen) == self.length:
                return chosen
            if place not in taken and (group < 0 or left[group] > 0):
                chosen.append(place)
                if group >= 0:
                    left[group] -= 1
        if len(chosen) < self.length:
            raise ValueError(
                f"rl.levers.exposure_limits: expected limits that leave {self.length} items for a slate, "
                f"got {len(chosen)}. Raise a limit or shorten the slate."
            )
        return chosen


def _diversify(shelf: _Shelf, vectors: Tensor, bound: float) -> list[int]:
    """Places whose worth is at least ``bound``, which the best fill reaches; the worthiest item comes first."""
    reach = min(len(shelf.worths), max(_REACH * shelf.length, max(shelf.fill([])) + 1))
    own = vectors[shelf.items[:reach]]
    likeness = (own @ own.T).tolist()
    taken = [0]
    closest = likeness[0]
    while len(taken) < shelf.length:
        for place in sorted(range(reach), key=lambda i: (round(closest[i], 6), i)):
            following = [*taken, place]
            if place in taken or not shelf.fits(following):
                continue
            if shelf.worth(shelf.fill(following)) >= bound - 1e-9:
                taken = following
                break
        closest = [max(pair) for pair in zip(closest, likeness[taken[-1]], strict=True)]
    return taken
