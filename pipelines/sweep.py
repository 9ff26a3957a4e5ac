"""Stage ``sweep``: train many policies and mark the trade-offs between tasks worth choosing."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.connection import connect
from pipelines.config import Config, ConfigError, override_config
from pipelines.stages import Stage, StageContext
from pipelines.train import train_policy
from rl.sweep import Axis, pareto_mask, search_space
from rl.tasks import build_tasks

if TYPE_CHECKING:
    from pipelines.trials import Train

# What a finished simulator leaves free, beside task weights.
SEARCHABLE = ("rl.clone.", "rl.ppo.")


def sweep(context: StageContext, train: "Train" = train_policy) -> dict[str, Any]:
    """Run the trials, print their table, write ``front.json``.

    Args:
        context: Of the stage.
        train: As ``pipelines.train.train_policy``.

    Raises:
        ConfigError: A key of the search space is unknown or out of a sweep's reach, or a value is invalid.
    """
    config = context.config
    space = checked_space(config)
    uri = context.run.uri
    if "://" not in uri:
        uri = str(Path(uri).expanduser().absolute())  # trials run elsewhere
    with connect(config.cluster):
        from pipelines.trials import STORAGE, run_trials

        results = run_trials(uri, config, space, context.folder, train)
    trials = [asdict(result) for result in results]
    mark_front(trials)
    best = max(trials, key=lambda trial: (-float(trial["excess"]), float(trial["weighted"])))
    context.folder.write_json("front.json", {"trials": trials, "best": best})
    context.folder.folder(STORAGE).delete()
    print(table(trials))
    return {
        "num_trials": len(trials),
        "num_pareto": sum(trial["pareto"] for trial in trials),
        "best": best["values"],
        "best_return": best["weighted"],
    }


def checked_space(config: Config) -> dict[str, Axis]:
    """The search space, every end of every axis tried against the config.

    Raises:
        ConfigError: A key is unknown or out of a sweep's reach, or a value is invalid.
    """
    tasks = config.rl.tasks
    build_tasks(tasks)
    space = search_space(config.rl.sweep, tasks)
    weights = [f"rl.tasks.{name}.weight" for name in tasks]
    for key, axis in space.items():
        if key not in weights and not key.startswith(SEARCHABLE):
            raise ConfigError(
                f"rl.sweep.space: expected keys such as {weights[0]}, rl.clone.* or rl.ppo.*, got {key!r}. "
                "Others change what earlier stages made; set them for the whole run."
            )
        for value in axis.ends:
            override_config(config, {key: value})
    return space


def mark_front(trials: list[dict[str, Any]]) -> None:
    """Add ``pareto`` to each trial: whether no other is as good in every task and better in one."""
    returns = np.array([list(trial["returns"].values()) for trial in trials], dtype=np.float64)  # [n, K]
    for trial, keep in zip(trials, pareto_mask(returns), strict=True):
        trial["pareto"] = bool(keep)


def table(trials: list[dict[str, Any]]) -> str:
    """The trials as text, the best first; a star marks the Pareto-best."""
    keys, names = list(trials[0]["values"]), list(trials[0]["returns"])
    header = ["", "weighted", *names, "rounds", *(key.removeprefix("rl.") for key in keys)]
    rows = [
        [
            "*" if trial["pareto"] else "",
            f"{trial['weighted']:.4f}",
            *(f"{trial['returns'][name]:.4f}" for name in names),
            str(trial["iterations"]),
            *(_short(trial["values"][key]) for key in keys),
        ]
        for trial in sorted(trials, key=lambda trial: -float(trial["weighted"]))
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [header, *rows]
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SWEEP = Stage(
    name="sweep",
    inputs=("ingest", "embed", "fit-simulator"),
    sections=("seed", "rl"),
    execute=sweep,
    help="Train many policies and show which trade-offs between tasks are worth choosing.",
)
