"""Rounds of learning from one start, by trainings side by side that differ in their seed alone."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.artifacts import Folder, RunDirectory
from pipelines.checkpoints import Progress, clearly_worse
from pipelines.config import Config
from pipelines.dataset import load_session_log, load_simulator
from pipelines.judge import HeldOutJudge, Record
from pipelines.openers import OpenItemEmbeddings, OpenSimulation
from pipelines.progress import track
from rl.policy.lever_heads import fold, widen
from rl.policy.network import SlatePolicy
from rl.policy.safety import complaint_after_look, complaint_after_round
from rl.simulator.simulation import Ensemble
from rl.simulator.trace import summary_width

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from rl.policy.algorithm import Trainer

OnLook = Callable[[Record, Record], None]

logger = logging.getLogger(__name__)

_SEEDS_APART = 1_000  # of two trainings; samplers count on from their training's


class TrainingError(ValueError):
    """Training went wrong before there was any policy to keep."""


@dataclass(frozen=True)
class Learned:
    """What one training gives."""

    weights: dict[str, Tensor]  # of the policy that it keeps
    curve: list[Record]  # one a look: iteration, training, held_out/weighted, held_out/<task>
    kept: Record  # the look at the policy that it keeps
    stopped: str | None  # why it ended early; None if it did not, or had not improved for long


def learn(
    run: RunDirectory,
    config: Config,
    clone: SlatePolicy,
    seed: int,
    ensemble: Ensemble,
    judge: HeldOutJudge,
    on_look: OnLook,
    checkpoints: Folder | None,
) -> Learned:
    """One training. Ray must be connected.

    Args:
        run: With finished ingest, embed and fit-simulator.
        config: Of the run.
        clone: To start from; left as it is.
        seed: Of sessions, slates and new weights.
        ensemble: What it learns in; samplers open their own.
        judge: Looks at the policy now and then.
        on_look: Told the record of each look, and that of the policy kept until now.
        checkpoints: Where to keep what a restart continues from; None keeps nothing.

    Raises:
        TrainingError: It went wrong before the first look.
    """
    trainer = _trainer(run, config, clone, seed, ensemble)
    try:
        progress = Progress(checkpoints, trainer, clone, config.rl.ppo.judge_tolerance)
        stopped = _iterate(trainer, config, judge, progress, on_look)
    finally:
        trainer.algorithm.stop()
    if not progress.curve:
        raise TrainingError(f"train: {stopped or 'no round brought anything to learn from'}")
    return Learned(progress.best, progress.curve, progress.kept, stopped)


def learn_side_by_side(
    run: RunDirectory,
    config: Config,
    clone: SlatePolicy,
    ensemble: Ensemble,
    judge: HeldOutJudge,
    on_look: OnLook,
    checkpoints: Folder | None,
) -> list[Learned]:
    """``rl.ppo.num_seeds`` trainings, the first in this process and the others in Ray's; arguments as of ``learn``.

    Looks are told of the first alone.

    Returns:
        What each gave, but for those that went wrong before their first look.

    Raises:
        TrainingError: All did.
    """
    import ray

    ppo = config.rl.ppo
    alone = ppo.num_env_runners == ppo.num_learners == 0
    beside = ray.remote(learn_beside).options(  # with samplers or learners of its own, these do the work
        num_cpus=int(alone), num_gpus=0 if ppo.num_learners else ppo.num_gpus_per_learner
    )
    seeds = [config.seed + number * _SEEDS_APART for number in range(ppo.num_seeds)]
    folders = [checkpoints and checkpoints.folder(f"seed-{number}") for number in range(ppo.num_seeds)]
    others = [
        beside.remote(run, config, clone, seed, folder)
        for seed, folder in zip(seeds[1:], folders[1:], strict=True)
    ]
    answers: list[Learned | TrainingError] = []
    try:
        answers.append(learn(run, config, clone, seeds[0], ensemble, judge, on_look, folders[0]))
    except TrainingError as error:
        answers.append(error)
    answers += ray.get(others)
    learned = [answer for answer in answers if isinstance(answer, Learned)]
    failed = [answer for answer in answers if isinstance(answer, TrainingError)]
    if not learned:
        raise failed[0]
    for left_out in failed:
        logger.warning("%s; this training of %d is left out", left_out, ppo.num_seeds)
    return learned


def learn_beside(
    run: RunDirectory, config: Config, clone: SlatePolicy, seed: int, checkpoints: Folder | None
) -> Learned | TrainingError:
    """``learn`` in a process of its own, which says nothing while it goes on."""
    torch.set_num_threads(config.rl.ppo.num_threads)
    ensemble = load_simulator(run, config, "train")
    judge = HeldOutJudge(run, config, load_session_log(run, config))
    try:
        return learn(run, config, clone, seed, ensemble, judge, lambda look, kept: None, checkpoints)
    except TrainingError as error:
        return error


def blend(
    learned: list[Learned], clone: SlatePolicy, judge: Callable[[SlatePolicy], Record], tolerance: float
) -> tuple[SlatePolicy, Record, list[Learned]]:
    """The policy whose weights are the mean of the trainings', its look, and the trainings it is made of.

    What trainings from one start agree on is more often true than what one of them found in the simulator. Those that
    were stopped are left out where others were not. Where the held-out simulator finds the mean clearly worse than
    every training, they have parted too far: then the best of them is kept.

    Source:
        Wortsman et al. 2022, arXiv:2203.05482 (model soups).
    """
    sound = [one for one in learned if one.stopped is None] or learned
    if len(sound) > 1:
        mean = {
            name: torch.stack([one.weights[name] for one in sound]).mean(0)
            if value.is_floating_point()
            else value
            for name, value in sound[0].weights.items()
        }
        policy = _with_weights(clone, mean)
        look = judge(policy)
        logger.info(
            "train: held-out return %.3f of the trainings' mean, %s of each",
            look["held_out/weighted"],
            " and ".join(f"{one.kept['held_out/weighted']:.3f}" for one in sound),
        )
        if not all(clearly_worse(look, one.kept, tolerance) for one in sound):
            return policy, look, sound
        logger.info("train: the mean is clearly worse than all of them, the best is kept")
    best = min(sound, key=lambda one: (one.kept["held_out/excess"], -one.kept["held_out/weighted"]))
    return _with_weights(clone, best.weights), best.kept, [best]


def _with_weights(clone: SlatePolicy, weights: dict[str, Tensor]) -> SlatePolicy:
    policy = copy.deepcopy(clone)
    policy.load_state_dict(weights)
    return policy.eval()


def _trainer(
    run: RunDirectory, config: Config, policy: SlatePolicy, seed: int, ensemble: Ensemble
) -> "Trainer":
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
            seed=seed,
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
    on_look: OnLook,
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
