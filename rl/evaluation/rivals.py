"""Simple policies that a learned one has to beat. Each returns scores of all items for a batch of judged states."""

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy import sparse

from encoders.sessions import SPLITS, SessionLog
from rl.evaluation.ranking import JudgedStates, Scorer
from rl.tasks import Tasks


def random_scorer(num_items: int, seed: int) -> Scorer:
    """Uniform random scores, the same again for the same seed and order of calls."""
    rng = np.random.default_rng(seed)
    return lambda judged: rng.random((len(judged), num_items), dtype=np.float32)


def popularity(log: SessionLog, num_items: int, tasks: Tasks) -> NDArray[np.float32]:
    """Train behaviours of each item, weighted by task. Cost tasks count for nothing.

    Returns:
        float32 [N], >= 0.
    """
    rows = _train_rows(log)
    gain = np.where(tasks.signs > 0, tasks.weights, 0.0)  # [K]
    counts = np.bincount(log.items[rows], weights=gain[log.tasks[rows]], minlength=num_items)
    return counts.astype(np.float32)


def popular_scorer(scores: NDArray[np.float32]) -> Scorer:
    """The same scores [N] in every state."""
    return lambda judged: np.broadcast_to(scores, (len(judged), len(scores)))


def nearest_content_scorer(embeddings: NDArray[np.float32]) -> Scorer:
    """Cosine of an item's embedding with the mean of the session's items, or with the past where there is none.

    Args:
        embeddings: Language-model embeddings of the items. float32 [N, D].
    """
    items = _unit(embeddings)

    def score(judged: JudgedStates) -> NDArray[np.float32]:
        history = judged.states.history_items
        known = history >= 0  # [b, H]
        mean = np.zeros_like(judged.states.past)  # [b, D]
        for step in range(history.shape[1]):  # one step at a time keeps memory at [b, D]
            mean += items[np.where(known[:, step], history[:, step], 0)] * known[:, step, None]
        query = np.where(known.any(axis=1, keepdims=True), mean, judged.states.past)
        return np.asarray(_unit(query) @ items.T, dtype=np.float32)  # [b, N]

    return score


def item_knn_scorer(log: SessionLog, num_items: int, tasks: Tasks, num_neighbours: int) -> Scorer:
    """Item-to-item cosine over the train split's user-item matrix, from the user's earlier and this session's items.

    An item scores the sum of its similarities to the items of the query row. Behaviours of cost tasks are left out
    of the matrix and of the row.

    Source:
        Sarwar et al. 2001, "Item-based collaborative filtering"; the similarities are those of ``implicit``.
    """
    wanted = tasks.signs > 0  # [K]
    _, users = np.unique(np.asarray(log.user_ids), return_inverse=True)  # [S]
    sessions = np.repeat(np.arange(len(log)), np.diff(log.offsets))  # [M]
    train = _train_rows(log)
    train = train[wanted[log.tasks[train]]]
    matrix = _binary(users[sessions[train]], log.items[train], (int(users.max(initial=-1)) + 1, num_items))
    length = np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).reshape(-1), 1.0))  # [N], of the columns
    model = ItemItemRecommender(K=num_neighbours, num_threads=1)
    model.fit(sparse.csr_matrix(matrix.multiply(1 / length), dtype=np.float64), show_progress=False)
    similarity = sparse.csr_matrix(model.similarity, dtype=np.float32)  # [N, N]

    kept = np.flatnonzero(wanted[log.tasks])
    order = np.lexsort((sessions[kept], users[sessions[kept]]))  # by user, then session
    past_items = log.items[kept][order]
    place = users[sessions[kept]][order] * (len(log) + 1) + sessions[kept][order]  # ascending

    def score(judged: JudgedStates) -> NDArray[np.float32]:
        user = users[judged.sessions] * (len(log) + 1)
        start, end = np.searchsorted(place, user), np.searchsorted(place, user + judged.sessions)
        past_row = np.repeat(np.arange(len(judged)), end - start)
        past = past_items[_ranges(start, end)]
        history, history_tasks = judged.states.history_items, judged.states.history_tasks
        row, column = np.nonzero((history >= 0) & wanted[np.maximum(history_tasks, 0)])
        query = _binary(
            np.concatenate([past_row, row]),
            np.concatenate([past, history[row, column]]),
            (len(judged), num_items),
        )
        return np.asarray((query @ similarity).toarray(), dtype=np.float32)  # [b, N]

    return score


def _train_rows(log: SessionLog) -> NDArray[np.int64]:
    split = np.repeat(log.split, np.diff(log.offsets))  # [M]
    return np.flatnonzero(split == SPLITS.index("train"))


def _binary(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.data[:] = 1.0  # repeated pairs were summed
    return matrix


def _ranges(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """All numbers of the half-open ranges, one after the other."""
    lengths = end - start
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(start - before, lengths))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
