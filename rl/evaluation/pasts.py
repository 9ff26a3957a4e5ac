"""What each user did before a session: the input of the rivals that recommend from items alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoders.sessions import SPLITS, SessionLog
from encoders.state import States
from rl.tasks import Tasks


@dataclass(frozen=True)
class UserPasts:
    """Wanted behaviours of every user in order of time. Behaviours of cost tasks are left out throughout."""

    users: NDArray[np.int64]  # [S] user number of each session
    wanted: NDArray[np.bool_]  # [K]
    items: NDArray[np.int64]  # [E] by user, then session, then time
    sessions: NDArray[np.int64]  # [E]
    in_train: NDArray[np.bool_]  # [E] of the train split
    place: NDArray[np.int64]  # [E] user * (S + 1) + session, ascending

    @property
    def num_users(self) -> int:
        """U, of all splits."""
        return int(self.users.max(initial=-1)) + 1

    def train_matrix(self, num_items: int) -> sparse.csr_matrix:
        """Which user acted on which item in the train split. float32 [U, N], 0 or 1."""
        kept = np.flatnonzero(self.in_train)
        return _binary(self.users[self.sessions[kept]], self.items[kept], (self.num_users, num_items))

    def known_items(self, states: States, sessions: NDArray[np.int64], num_items: int) -> sparse.csr_matrix:
        """Items of the user's earlier sessions and of this one so far. float32 [B, N], 0 or 1."""
        start, end = self._earlier(sessions)
        past_row = np.repeat(np.arange(len(sessions)), end - start)
        history = self._wanted_history(states)
        row, column = np.nonzero(history >= 0)
        rows, items = np.concatenate([past_row, row]), [self.items[_ranges(start, end)], history[row, column]]
        return _binary(rows, np.concatenate(items), (len(sessions), num_items))

    def sequences(self, states: States, sessions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The latest items, this session's last, repeats in a row once; -1 on the left. int64 [B, length]."""
        start, end = self._earlier(sessions)
        first = np.maximum(start, end - 2 * length)  # twice as many, as repeats will go
        column = first[:, None] + np.arange(2 * length)  # [B, 2 * length]
        inside = column < end[:, None]
        past = np.full(column.shape, -1)
        past[inside] = self.items[column[inside]]
        return left_padded(np.concatenate([past, self._wanted_history(states)], axis=1), length)

    def counts_before(self, sessions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Wanted behaviours of the user before these sessions. int64 [B]."""
        start, end = self._earlier(sessions)
        return end - start

    def _earlier(self, sessions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in ``items`` the user's earlier sessions begin and end. Two int64 [B]."""
        user = self.users[sessions] * (len(self.users) + 1)
        return np.searchsorted(self.place, user), np.searchsorted(self.place, user + sessions)

    def _wanted_history(self, states: States) -> NDArray[np.int64]:
        wanted = self.wanted[np.maximum(states.history_tasks, 0)] & (states.history_items >= 0)
        return np.where(wanted, states.history_items, -1)


def user_pasts(log: SessionLog, tasks: Tasks) -> UserPasts:
    """The pasts of a log's users."""
    wanted = tasks.signs > 0  # [K]
    _, users = np.unique(np.asarray(log.user_ids), return_inverse=True)  # [S]
    sessions = np.repeat(np.arange(len(log)), np.diff(log.offsets))  # [M]
    kept = np.flatnonzero(wanted[log.tasks])
    kept = kept[np.lexsort((sessions[kept], users[sessions[kept]]))]  # stable: time order stays
    session = sessions[kept]
    in_train = log.split[session] == SPLITS.index("train")
    place = users[session] * (len(log) + 1) + session
    return UserPasts(users.astype(np.int64), wanted, log.items[kept], session, in_train, place)


def left_padded(items: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Each row's entries, -1 and repeats in a row left out, moved to the right. [B, C] gives int64 [B, length]."""
    order = np.argsort(items >= 0, axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    repeat = np.zeros(items.shape, dtype=bool)
    repeat[:, 1:] = items[:, 1:] == items[:, :-1]
    items = np.where(repeat, -1, items)
    order = np.argsort(items >= 0, axis=1, kind="stable")[:, -length:]
    items = np.take_along_axis(items, order, axis=1)
    short = length - items.shape[1]
    return np.pad(items, ((0, 0), (max(short, 0), 0)), constant_values=-1)


def _binary(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.data[:] = 1.0  # repeated pairs were summed
    return matrix


def _ranges(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """All numbers of the half-open ranges, one after the other."""
    lengths = end - start
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(start - before, lengths))
