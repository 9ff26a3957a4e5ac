"""The rivals of a run: fitted on its log, to be ranked and to be played."""

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import SessionLog
from encoders.state import States
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, load_simulator
from pipelines.players import policy_scores
from pipelines.progress import track
from rl.evaluation.bandit_rival import bandit_scorer
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import Scorer
from rl.evaluation.rivals import (
    als_scorer,
    bpr_scorer,
    item_knn_scorer,
    nearest_content_scorer,
    popular_scorer,
    popularity,
    random_scorer,
    recent_popularity,
)
from rl.evaluation.sasrec import sasrec_scorer
from rl.greedy import greedy_scorer
from rl.tasks import Tasks

logger = logging.getLogger(__name__)


def make_scorers(
    run: RunDirectory, config: Config, log: SessionLog, pasts: UserPasts, tasks: Tasks
) -> dict[str, Scorer]:
    """Every rival and learned policy by name, simple ones first. The bandit is left out of a log without slates."""
    embeddings = cached_item_embeddings(run.uri)
    num_items, settings, seed = len(embeddings), config.rl.evaluation.rivals, config.seed
    recent = recent_popularity(log, num_items, tasks, settings.recent_share)
    makers: dict[str, Callable[[], Scorer | None]] = {
        "random": lambda: random_scorer(num_items, seed),
        "popular": lambda: popular_scorer(popularity(log, num_items, tasks)),
        "recently_popular": lambda: popular_scorer(recent),
        "nearest_content": lambda: nearest_content_scorer(embeddings),
        "item_knn": lambda: item_knn_scorer(pasts, num_items, settings.num_neighbours),
        "als": lambda: als_scorer(pasts, num_items, settings, seed),
        "bpr": lambda: bpr_scorer(pasts, num_items, settings, seed),
        "sasrec": lambda: sasrec_scorer(log, pasts, num_items, settings, seed),
        "bandit": lambda: bandit_scorer(log, embeddings, tasks),
        "greedy": lambda: greedy_scorer(load_simulator(run, config, "train"), log),
    }
    scorers = {}
    for name, make in track(makers.items(), total=len(makers), what="fitting rivals"):
        started = time.monotonic()
        scorer = make()
        logger.debug("evaluate: fitted %s in %.1f s", name, time.monotonic() - started)
        if scorer is not None:
            scorers[name] = scorer
    return scorers | {name: _of_states(score) for name, score in policy_scores(run, config).items()}


def _of_states(score: Callable[[States], NDArray[np.float32]]) -> Scorer:
    return lambda states, sessions: score(states)
