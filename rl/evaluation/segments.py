"""Slices of the judged states: cold items and users, item groups, categories; where a policy loses most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl.evaluation.comparisons import holm, paired_tests
from rl.evaluation.intervals import Bootstrap, Estimate, bootstrap_intervals, group_sums
from rl.evaluation.lists import Catalogue
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import JudgedStates, RankingScores
from rl.tasks import Tasks

MIN_STATES = 30  # a slice with fewer says nothing
MAX_NAMES = 12  # categories looked at, the largest
USER_STEPS = (
    (0, 0, "new: no earlier behaviour"),
    (1, 10, "1 to 10 earlier behaviours"),
    (11, 50, "11 to 50"),
)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """Some of the judged states, and the items that the slice is about where it is one of items."""

    kind: str
    name: str
    rows: NDArray[np.bool_]  # [B]
    items: NDArray[np.bool_] | None = None  # [N]


def state_worth(judged: JudgedStates, tasks: Tasks) -> Floats:
    """Weight of each judged state in an overall figure: the summed weights of the wanted tasks that fire. [B]."""
    return np.asarray(judged.labels @ np.where(tasks.signs > 0, tasks.weights, 0.0).astype(np.float64))


def overall_quality(
    scores: Mapping[str, RankingScores], judged: JudgedStates, tasks: Tasks, bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """NDCG of each policy over all judged states, weighted by task; empty where no wanted task fires."""
    worth = state_worth(judged, tasks)
    if not scores or not worth.any():
        return {}
    gains = np.stack([result.gains["ndcg"] for result in scores.values()], axis=1)  # [B, P]
    kept = worth > 0
    return dict(
        zip(scores, _weighted(gains[kept], worth[kept], judged.sessions[kept], bootstrap), strict=True)
    )


def build_segments(judged: JudgedStates, catalogue: Catalogue, pasts: UserPasts) -> list[Segment]:
    """All slices, by item popularity, item group, category, user history and place in the session."""
    return [
        *_popularity_segments(judged, catalogue),
        *_named(judged, "item group", catalogue.groups, catalogue.group_names),
        *_named(judged, "category", catalogue.categories, catalogue.category_names),
        *_user_segments(pasts.counts_before(judged.sessions)),
        *_place_segments(judged),
    ]


def segment_table(
    scores: Mapping[str, RankingScores],
    judged: JudgedStates,
    segments: list[Segment],
    tasks: Tasks,
    pair: tuple[str, str],
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """The report's ``segments``: candidate and reference in each slice, the greatest loss first.

    Args:
        scores: Of all policies.
        judged: B states.
        segments: Slices with fewer than 30 worthy states are left out.
        tasks: Weigh the states.
        pair: Names of candidate and reference.
        bootstrap: For the two policies' own intervals; the difference's is Student's over sessions.
    """
    worth = state_worth(judged, tasks)
    candidate, reference = (scores[name] for name in pair)
    gains = np.stack([candidate.gains["ndcg"], reference.gains["ndcg"]], axis=1)  # [B, 2]
    rows, p_values = [], []
    for segment in segments:
        kept = segment.rows & (worth > 0)
        if kept.sum() < MIN_STATES:
            continue
        own = _weighted(gains[kept], worth[kept], judged.sessions[kept], bootstrap)
        gap = (gains[kept, 0] - gains[kept, 1])[:, None]
        (difference,), p = paired_tests(gap, worth[kept], judged.sessions[kept], bootstrap.confidence)
        p_values.append(p)
        rows.append(
            {
                "kind": segment.kind,
                "name": segment.name,
                "num_states": int(kept.sum()),
                "candidate": own[0].to_json(),
                "reference": own[1].to_json(),
                "difference": difference.to_json(),
                "exposure": _exposure(segment, candidate, reference),
            }
        )
    adjusted = holm(np.concatenate(p_values)) if p_values else np.zeros(0)
    table = [row | {"p": float(p)} for row, p in zip(rows, adjusted, strict=True)]
    return sorted(table, key=lambda row: row["difference"]["mean"])


def _weighted(
    gains: Floats, worth: Floats, sessions: NDArray[np.int64], bootstrap: Bootstrap
) -> list[Estimate]:
    sums = group_sums(np.column_stack([gains * worth[:, None], worth]), sessions)
    return bootstrap_intervals(sums, lambda totals: totals[:, :-1] / totals[:, -1:], bootstrap)


def _exposure(
    segment: Segment, candidate: RankingScores, reference: RankingScores
) -> dict[str, float] | None:
    """Share of list places that hold the segment's items, beside their share of the catalogue."""
    if segment.items is None:
        return None
    shares = [float(segment.items[result.lists].mean()) for result in (candidate, reference)]
    return {"candidate": shares[0], "reference": shares[1], "catalogue": float(segment.items.mean())}


def _popularity_segments(judged: JudgedStates, catalogue: Catalogue) -> list[Segment]:
    counts = catalogue.behaviours
    order = np.argsort(-counts, kind="stable")
    head = np.zeros(len(counts), dtype=bool)
    before = np.cumsum(counts[order]) - counts[order]
    head[order] = (before < counts.sum() / 2) & (counts[order] > 0)
    members = {
        "new: not in the train split": counts == 0,
        "popular: half of all behaviours": head,
        "the others": (counts > 0) & ~head,
    }
    return [Segment("items", name, items[judged.targets], items) for name, items in members.items()]


def _named(
    judged: JudgedStates, kind: str, number: NDArray[np.int64] | None, names: tuple[str, ...]
) -> list[Segment]:
    if number is None:
        return []
    chosen = [(name, number == i) for i, name in enumerate(names[:MAX_NAMES])]
    return [Segment(kind, name, items[judged.targets], items) for name, items in chosen]


def _user_segments(counts: NDArray[np.int64]) -> list[Segment]:
    steps = [Segment("users", name, (counts >= low) & (counts <= high)) for low, high, name in USER_STEPS]
    return [*steps, Segment("users", "over 50", counts > USER_STEPS[-1][1])]


def _place_segments(judged: JudgedStates) -> list[Segment]:
    return [
        Segment("place in session", "nothing yet", judged.before == 0),
        Segment("place in session", "after 1 to 5 behaviours", (judged.before > 0) & (judged.before <= 5)),
        Segment("place in session", "later", judged.before > 5),
    ]
