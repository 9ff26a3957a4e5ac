"""Stage ``train``: clone the log, then multi-task PPO in the simulator, kept by the held-out simulator's word."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cluster.connection import connect
from encoders.sessions import SessionLog
from pipelines.artifacts import Folder, RunDirectory
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, load_session_log, load_simulator
from pipelines.judge import HeldOutJudge, Record
from pipelines.progress import track
from pipelines.stages import Stage, StageContext
from rl.policy.clone import train_clone
from rl.policy.network import PolicyShape, SlatePolicy
from rl.simulator.simulation import Simulation, summary_width
from rl.tasks import Tasks, build_tasks

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

RESUME = "resume"  # folder of the checkpoint inside the partial folder; gone before publishing


@dataclass(frozen=True)
class TrainedPolicy:
    """What training gives."""

    policy: SlatePolicy
    clone: SlatePolicy
    curve: list[Record]  # one an evaluation: iteration, training, held_out/weighted, held_out/<task>
    best_iteration: int


@dataclass(frozen=True)
class OpenSimulation:
    """Opens a run's training simulator; picklable, so that remote samplers open it by themselves."""

    uri: str
    config: Config

    def __call__(self, num_sessions: int, seed: int) -> Simulation:
        """A simulation whose sessions start from the train split's users."""
        run = RunDirectory(self.uri)
        log = load_session_log(run, self.config)
        rl = self.config.rl
        return Simulation(
            load_simulator(run, self.config, "train"),
            torch.from_numpy(log.past[log.sessions("train")]),
            num_sessions,
            rl.slate_length,
            rl.history_length,
            rl.ppo.weight_concentration,
            seed,
        )


@dataclass(frozen=True)
class OpenItemEmbeddings:
    """Opens a run's item embeddings; picklable."""

    uri: str

    def __call__(self) -> torch.Tensor:
        """float32 [N, D]."""
        return torch.from_numpy(cached_item_embeddings(self.uri))


def train_policy(
    run: RunDirectory,
    config: Config,
    on_iteration: Callable[[Record], None],
    checkpoint_folder: Folder | None,
) -> TrainedPolicy:
    """Clone and PPO on a run's finished simulator. Ray must be connected.

    Args:
        run: With finished ingest, embed and fit-simulator.
        config: Of this training; a sweep varies it.
        on_iteration: Told the record of each evaluation on the held-out simulator.
        checkpoint_folder: Where to keep what a restart continues from; None keeps nothing.
    """
    log = load_session_log(run, config)
    tasks = build_tasks(config.rl.tasks)
    clone = make_clone(run, config, log, tasks)
    judge = HeldOutJudge(run, config, log)
    algorithm = _algorithm(run, config, clone, tasks)
    try:
        progress = _Progress(checkpoint_folder, algorithm, clone)
        curve = _iterate(algorithm, config, judge, progress, on_iteration)
    finally:
        algorithm.stop()
    policy = copy.deepcopy(clone)
    policy.load_state_dict(progress.best)
    return TrainedPolicy(policy.eval(), clone, curve, progress.best_iteration)


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


def _algorithm(run: RunDirectory, config: Config, clone: SlatePolicy, tasks: Tasks) -> "Algorithm":
    from rl.policy.algorithm import build_algorithm, set_clone

    algorithm = build_algorithm(
        config.rl.ppo,
        clone.shape,
        OpenItemEmbeddings(run.uri),
        OpenSimulation(run.uri, config),
        summary_width=summary_width(
            len(tasks), load_simulator(run, config, "train").members[0].shape.feature_width
        ),
        task_names=tasks.names,
        seed=config.seed,
    )
    set_clone(algorithm, clone.state_dict())
    return algorithm


