"""Stage ``train``: clone the log, then multi-task PPO in the simulator; what is kept, the held-out one says."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as save_safetensors

from cluster.connection import connect
from encoders.sessions import SessionLog
from pipelines.artifacts import Folder, RunDirectory
from pipelines.checkpoints import Progress, clearly_worse
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, load_session_log, load_simulator
from pipelines.judge import HeldOutJudge, Record
from pipelines.lever_prices import lever_prices
from pipelines.openers import OpenItemEmbeddings, OpenSimulation
from pipelines.progress import track
from pipelines.stages import Stage, StageContext
from rl.policy.clone import train_clone
from rl.policy.lever_heads import fold, widen
from rl.policy.network import PolicyShape, SlatePolicy
from rl.policy.safety import complaint_after_look, complaint_after_round
from rl.simulator.simulation import Ensemble, summary_width
from rl.tasks import Tasks, build_tasks
from rl.tilt import tilt_clone

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from rl.policy.algorithm import Trainer

logger = logging.getLogger(__name__)

RESUME = "resume"  # folder of the checkpoint inside the partial folder; gone before publishing


@dataclass(frozen=True)
class TrainedPolicy:
    """What training gives."""

    policy: SlatePolicy
    clone: SlatePolicy
    curve: list[Record]  # one an evaluation: iteration, training, held_out/weighted, held_out/<task>
    kept: Record  # the evaluation of the policy that is kept
    tilt: Record | None  # the evaluation of the tilted clone, where one was found
    stopped: str | None  # why training ended early; None if it did not, or had not improved for long


class TrainingError(ValueError):
    """Training went wrong before there was any policy to keep."""


def train_policy(
    run: RunDirectory,
    config: Config,
    on_look: Callable[[Record, Record], None],
    checkpoint_folder: Folder | None,
) -> TrainedPolicy:
    """Clone, PPO and the rival tilt on a run's finished simulator. Ray must be connected.

    Args:
        run: With finished ingest, embed and fit-simulator.
        config: Of this training; a sweep varies it.
        on_look: Told the record of each look at the held-out simulator, and that of the policy kept until now.
        checkpoint_folder: Where to keep what a restart continues from; None keeps nothing.
    """
    log = load_session_log(run, config)
    tasks = build_tasks(config.rl.tasks)
    clone = make_clone(run, config, log, tasks)
    ensemble = load_simulator(run, config, "train")
    judge = HeldOutJudge(run, config, log)
    trainer = _trainer(run, config, clone, ensemble)
    try:
        progress = Progress(checkpoint_folder, trainer, clone, config.rl.ppo.judge_tolerance)
        stopped = _iterate(trainer, config, judge, progress, on_look)
    finally:
        trainer.algorithm.stop()
    if not progress.curve:
        raise TrainingError(f"train: {stopped or 'no round brought anything to learn from'}")
    policy = copy.deepcopy(clone)
    policy.load_state_dict(progress.best)
    trained = TrainedPolicy(policy.eval(), clone, progress.curve, progress.kept, None, stopped)
    if config.rl.levers.in_training:  # which a tilt knows nothing of
        return trained
    users = torch.from_numpy(log.past[log.sessions("train")])
    tilted = tilt_clone(clone, ensemble, users, config.rl.tilt, config.seed)
    return better_of(trained, tilted, judge, config)


def better_of(
    trained: TrainedPolicy,
    tilted: SlatePolicy | None,
    judge: Callable[[SlatePolicy], Record],
    config: Config,
) -> TrainedPolicy:
    """What was trained, or the tilted clone, where that is clearly better by the held-out simulator's word."""
    if tilted is None:
        return trained
    look = {**judge(tilted), "iteration": 0.0}
    better = clearly_worse(trained.kept, look, config.rl.ppo.judge_tolerance)
    logger.info(
        "train: held-out return %.3f of the tilted clone, %.3f of %s; the %s is kept",
        look["held_out/weighted"],
        trained.kept["held_out/weighted"],
        config.rl.algorithm,
        "tilt" if better else "latter",
    )
    trained = replace(trained, tilt=look)
    return replace(trained, policy=tilted, kept=look) if better else trained


def make_clone(run: RunDirectory, config: Config, log: SessionLog, tasks: Tasks) -> SlatePolicy:
    """The policy's start, trained on the log."""
    embeddings = cached_item_embeddings(run.uri)
    shape = PolicyShape(
        num_items=len(embeddings),
        text_width=embeddings.shape[1],
        num_tasks=len(tasks),
        slate_length=config.rl.slate_length,
        history_length=config.rl.history_length,
    )
    torch.manual_seed(config.seed)
    clone = SlatePolicy(shape, embeddings)
    history = train_clone(clone, log, tasks, config.rl.clone, config.seed)
    best = min(history, key=lambda record: record["loss/validation"])
    logger.info("train: clone has %.3f nats a validation target", best["loss/validation"])
    return clone


def _trainer(run: RunDirectory, config: Config, policy: SlatePolicy, ensemble: Ensemble) -> "Trainer":
    from rl.policy.algorithm import Trainer, build_algorithm, set_clone

    tasks, feature_width = ensemble.tasks, ensemble.members[0].shape.feature_width
    levers = tuple(config.rl.levers.tasks)
    start, shape = widen(policy.state_dict(), policy.shape, len(levers))

    def build() -> "Algorithm":
        algorithm = build_algorithm(
            config.rl.ppo,
            shape,
            OpenItemEmbeddings(run.uri),
            OpenSimulation(run.uri, config),
            summary_width=summary_width(len(tasks), feature_width),
            task_names=(*tasks.names, *levers),
            seed=config.seed,
            limits=[*tasks.limits.tolist(), *(float("inf") for _ in levers)],
            dqn=config.rl.dqn if config.rl.algorithm == "dqn" else None,
        )
        set_clone(algorithm, start)
        return algorithm

    return Trainer(build)


