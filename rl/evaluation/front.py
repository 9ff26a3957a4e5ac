"""The front: what each policy earns by task, and which no other beats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rl.evaluation.report import Returns
from rl.sweep import pareto_mask


def build_front(
    simulated: Returns,
    one_task: Returns,
    trials: Sequence[Mapping[str, Any]],
    candidate: str,
    task_names: Sequence[str],
) -> dict[str, Any]:
    """The report's ``front``: a point a policy, all in the held-out simulator.

    Args:
        simulated: Signed return of each session per task, by policy. float [S, K].
        one_task: Likewise of the candidate asked for one task alone, by task.
        trials: Of the sweep, each with ``returns`` {task: mean}; none where there was no sweep.
        candidate: The policy under judgement.
        task_names: K names.
    """
    points = [
        {"name": name, "kind": "candidate" if name == candidate else "rival", "returns": _means(values)}
        for name, values in simulated.items()
    ]
    points += [
        {"name": f"{candidate} for {task} alone", "kind": "one task", "returns": _means(values)}
        for task, values in one_task.items()
    ]
    points += [
        {
            "name": f"trial {number}",
            "kind": "trial",
            "returns": [float(trial["returns"][task]) for task in task_names],
        }
        for number, trial in enumerate(trials)
    ]
    returns = np.array([point["returns"] for point in points], dtype=np.float64).reshape(-1, len(task_names))
    best = pareto_mask(returns)
    return {
        "tasks": list(task_names),
        "points": [point | {"best": bool(kept)} for point, kept in zip(points, best, strict=True)],
    }


def _means(values: Any) -> list[float]:
    return [float(mean) for mean in np.asarray(values, np.float64).mean(axis=0)]