class _Progress:
    """Where training stands; written as a checkpoint folder and a JSON file that names it, the file last."""

    def __init__(self, folder: Folder | None, algorithm: "Algorithm", clone: SlatePolicy) -> None:
        self.folder = folder
        self.algorithm = algorithm
        self.policy = clone
        self.best = {name: value.clone() for name, value in clone.state_dict().items()}
        self.best_iteration, self.best_return = 0, float("-inf")
        self.iteration = 0
        self.curve: list[Record] = []
        if folder is not None and folder.exists("progress.json"):
            state = folder.read_json("progress.json")
            self.iteration, self.curve = state["iteration"], state["curve"]
            self.best_iteration, self.best_return = state["best_iteration"], state["best_return"]
            self.best = load_safetensors(folder.read_bytes(f"{state['checkpoint']}-best.safetensors"))
            algorithm.restore_from_path(folder.join(state["checkpoint"]), filesystem=folder.filesystem)
            logger.info("train: continues from iteration %d", self.iteration)

    def note(self, iteration: int, record: Record, state: dict[str, torch.Tensor]) -> None:
        """Add an evaluation and write a checkpoint."""
        self.iteration = iteration
        self.curve.append(record)
        if record["held_out/weighted"] > self.best_return:
            self.best, self.best_iteration = state, iteration
            self.best_return = record["held_out/weighted"]
        if self.folder is None:
            return
        name = f"checkpoint-{iteration:06d}"
        self.folder.folder(name).delete()
        self.algorithm.save_to_path(self.folder.join(name), filesystem=self.folder.filesystem)
        self.folder.write_bytes(f"{name}-best.safetensors", save_safetensors(self.best))
        before = (
            self.folder.read_json("progress.json")["checkpoint"]
            if self.folder.exists("progress.json")
            else None
        )
        self.folder.write_json(
            "progress.json",
            {
                "checkpoint": name,
                "iteration": iteration,
                "curve": self.curve,
                "best_iteration": self.best_iteration,
                "best_return": self.best_return,
            },
        )
        if before and before != name:
            self.folder.folder(before).delete()
            self.folder.filesystem.delete_file(self.folder.join(f"{before}-best.safetensors"))


def _iterate(
    algorithm: "Algorithm",
    config: Config,
    judge: HeldOutJudge,
    progress: _Progress,
    on_iteration: Callable[[Record], None],
) -> list[Record]:
    """PPO rounds with a look at the held-out simulator now and then; stops when it has not risen for long."""
    from rl.policy.algorithm import actor_state

    ppo = config.rl.ppo
    policy = copy.deepcopy(progress.policy)
    for iteration in track(
        range(progress.iteration + 1, ppo.num_iterations + 1),
        ppo.num_iterations - progress.iteration,
        "PPO rounds",
    ):
        result = algorithm.train()
        if iteration % ppo.judge_every and iteration != ppo.num_iterations:
            continue
        state = actor_state(algorithm)
        policy.load_state_dict(state)
        learned = result["learners"]["default_policy"]
        record = {"iteration": float(iteration), **judge(policy)}
        record["training"] = float(result["env_runners"].get("episode_return_mean", float("nan")))
        record |= {name: float(learned[name]) for name in ("clone_kl", "entropy") if name in learned}
        progress.note(iteration, record, state)
        on_iteration(record)
        if iteration - progress.best_iteration >= ppo.judge_patience:
            logger.info(
                "train: the held-out simulator has not risen for %d rounds, stopped", ppo.judge_patience
            )
            break
    return progress.curve


def _train(context: StageContext) -> dict[str, Any]:
    config = context.config

    def tell(record: Record) -> None:
        logger.info(
            "train: round %d of %d, held-out return %.3f (training %.3f)",
            record["iteration"],
            config.rl.ppo.num_iterations,
            record["held_out/weighted"],
            record["training"],
        )

    torch.set_num_threads(config.rl.ppo.num_threads)
    checkpoints = context.folder.folder(RESUME)
    with connect(config.cluster):
        trained = train_policy(context.run, config, tell, checkpoints)
    context.folder.write_json("shape.json", trained.policy.shape.model_dump())
    for name, policy in (("ppo", trained.policy), ("clone", trained.clone)):
        weights = {n: value.contiguous().clone() for n, value in policy.state_dict().items()}
        context.folder.write_bytes(f"{name}.safetensors", save_safetensors(weights))
    curve = [
        {"iteration": int(r["iteration"]), "training": r["training"], "held_out": r["held_out/weighted"]}
        for r in trained.curve
    ]
    context.folder.write_json("learning_curve.json", curve)
    checkpoints.delete()
    best = max((record["held_out/weighted"] for record in trained.curve), default=float("nan"))
    return {
        "num_iterations": int(trained.curve[-1]["iteration"]),
        "best_iteration": trained.best_iteration,
        "held_out_return": best,
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
        "rl.ppo",
    ),
    execute=_train,
    help="Clone the log's choices, then improve on them by multi-task PPO in the simulator.",
)
