"""Whether the bundle answers requests as the judged policy would: ids, catalogue, states and weights, end to end."""

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.sessions import SessionLog
from encoders.state import session_history
from rl.policy.bundle import Bundle
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import slate_log_prob
from serve.ranker import Ranker
from serve.schema import Act, RecommendRequest


def parity_gap(
    bundle: Bundle, policy: SlatePolicy, log: SessionLog, item_ids: list[str], sessions: NDArray[np.int64]
) -> float:
    """Largest difference of log-probabilities, over slates served to the sessions' users halfway through.

    Args:
        bundle: What would serve.
        policy: What was judged.
        log: Whose sessions the requests come from.
        item_ids: The judged catalogue, in the log's order of items.
        sessions: Which sessions. int64 [B].

    Returns:
        Nats; inf where the service shows what the judged catalogue lacks.
    """
    ranker, index, gap = Ranker(bundle, seed=0), {item: row for row, item in enumerate(item_ids)}, 0.0
    behaviours = bundle.tasks.behaviours
    weights = torch.from_numpy(bundle.tasks.weights)[None]
    for session in sessions:
        start, end = log.offsets[session], log.offsets[session + 1]
        known = slice(start, start + (end - start) // 2)
        items, tasks = log.items[known].tolist(), log.tasks[known].tolist()
        acts = [
            Act(item_id=item_ids[item], behaviour=behaviours[task])
            for item, task in zip(items, tasks, strict=True)
        ]
        user = log.user_ids[session]
        served = ranker.recommend(RecommendRequest(user_id=user, history=acts))
        if any(item.item_id not in index for item in served.items):
            return float("inf")
        row = bundle.users.get(user)
        past = bundle.empty_past if row is None else bundle.user_pasts[row]
        seen, kinds = session_history(items, tasks, policy.shape.history_length)
        with torch.no_grad():
            logits = policy.logits(
                torch.from_numpy(past)[None],
                torch.from_numpy(seen)[None],
                torch.from_numpy(kinds)[None],
                weights,
            )
        slate = torch.tensor([[index[item.item_id] for item in served.items]])
        judged = slate_log_prob(logits.double(), slate)[0].numpy()
        told = np.log([item.propensity for item in served.items])
        gap = max(gap, float(np.abs(judged - told).max()))
    return gap
