"""Logged sessions as padded tensors of steps: what the response model is fitted on."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.sessions import SessionLog


@dataclass(frozen=True)
class Steps:
    """S sessions of up to T steps. A step is a slate, or, in a log without slates, one item acted on (L = 1)."""

    session: Tensor  # int64 [S], index in the session log
    items: Tensor  # int64 [S, T, L], -1 where empty
    responses: Tensor  # float32 [S, T, L, K], 0 or 1, children only with their parents
    values: Tensor  # float32 [S, T, L, K]
    known: Tensor  # bool [S, T], the step exists
    left: Tensor  # bool [S, T], the session ended after it; never set where the session was cut

    def __len__(self) -> int:
        return len(self.session)

    def rows(self, index: Tensor) -> "Steps":
        """The sessions at these rows, cut to the longest of them."""
        length = max(1, int(self.known[index].any(0).sum()))
        parts = (x[index, :length] for x in (self.items, self.responses, self.values, self.known, self.left))
        return Steps(self.session[index], *parts)


def complete_funnel(responses: NDArray[np.float32], parents: tuple[int, ...]) -> NDArray[np.float32]:
    """Responses as 0 or 1, a child implying its parents. float32 [..., K]."""
    out = (responses > 0).astype(np.float32)
    for child in range(len(parents) - 1, -1, -1):  # children come after their parents
        if parents[child] >= 0:
            out[..., parents[child]] = np.maximum(out[..., parents[child]], out[..., child])
    return out


def build_steps(
    log: SessionLog, sessions: NDArray[np.int64], parents: tuple[int, ...], max_steps: int
) -> Steps:
    """Steps of the given sessions; those without any are left out.

    Args:
        log: All sessions.
        sessions: Indices of those wanted. int64 [n].
        parents: Parent of each task, -1 for none. [K].
        max_steps: T at most; what follows is cut and counts as not having left.

    Raises:
        ValueError: None of the sessions has a step.
    """
    if log.slates is None:
        session, items, responses, values = _acted_items(log, len(parents))
    else:
        slates = log.slates
        session, items, responses, values = slates.session, slates.items, slates.responses, slates.values
    wanted = np.zeros(len(log), dtype=bool)
    wanted[sessions] = True
    keep = wanted[session]
    session, items, responses, values = session[keep], items[keep], responses[keep], values[keep]
    if not len(session):
        raise ValueError(
            "fit-simulator: expected sessions with behaviours to learn from, got none in this split."
        )
    chosen, row, counts = np.unique(session, return_inverse=True, return_counts=True)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    step = np.arange(len(session)) - first[row]
    inside = step < max_steps
    shape = (len(chosen), int(min(max_steps, counts.max())))
    place = (row[inside], step[inside])

    def padded(source: NDArray[np.generic], fill: float) -> Tensor:
        out = np.full((*shape, *source.shape[1:]), fill, dtype=source.dtype)
        out[place] = source[inside]
        return torch.from_numpy(out)

    known = padded(np.ones(len(session), dtype=bool), False)
    last = (step == counts[row] - 1) & (counts[row] < max_steps)
    return Steps(
        session=torch.from_numpy(chosen.astype(np.int64)),
        items=padded(items, -1),
        responses=padded(complete_funnel(responses, parents), 0.0),
        values=padded(values, 0.0),
        known=known,
        left=padded(last, False),
    )


def _acted_items(
    log: SessionLog, num_tasks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Each session's distinct items in order of first touch, with all that the session did to them, as L = 1."""
    session = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    wide = session * (int(log.items.max(initial=0)) + 1) + log.items
    _, first, inverse = np.unique(wide, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    responses = np.zeros((len(first), 1, num_tasks), dtype=np.float32)
    values = np.zeros_like(responses)
    place = (rank[inverse], np.zeros_like(log.tasks), log.tasks)
    np.add.at(responses, place, 1.0)
    np.add.at(values, place, log.values)
    first = first[order]
    return session[first].astype(np.int64), log.items[first][:, None], responses, values
