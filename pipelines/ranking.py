"""The ranking part of ``evaluate``: every policy on the test sessions, in the report's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from encoders.columns import ITEM_GROUP
from encoders.sessions import SessionLog
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import CATEGORY, cached_item_embeddings, item_column
from pipelines.progress import track
from rl.evaluation.comparisons import comparison_table
from rl.evaluation.intervals import Bootstrap, Estimate
from rl.evaluation.lists import Catalogue, build_catalogue, list_table
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import (
    JudgedStates,
    RankingScores,
    Scorer,
    ranking_states,
    ranking_table,
    score_ranking,
)
from rl.evaluation.segments import build_segments, overall_quality, segment_table
from rl.tasks import Tasks

LEARNED = ("clone",)  # beside the candidate: no rival of its own kind


@dataclass(frozen=True)
class Ranking:
    """What was measured, and the parts of the report that it makes."""

    judged: JudgedStates
    scores: dict[str, RankingScores]
    catalogue: Catalogue
    parts: dict[str, Any]  # ranking, overall, comparisons, lists, segments


def rank_policies(
    run: RunDirectory,
    config: Config,
    log: SessionLog,
    items: pa.Table,
    pasts: UserPasts,
    scorers: Mapping[str, Scorer],
    candidate: str,
    tasks: Tasks,
) -> Ranking:
    """Rank the test sessions' items by each policy."""
    settings, num_items = config.rl.evaluation, items.num_rows
    judged = ranking_states(log, len(tasks), config.rl.history_length, settings.max_states)
    scores = {
        name: score_ranking(judged, scorer, num_items, settings.k, settings.batch_scores, name)
        for name, scorer in track(scorers.items(), total=len(scorers), what="ranking")
    }
    embeddings = cached_item_embeddings(run.uri)
    catalogue = build_catalogue(log, embeddings, item_column(items, CATEGORY), item_column(items, ITEM_GROUP))
    bootstrap = Bootstrap(settings.num_bootstrap, settings.confidence, config.seed)
    overall = overall_quality(scores, judged, tasks, bootstrap)
    parts: dict[str, Any] = {
        "ranking": ranking_table(scores, judged, tasks.names, settings.k, bootstrap),
        "overall": [{"name": name, "ndcg": estimate.to_json()} for name, estimate in overall.items()],
        "comparisons": comparison_table(scores, judged, tasks.names, settings.confidence),
        "lists": list_table(scores, judged, catalogue, pasts, bootstrap),
        "segments": {"candidate": candidate, "reference": None, "rows": []},
    }
    reference = best_rival(overall, candidate)
    if reference is not None:
        segments = build_segments(judged, catalogue, pasts)
        rows = segment_table(scores, judged, segments, tasks, (candidate, reference), bootstrap)
        parts["segments"] = {"candidate": candidate, "reference": reference, "rows": rows}
    return Ranking(judged, scores, catalogue, parts)


def best_rival(overall: Mapping[str, Estimate], candidate: str) -> str | None:
    """The policy other than candidate and clone of the highest overall NDCG; None where there is none."""
    rivals = [name for name in overall if name not in (candidate, *LEARNED)]
    return max(rivals, key=lambda name: overall[name].mean) if rivals and candidate in overall else None
