"""Ten users for the report: what they did, what the policy would show them, and why."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from encoders.sessions import SessionLog
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.players import load_policy
from rl.evaluation.page_tables import figure
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import JudgedStates
from rl.explain import Influence, explain_slate
from rl.policy.plackett_luce import best_slates, slate_log_prob
from rl.tasks import Tasks

NUM_EXAMPLES = 10
NUM_NEW = 3
MAX_ACTS = 8  # of the past, and of the session, the latest
MIN_ODDS = 1.05  # an influence below this is no reason
MAX_REASONS = 2


def example_users(
    run: RunDirectory,
    config: Config,
    log: SessionLog,
    items: pa.Table,
    judged: JudgedStates,
    pasts: UserPasts,
    tasks: Tasks,
    candidate: str,
) -> list[dict[str, Any]]:
    """The report's ``examples``: users from new to long known, each in one state of a test session.

    The slate is the policy's likeliest. Users are numbered, not named.
    """
    policy, weights = load_policy(run, candidate), torch.from_numpy(tasks.weights)[None]
    titles, mean_past = item_titles(items), log.past[log.sessions("train")].mean(axis=0)
    with torch.no_grad():
        keys = policy.item_keys()
    examples = []
    for row in choose_states(judged, pasts):
        one = judged.rows(np.array([row]))
        states = one.states
        with torch.no_grad():
            logits = policy.logits(
                torch.from_numpy(states.past),
                torch.from_numpy(states.history_items),
                torch.from_numpy(states.history_tasks),
                weights,
                keys=keys,
            ).double()
        slate = best_slates(logits, min(config.rl.slate_length, len(titles)))
        log_prob = slate_log_prob(logits, slate)[0]
        chosen = slate[0].numpy()
        reasons = explain_slate(policy, states, chosen, tasks.weights, mean_past, keys)
        session = one.sessions[0]
        acts = _acts(log, log.offsets[session], log.offsets[session] + one.before[0], titles, tasks)
        history = _history(states.history_items[0], states.history_tasks[0], titles, tasks)
        examples.append(
            {
                "past": _past(log, pasts, session, titles, tasks),
                "session": acts,
                "next": titles[one.targets[0]],
                "slate": [
                    {
                        "title": titles[item],
                        "propensity": p,
                        "reasons": [_sentence(r, history) for r in _kept(why)],
                    }
                    for item, p, why in zip(chosen, log_prob.exp().tolist(), reasons, strict=True)
                ],
            }
        )
    return examples


def choose_states(judged: JudgedStates, pasts: UserPasts) -> list[int]:
    """Rows of ten users, three of them new where there are ten: of each its last session's state furthest on.

    The new ones are spread evenly over how much their session tells, the others over how much their past does.
    """
    if not len(judged):
        return []
    users = pasts.users[judged.sessions]
    order = np.lexsort((judged.before, judged.sessions, users))
    ends = order[np.append(np.diff(users[order]) != 0, True)]  # the last state of each user's last session
    known = pasts.counts_before(judged.sessions[ends])
    new = ends[known == 0][np.argsort(judged.before[ends[known == 0]], kind="stable")]
    old = ends[known > 0][np.argsort(known[known > 0], kind="stable")]
    wanted = min(len(old), NUM_EXAMPLES - min(NUM_NEW, len(new)))
    return [int(row) for row in (*_spread(new, NUM_EXAMPLES - wanted), *_spread(old, wanted))]


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the rows, evenly, the first and the last among them."""
    place = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return np.asarray(rows[place])


def item_titles(items: pa.Table) -> list[str]:
    """A short name of each item: its title, else category and brand, else its id."""
    columns = {name: items[name].to_pylist() for name in items.column_names}
    names = []
    for row, item in enumerate(columns["item_id"]):
        title = columns.get("title", [None] * (row + 1))[row]
        parts = [columns[name][row] for name in ("category", "brand") if name in columns]
        described = ", ".join(str(part) for part in parts if part)
        names.append(str(title or (f"{described} ({item})" if described else item)))
    return names


def _past(log: SessionLog, pasts: UserPasts, session: int, titles: list[str], tasks: Tasks) -> list[str]:
    """The user's latest acts before the session, costs included."""
    earlier = np.flatnonzero(pasts.users[:session] == pasts.users[session])
    acts: list[str] = []
    for one in earlier[::-1]:
        if len(acts) >= MAX_ACTS:
            break
        acts = _acts(log, log.offsets[one], log.offsets[one + 1], titles, tasks) + acts
    return acts[-MAX_ACTS:]


def _acts(log: SessionLog, start: int, end: int, titles: list[str], tasks: Tasks) -> list[str]:
    rows = range(max(int(start), int(end) - MAX_ACTS), int(end))
    return [f"{tasks.behaviours[log.tasks[row]]}: {titles[log.items[row]]}" for row in rows]


def _history(
    items: NDArray[np.int64], acts: NDArray[np.int64], titles: list[str], tasks: Tasks
) -> dict[int, str]:
    return {
        int(place): f"{tasks.behaviours[acts[place]]} of {titles[items[place]]}"
        for place in np.flatnonzero(items >= 0)
    }


def _kept(influences: list[Influence]) -> list[Influence]:
    return [one for one in influences if one.odds >= MIN_ODDS][:MAX_REASONS]


def _sentence(influence: Influence, history: dict[int, str]) -> str:
    odds = f"odds ×{figure(influence.odds)}"
    if influence.kind == "history":
        return f"{history[influence.place]} in this session ({odds})"
    if influence.kind == "past":
        return f"the user's past, against the average one ({odds})"
    return f"liked in general ({odds})"
