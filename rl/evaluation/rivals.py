"""Simple policies that a learned one has to beat. Each returns scores of all items for a batch of states."""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from encoders.sessions import SPLITS, SessionLog
from encoders.state import States
from rl.evaluation.config import RivalsConfig
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import Scorer
from rl.tasks import Tasks


def random_scorer(num_items: int, seed: int) -> Scorer:
    """Uniform random scores, the same again for the same seed and order of calls."""
    rng = np.random.default_rng(seed)
    return lambda states, sessions: rng.random((len(states), num_items), dtype=np.float32)


def popularity(log: SessionLog, num_items: int, tasks: Tasks) -> NDArray[np.float32]:
    """Train behaviours of each item, weighted by task. Cost tasks count for nothing.

    Returns:
        float32 [N], >= 0.
    """
    return _popularity(log, np.flatnonzero(log.split == SPLITS.index("train")), num_items, tasks)


def recent_popularity(log: SessionLog, num_items: int, tasks: Tasks, share: float) -> NDArray[np.float32]:
    """As ``popularity``, over the latest ``share`` of all sessions before the test split. float32 [N]."""
    before = np.flatnonzero(log.split < SPLITS.index("test"))
    latest = before[len(before) - int(np.ceil(share * len(before))) :]
    return _popularity(log, latest, num_items, tasks)


def popular_scorer(scores: NDArray[np.float32]) -> Scorer:
    """The same scores [N] in every state."""
    return lambda states, sessions: np.broadcast_to(scores, (len(states), len(scores)))


def nearest_content_scorer(embeddings: NDArray[np.float32]) -> Scorer:
    """Cosine of an item's embedding with the mean of the session's items, or with the past where there is none.

    Args:
        embeddings: Language-model embeddings of the items. float32 [N, D].
    """
    items = unit(embeddings)

    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        history = states.history_items
        known = history >= 0  # [b, H]
        mean = np.zeros_like(states.past)  # [b, D]
        for step in range(history.shape[1]):  # one step at a time keeps memory at [b, D]
            mean += items[np.where(known[:, step], history[:, step], 0)] * known[:, step, None]
        query = np.where(known.any(axis=1, keepdims=True), mean, states.past)
        return np.asarray(unit(query) @ items.T, dtype=np.float32)  # [b, N]

    return score


def item_knn_scorer(pasts: UserPasts, num_items: int, num_neighbours: int) -> Scorer:
    """Item-to-item cosine over the train split's user-item matrix, from the user's earlier and this session's items.

    An item scores the sum of its similarities to the items of the query row.

    Source:
        Sarwar et al. 2001, "Item-based collaborative filtering"; the similarities are those of ``implicit``.
    """
    matrix = pasts.train_matrix(num_items)
    length = np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).reshape(-1), 1.0))  # [N], of the columns
    model = ItemItemRecommender(K=num_neighbours, num_threads=1)
    model.fit(sparse.csr_matrix(matrix.multiply(1 / length), dtype=np.float64), show_progress=False)
    similarity = sparse.csr_matrix(model.similarity, dtype=np.float32)  # [N, N]

    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        query = pasts.known_items(states, sessions, num_items)
        return np.asarray((query @ similarity).toarray(), dtype=np.float32)  # [b, N]

    return score


def als_scorer(pasts: UserPasts, num_items: int, config: RivalsConfig, seed: int) -> Scorer:
    """Matrix factorisation by weighted alternating least squares; the user's row is solved anew in each state.

    Source:
        Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets", as in ``implicit``.
    """
    with threadpool_limits(1, "blas"):  # many small systems: BLAS threads only get in each other's way
        model = AlternatingLeastSquares(
            factors=config.als_factors,
            regularization=config.als_regularization,
            alpha=config.als_alpha,
            iterations=config.als_iterations,
            random_state=seed,
            num_threads=1,
        )
        model.fit(pasts.train_matrix(num_items), show_progress=False)
    items = np.asarray(model.item_factors, dtype=np.float32)  # [N, F]

    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        known = pasts.known_items(states, sessions, num_items)
        with threadpool_limits(1, "blas"):
            users = model.recalculate_user(np.arange(len(states)), known)  # [b, F]
        return np.asarray(users @ items.T, dtype=np.float32)

    return score


def bpr_scorer(pasts: UserPasts, num_items: int, config: RivalsConfig, seed: int) -> Scorer:
    """Matrix factorisation by pairwise ranking. Users without train behaviours get the mean of their items' factors.

    Source:
        Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback", as in ``implicit``.
    """
    matrix = pasts.train_matrix(num_items)
    model = BayesianPersonalizedRanking(
        factors=config.bpr_factors,
        learning_rate=config.bpr_learning_rate,
        regularization=config.bpr_regularization,
        iterations=config.bpr_iterations,
        random_state=seed,
        num_threads=1,
    )
    model.fit(matrix, show_progress=False)
    items = np.asarray(model.item_factors, dtype=np.float32)  # [N, F + 1], the last column a bias
    users = np.asarray(model.user_factors, dtype=np.float32)  # [U, F + 1], the last column 1
    trained = np.diff(matrix.indptr) > 0  # [U]

    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        user = pasts.users[sessions]
        known = pasts.known_items(states, sessions, num_items)
        mean = (known @ items) / np.maximum(known.sum(axis=1), 1.0)
        mean = np.asarray(mean)
        mean[:, -1] = 1.0
        query = np.where(trained[user][:, None], users[user], mean)
        return np.asarray(query @ items.T, dtype=np.float32)

    return score


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; a zero vector stays zero. float32 [..., D]."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _popularity(
    log: SessionLog, sessions: NDArray[np.int64], num_items: int, tasks: Tasks
) -> NDArray[np.float32]:
    chosen = np.zeros(len(log), dtype=bool)
    chosen[sessions] = True
    rows = np.flatnonzero(np.repeat(chosen, np.diff(log.offsets)))
    gain = np.where(tasks.signs > 0, tasks.weights, 0.0)  # [K]
    counts = np.bincount(log.items[rows], weights=gain[log.tasks[rows]], minlength=num_items)
    return counts.astype(np.float32)
