"""Greedy on the simulator as a ranker: in a logged state, the items of the highest expected reward."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.sessions import SessionLog
from encoders.state import States
from rl.simulator.simulation import Ensemble, Sessions
from rl.simulator.steps import build_steps, complete_funnel

_Steps = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # items [B, T, L], responses and values [B, T, L, K], steps known [B]
_Reader = Callable[[States, NDArray[np.int64]], _Steps]


def greedy_scorer(
    ensemble: Ensemble, log: SessionLog
) -> Callable[[States, NDArray[np.int64]], NDArray[np.float32]]:
    """Expected weighted reward of every item in states of the test sessions, at the configured task weights.

    In a log with slates, the members are led through the slates that the state's behaviours answer, ignored ones
    included; in one without, through the behaviours themselves. A state with a full history is read as if the
    session had begun with it.
    """
    slates = ensemble.members[0].shape.mode == "slate"
    read = _slate_reader(ensemble, log) if slates else _history_reader(ensemble)
    weights = torch.from_numpy(ensemble.tasks.weights)

    @torch.no_grad()
    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        items, responses, values, known = read(states, sessions)
        under_way = Sessions(ensemble, torch.from_numpy(states.past), torch.Generator())
        rows = torch.arange(len(known))
        under_way.place(
            [
                member.run(table, items, responses, values, under_way.past)[rows, known]
                for member, table in zip(ensemble.members, under_way.tables, strict=True)
            ]
        )
        worth: NDArray[np.float32] = under_way.shelf_rewards(weights.expand(len(rows), -1)).numpy()
        return worth

    return score


def _slate_reader(ensemble: Ensemble, log: SessionLog) -> _Reader:
    """Steps of the test sessions, known as far as all their responses lie within the state."""
    steps = build_steps(log, log.sessions("test"), ensemble.tasks.parents, ensemble.max_steps)
    row_of = np.full(len(log), -1)
    row_of[steps.session.numpy()] = np.arange(len(steps))
    answered = steps.responses.sum((2, 3)).cumsum(1)  # [S, T]; funnel-complete, so at least the behaviours

    def read(states: States, sessions: NDArray[np.int64]) -> _Steps:
        rows = torch.from_numpy(row_of[sessions])
        before = torch.from_numpy((states.history_items >= 0).sum(axis=1))
        inside = rows >= 0  # a session without a slate has no step
        rows = rows.clamp_min(0)
        done = steps.known[rows] & (answered[rows] <= before[:, None]) & inside[:, None]
        return steps.items[rows], steps.responses[rows], steps.values[rows], done.sum(1)

    return read


def _history_reader(ensemble: Ensemble) -> _Reader:
    """The history's distinct items in order of first touch, with what is known of each, as slates of one."""
    tasks, parents = len(ensemble.tasks), ensemble.tasks.parents
    scale = torch.tensor(ensemble.members[0].shape.value_scale)
    paid = torch.from_numpy(ensemble.tasks.pays_value)

    def read(states: States, sessions: NDArray[np.int64]) -> _Steps:
        items = states.history_items
        same = items[:, :, None] == items[:, None, :]  # [B, H, H]
        first = same.argmax(axis=2)  # [B, H] place of the item's first touch
        known = items >= 0
        fresh = known & (first == np.arange(items.shape[1]))
        step = np.cumsum(fresh, axis=1) - 1  # [B, H] step of each fresh place
        row, place = np.nonzero(known)
        at = step[row, first[row, place]]
        out = np.full(items.shape, -1)
        out[row, at] = items[row, place]
        responses = np.zeros((*items.shape, tasks), np.float32)
        responses[row, at, states.history_tasks[row, place]] = 1.0
        told = torch.from_numpy(complete_funnel(responses, parents))[:, :, None]  # [B, H, 1, K]
        values = told * torch.where(paid, scale, torch.zeros(()))
        return torch.from_numpy(out)[..., None], told, values, torch.from_numpy(fresh.sum(axis=1))

    return read
