"""Stage ``train``: clone the log, then multi-task PPO in the simulator; what is kept, the held-out one says."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from cluster.connection import connect
from encoders.sessions import SessionLog
from pipelines.artifacts import Folder, RunDirectory
from pipelines.checkpoints import clearly_worse
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, load_session_log, load_simulator
from pipelines.judge import HeldOutJudge, Record
from pipelines.learning import OnLook, blend, learn_side_by_side
from pipelines.lever_prices import lever_prices
from pipelines.stages import Stage, StageContext
from rl.policy.clone import train_clone
from rl.policy.network import PolicyShape, SlatePolicy
from rl.tasks import Tasks, build_tasks
from rl.tilt import tilt_clone

logger = logging.getLogger(__name__)

RESUME = "resume"  # folder of the checkpoints inside the partial folder; gone before publishing


@dataclass(frozen=True)
class TrainedPolicy:
    """What training gives."""

    policy: SlatePolicy
    clone: SlatePolicy
    curves: list[list[Record]]  # of each training one record a look, see ``pipelines.learning.Learned``
    look: Record  # at the policy that is kept
    iterations: list[int]  # rounds after which the trainings' weights were taken; none of the tilted clone's
    tilt: Record | None  # the look at the tilted clone, where one was found
    stopped: str | None  # why trainings ended early; None if none did, or had not improved for long


def train_policy(
    run: RunDirectory, config: Config, on_look: OnLook, checkpoints: Folder | None
) -> TrainedPolicy:
    """Clone, PPO and the rival tilt on a run's finished simulator. Ray must be connected.

    Args:
        run: With finished ingest, embed and fit-simulator.
        config: Of this training; a sweep varies it.
        on_look: Told the record of each look at the held-out simulator, and that of the policy kept until now.
        checkpoints: Where to keep what a restart continues from; None keeps nothing.
    """
    log = load_session_log(run, config)
    tasks = build_tasks(config.rl.tasks)
    clone = make_clone(run, config, log, tasks)
    ensemble = load_simulator(run, config, "train")
    judge = HeldOutJudge(run, config, log)
    learned = learn_side_by_side(run, config, clone, ensemble, judge, on_look, checkpoints)
    policy, look, parts = blend(learned, clone, judge, config.rl.ppo.judge_tolerance)
    trained = TrainedPolicy(
        policy,
        clone,
        [one.curve for one in learned],
        look,
        [int(one.kept["iteration"]) for one in parts],
        None,
        "; ".join(one.stopped for one in learned if one.stopped) or None,
    )
    trained = settled(trained, judge, config)
    if config.rl.levers.in_training:  # which a tilt knows nothing of
        return trained
    users = torch.from_numpy(log.past[log.sessions("train")])
    tilted = tilt_clone(trained.clone, ensemble, users, config.rl.tilt, config.seed)
    return better_of(trained, tilted, judge, judge.within(ensemble), config)


def settled(trained: TrainedPolicy, judge: Callable[[SlatePolicy], Record], config: Config) -> TrainedPolicy:
    """The policy ``rl.clone_share`` of the way back to the clone, and both at ``rl.temperature``.

    Training ends beyond what the log can vouch for; and its bonus for entropy keeps slates varied up to the last
    round, more than what was learned calls for. The policy stays as trained where the held-out simulator finds that
    clearly better. What levers changed would be lost on the way back, as the clone knows none, so then there is none.

    Source:
        Wortsman et al. 2022, arXiv:2109.01903 (weights between those of a start and of what was trained from it).
    """
    share, temperature = config.rl.clone_share, config.rl.temperature
    if config.rl.levers.in_training:
        share = 0.0
    if share == 0 and temperature == 1:
        return trained
    policy = trained.policy.towards(trained.clone, share).at_temperature(temperature)
    clone = trained.clone.at_temperature(temperature)
    look = judge(policy)
    worse = clearly_worse(look, trained.look, config.rl.ppo.judge_tolerance)
    logger.info(
        "train: held-out return %.3f with %g of the clone, at temperature %g, %.3f as trained; the %s is kept",
        look["held_out/weighted"],
        share,
        temperature,
        trained.look["held_out/weighted"],
        "latter" if worse else "former",
    )
    trained = replace(trained, clone=clone)
    return trained if worse else replace(trained, policy=policy, look=look)


def better_of(
    trained: TrainedPolicy,
    tilted: SlatePolicy | None,
    judge: Callable[[SlatePolicy], Record],
    training_judge: Callable[[SlatePolicy], Record],
    config: Config,
) -> TrainedPolicy:
    """What was trained, or the tilted clone, where both simulators find that clearly better.

    The held-out one knows few sessions and misses most of what patience earns, so alone it would let a tilt replace
    a policy that is far better; the one that both were searched in sees through that, and misses what is its own error.
    """
    if tilted is None:
        return trained
    look, tolerance = judge(tilted), config.rl.ppo.judge_tolerance
    better = clearly_worse(trained.look, look, tolerance)
    logger.info(
        "train: held-out return %.3f of the tilted clone, %.3f of %s",
        look["held_out/weighted"],
        trained.look["held_out/weighted"],
        config.rl.algorithm,
    )
    if better:
        own, theirs = training_judge(trained.policy), training_judge(tilted)
        better = clearly_worse(own, theirs, tolerance)
        logger.info(
            "train: where both were searched %.3f and %.3f",
            theirs["held_out/weighted"],
            own["held_out/weighted"],
        )
    logger.info("train: the %s is kept", "tilted clone" if better else "trained policy")
    trained = replace(trained, tilt=look)
    return replace(trained, policy=tilted, look=look, iterations=[]) if better else trained


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


def spent(record: Record, limits: Mapping[str, float]) -> str:
    """What the held-out sessions paid of each limited cost, as an ending of a line; empty where none is limited."""
    return "".join(f", {name} {-record[f'held_out/{name}']:.3g} of {most:g}" for name, most in limits.items())


def learning_curve(trained: TrainedPolicy) -> list[dict[str, Any]]:
    """A row an iteration: the trainings' mean return, each one's held-out return, and those of what came of them."""
    looks: dict[int, dict[str, float]] = {}
    returns: dict[int, list[float]] = {}
    for number, curve in enumerate(trained.curves, start=1):
        name = f"held_out_{number}" if len(trained.curves) > 1 else "held_out"
        for look in curve:
            iteration = int(look["iteration"])
            returns.setdefault(iteration, []).append(look["training"])
            looks.setdefault(iteration, {})[name] = look["held_out/weighted"]
    level = {}
    if trained.iterations:
        level["held_out_kept"] = trained.look["held_out/weighted"]
    if trained.tilt is not None:
        level["held_out_tilt"] = trained.tilt["held_out/weighted"]
    return [
        {"iteration": iteration, "training": fmean(returns[iteration]), **looks[iteration], **level}
        for iteration in sorted(looks)
    ]


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
    tilt = not trained.iterations
    if trained.stopped:
        rounds = " and ".join(str(iteration) for iteration in trained.iterations)
        what = "tilted clone" if tilt else f"policy of round {rounds}"
        logger.warning("train: stopped, the %s is kept; %s", what, trained.stopped)
    context.folder.write_json("shape.json", trained.policy.shape.model_dump())
    for name, policy in (("ppo", trained.policy), ("clone", trained.clone)):
        weights = {n: value.contiguous().clone() for n, value in policy.state_dict().items()}
        context.folder.write_bytes(f"{name}.safetensors", save_safetensors(weights))
    kept = {"policy": "tilt" if tilt else config.rl.algorithm, "iterations": trained.iterations}
    context.folder.write_json("learning.json", {"kept": kept, "curve": learning_curve(trained)})
    if config.rl.levers.ranking_loss > 0 or config.rl.levers.exposure_limits:
        judge = HeldOutJudge(context.run, config, load_session_log(context.run, config))
        prices = lever_prices(context.run, config, judge, trained.policy)
        context.folder.write_json("lever_prices.json", prices)
        for row in prices:
            logger.info("train: slates %(ranking)s: return %(return).3f, diversity %(diversity).3f", row)
    checkpoints.delete()
    return {
        "num_iterations": max(int(curve[-1]["iteration"]) for curve in trained.curves),
        "kept": kept,
        "held_out_return": trained.look["held_out/weighted"],
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
        "rl.clone_share",
        "rl.temperature",
        "rl.clone",
        "rl.tilt",
        "rl.ppo",
        "rl.dqn",
        "rl.levers",
    ),
    execute=_train,
    help="Clone the log's choices, then improve on them by multi-task PPO in the simulator.",
)
