"""Trials of a sweep under Ray Tune. Import it only after Ray is connected."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from pipelines.artifacts import Folder, RunDirectory
from pipelines.config import Config, override_config
from rl.sweep import Axis
from rl.tasks import build_tasks

logger = logging.getLogger(__name__)

OnLook = Callable[[dict[str, float], dict[str, float]], None]
Train = Callable[[RunDirectory, Config, OnLook, None], object]

STORAGE = "tune"  # inside the stage's partial folder; gone before publishing, since it holds pickles
ITERATION = "ppo_iteration"
RETURN = "weighted_return"
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep instead of its trials
    "RAY_AIR_NEW_OUTPUT": "0",  # it prints every trial's traceback
}
TRIAL = {  # whatever is searched for: each in a process of its own, as trained, and none against the rival tilt
    "rl.clone_share": 0.0,
    "rl.temperature": 1.0,
    "rl.ppo.num_seeds": 1,
    "rl.ppo.num_env_runners": 0,
    "rl.ppo.num_learners": 0,
    "rl.ppo.num_gpus_per_learner": 0.0,
    "rl.tilt.num_generations": 0,
}


class TrialError(ValueError):
    """A trial failed, or ended without a result."""


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial."""

    values: dict[str, Any]  # by dotted key
    returns: dict[str, float]  # mean signed return by task of the policy that training keeps
    weighted: float  # the same at the weights of the sweep's own config
    excess: float  # of costs over their limits, as shares of these
    iterations: int  # PPO rounds until it ended or was stopped


def run_trials(
    run_uri: str, config: Config, space: Mapping[str, Axis], folder: Folder, train: Train
) -> list[TrialResult]:
    """Train ``rl.sweep.num_trials`` policies, continuing from what an interrupted attempt left in ``folder``.

    Args:
        run_uri: Absolute path or URI, for trials run in folders of their own.
        config: Of the sweep; its task weights compare the trials.
        space: Axis by dotted key.
        folder: Where Tune keeps its state between attempts.
        train: As ``pipelines.train.train_policy``; must be picklable.

    Raises:
        TrialError: A trial failed or ended without a result.
    """
    os.environ.update(QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is told of below
    trainable = tune.with_resources(_trainable(run_uri, config, train), {"cpu": 1})
    param_space = {key: _domain(axis) for key, axis in space.items()}
    storage = folder.folder(STORAGE)
    if _can_restore(storage):
        logger.info("sweep: continues from %s", storage.path)
        tuner = tune.Tuner.restore(
            storage.path,
            trainable=trainable,
            param_space=param_space,
            restart_errored=True,
            storage_filesystem=folder.filesystem,
        )
    else:
        storage.delete()
        tuner = tune.Tuner(
            trainable,
            param_space=param_space,
            tune_config=_tune_config(config, space),
            run_config=tune.RunConfig(
                name=STORAGE,
                storage_path=folder.path,
                storage_filesystem=folder.filesystem,
                verbose=0,
                callbacks=[Announcer(config.rl.sweep.num_trials)],
            ),
        )
    return _results(tuner.fit(), config)


class Announcer(tune.Callback):
    """A log line for every trial that ends."""

    def __init__(self, num_trials: int) -> None:
        self.num_trials = num_trials

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune."""
        done = sum(other.is_finished() for other in trials)
        logger.info(
            "sweep: %d of %d trials done, weighted return %.3f after %d rounds",
            done,
            self.num_trials,
            trial.last_result.get(RETURN, float("nan")),
            trial.last_result.get(ITERATION, 0),
        )


def _trainable(run_uri: str, config: Config, train: Train) -> Callable[[dict[str, Any]], None]:
    tasks = build_tasks(config.rl.tasks)
    weights = {name: float(weight) for name, weight in zip(tasks.names, tasks.weights, strict=True)}

    def sweep_trial(values: dict[str, Any]) -> None:
        def report(record: dict[str, float], kept: dict[str, float]) -> None:
            returns = {name: kept[f"held_out/{name}"] for name in weights}
            weighted = sum(weights[name] * value for name, value in returns.items())
            tune.report(
                {
                    ITERATION: int(record["iteration"]),
                    RETURN: weighted,
                    "returns": returns,
                    "excess": kept["held_out/excess"],
                }
            )

        train(RunDirectory(run_uri), override_config(config, {**values, **TRIAL}), report, None)

    return sweep_trial


def _domain(axis: Axis) -> Any:
    if axis.uniform is not None:
        return tune.uniform(*axis.uniform)
    if axis.log_uniform is not None:
        return tune.loguniform(*axis.log_uniform)
    assert axis.choice is not None
    return tune.choice(list(axis.choice))


def _tune_config(config: Config, space: Mapping[str, Axis]) -> tune.TuneConfig:
    sweep = config.rl.sweep
    rounds = space.get("rl.ppo.num_iterations")
    most = int(max(rounds.ends)) if rounds else config.rl.ppo.num_iterations
    scheduler: TrialScheduler = FIFOScheduler()
    if sweep.scheduler == "asha":
        scheduler = ASHAScheduler(
            time_attr=ITERATION, max_t=most, grace_period=min(sweep.grace_iterations, most)
        )
    return tune.TuneConfig(
        metric=RETURN,
        mode="max",
        num_samples=sweep.num_trials,
        scheduler=scheduler,
        search_alg=BasicVariantGenerator(max_concurrent=sweep.concurrent_trials, random_state=config.seed),
    )


def _can_restore(storage: Folder) -> bool:
    """Whether an earlier attempt came as far as to write its state."""
    if not tune.Tuner.can_restore(storage.path, storage_filesystem=storage.filesystem):
        return False
    return any(name.startswith("experiment_state-") for name in storage.files())


def _results(grid: Any, config: Config) -> list[TrialResult]:
    failed = [result for result in grid if result.error]
    if failed:
        raise TrialError(
            f"sweep: {len(failed)} of {len(grid)} trials failed, the first with: "
            f"{str(failed[0].error).strip().splitlines()[-1]} Its traceback is in {failed[0].path}/error.txt. "
            "The same command trains those again."
        )
    metrics = [result.metrics or {} for result in grid]
    reported = sum(RETURN in metric for metric in metrics)
    if reported < config.rl.sweep.num_trials:
        raise TrialError(
            f"sweep: expected results of {config.rl.sweep.num_trials} trials, got {reported}. "
            "The same command trains the others."
        )
    return [
        TrialResult(
            values=dict(result.config),
            returns={name: float(value) for name, value in metric["returns"].items()},
            weighted=float(metric[RETURN]),
            excess=float(metric["excess"]),
            iterations=int(metric[ITERATION]),
        )
        for result, metric in zip(grid, metrics, strict=True)
    ]