def _iterate(
    trainer: "Trainer",
    config: Config,
    judge: HeldOutJudge,
    progress: Progress,
    on_look: Callable[[Record, Record], None],
) -> str | None:
    """PPO rounds with a look at the held-out simulator now and then; stops when it was worse for long.

    Returns:
        What went wrong, where something did and ended training.
    """
    from rl.policy.algorithm import actor_state

    ppo = config.rl.ppo
    policy = copy.deepcopy(progress.policy)
    lever_weights = torch.tensor(list(config.rl.levers.tasks.values()))
    for iteration in track(
        range(progress.iteration + 1, ppo.num_iterations + 1),
        ppo.num_iterations - progress.iteration,
        "PPO rounds",
    ):
        result = trainer.train()
        learned = result.get("learners", {}).get("default_policy")
        if learned is None:  # every sampler died; the next round has new ones
            continue
        stopped = complaint_after_round(learned, ppo)
        if stopped:
            return f"round {iteration}: {stopped}"
        if iteration % ppo.judge_every and iteration != ppo.num_iterations:
            continue
        state = fold(actor_state(trainer.algorithm), policy.shape, lever_weights)
        policy.load_state_dict(state)
        record = {"iteration": float(iteration), **judge(policy)}
        record["training"] = float(result["env_runners"].get("episode_return_mean", float("nan")))
        record |= {name: float(learned[name]) for name in ("clone_kl", "entropy") if name in learned}
        returns = result["env_runners"].get("task_return", {})
        record |= {
            f"training/{name}": float(returns[name]) for name in config.rl.levers.tasks if name in returns
        }
        progress.note(iteration, record, state)
        on_look(record, progress.kept)
        stopped = complaint_after_look(progress.curve, ppo)
        if stopped:
            return f"round {iteration}: {stopped}"
        if iteration - progress.best_iteration >= ppo.judge_patience:
            logger.info(
                "train: the held-out simulator has been worse for %d rounds, stopped", ppo.judge_patience
            )
            break
    return None


def spent(record: Record, limits: Mapping[str, float]) -> str:
    """What the held-out sessions paid of each limited cost, as an ending of a line; empty where none is limited."""
    return "".join(f", {name} {-record[f'held_out/{name}']:.3g} of {most:g}" for name, most in limits.items())


def _train(context: StageContext) -> dict[str, Any]:
    config = context.config
    limited = {name: task.at_most for name, task in config.rl.tasks.items() if task.at_most is not None}

    def tell(record: Record, kept: Record) -> None:
        logger.info(
            "train: round %d of %d, held-out return %.3f (training %.3f)%s",
            record["iteration"],
            config.rl.ppo.num_iterations,
            record["held_out/weighted"],
            record["training"],
            spent(record, limited),
        )

    torch.set_num_threads(config.rl.ppo.num_threads)
    checkpoints = context.folder.folder(RESUME)
    with connect(config.cluster):
        trained = train_policy(context.run, config, tell, checkpoints)
    tilt = trained.kept is trained.tilt
    if trained.stopped:
        what = "tilted clone" if tilt else f"policy of round {trained.kept['iteration']:.0f}"
        logger.warning("train: stopped, the %s is kept; %s", what, trained.stopped)
    context.folder.write_json("shape.json", trained.policy.shape.model_dump())
    for name, policy in (("ppo", trained.policy), ("clone", trained.clone)):
        weights = {n: value.contiguous().clone() for n, value in policy.state_dict().items()}
        context.folder.write_bytes(f"{name}.safetensors", save_safetensors(weights))
    beside = {} if trained.tilt is None else {"held_out_tilt": trained.tilt["held_out/weighted"]}
    curve = [
        {
            "iteration": int(r["iteration"]),
            "training": r["training"],
            "held_out": r["held_out/weighted"],
            **beside,
        }
        for r in trained.curve
    ]
    kept = {
        "policy": "tilt" if tilt else config.rl.algorithm,
        "iteration": int(trained.kept["iteration"]),
    }
    context.folder.write_json("learning.json", {"kept": kept, "curve": curve})
    if config.rl.levers.ranking_loss > 0 or config.rl.levers.exposure_limits:
        judge = HeldOutJudge(context.run, config, load_session_log(context.run, config))
        prices = lever_prices(context.run, config, judge, trained.policy)
        context.folder.write_json("lever_prices.json", prices)
        for row in prices:
            logger.info("train: slates %(ranking)s: return %(return).3f, diversity %(diversity).3f", row)
    checkpoints.delete()
    return {
        "num_iterations": int(trained.curve[-1]["iteration"]),
        "kept": kept,
        "held_out_return": trained.kept["held_out/weighted"],
        "stopped": trained.stopped,
    }


TRAIN = Stage(
    name="train",
    inputs=("ingest", "embed", "fit-simulator"),
    sections=(
        "seed",
        "rl.algorithm",
        "rl.tasks",
        "rl.slate_length",
        "rl.history_length",
        "rl.clone",
        "rl.tilt",
        "rl.ppo",
        "rl.dqn",
        "rl.levers",
    ),
    execute=_train,
    help="Clone the log's choices, then improve on them by multi-task PPO in the simulator.",
)
