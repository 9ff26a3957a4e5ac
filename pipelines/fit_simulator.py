"""Stage ``fit-simulator``: the training ensemble, the held-out one, and how far to trust them."""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.connection import connect
from encoders.sessions import SessionLog
from pipelines.dataset import item_categories, load_item_embeddings, load_items, load_session_log
from pipelines.progress import track
from pipelines.stages import Stage, StageContext
from rl.evaluation.delay import find_delay
from rl.evaluation.fitness import log_checks
from rl.simulator.config import SimulatorConfig
from rl.simulator.features import compared_texts, whitened_directions
from rl.simulator.fitting import FitReport, fit_member
from rl.simulator.report import drift, task_report, trust
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import response_shape
from rl.simulator.simulation import Ensemble
from rl.simulator.steps import Steps, build_steps
from rl.simulator.storage import ensemble_files, user_bucket
from rl.tasks import Tasks, build_tasks

logger = logging.getLogger(__name__)

LOG_CHECKS = "log_checks.json"  # what the log offers, known before anything is trained


class Features(NamedTuple):
    """What members read of items and pasts."""

    items: Tensor  # [N, W]
    texts: Tensor  # [N, C], as they are compared
    past_mean: NDArray[np.float32]  # [D]
    past_projection: NDArray[np.float32]  # [D, W + C]


def _fit_simulator(context: StageContext) -> dict[str, Any]:
    config, settings = context.config, context.config.rl.simulator
    tasks = build_tasks(config.rl.tasks)
    log = load_session_log(context.run, config)
    embeddings = load_item_embeddings(context.run)
    train, apart = split_sessions(log, settings)
    categories = item_categories(load_items(context.run))
    features = build_features(log, embeddings, categories, settings)
    checks = log_checks(log, find_delay(log, embeddings, tasks))
    context.folder.write_json(LOG_CHECKS, [check.to_json() for check in checks])
    logger.info("fit-simulator: %s %s", checks[-1].question, checks[-1].reason)
    with connect(config.cluster):
        ensemble, fits = fit_ensemble(
            log, train, features, tasks, settings, settings.num_members, config.seed, resample=True
        )
        heldout, held_fits = fit_ensemble(
            log,
            apart,  # few: drawing from them would lose too many
            features,
            tasks,
            settings,
            settings.num_heldout_members,
            config.seed + 10_000,
            resample=False,
        )
    for part, fitted in (("train", ensemble), ("heldout", heldout)):
        for name, data in ensemble_files(fitted).items():
            context.folder.write_bytes(f"{part}/{name}", data)
    report = _report(log, train, ensemble, heldout, config.rl.history_length, settings, config.seed)
    logger.info("fit-simulator: %s", report["trust"])
    report["fits"] = [vars(fit) for fit in (*fits, *held_fits)]
    context.folder.write_json("report.json", report)
    return {
        "mode": ensemble.members[0].shape.mode,
        "num_members": len(ensemble.members),
        "num_train_sessions": len(train),
        "num_heldout_sessions": len(apart),
        "auc": report["auc"],
        "drift": report["drift"],
    }


def split_sessions(log: SessionLog, settings: SimulatorConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The latest sessions to learn from, and those that only the held-out simulator sees.

    These are some users' training sessions and all validation sessions: the more of a short log is learned from, the
    less is made up. Both never hold a test session.
    """
    sessions = log.sessions("train")
    bucket = user_bucket([log.user_ids[s] for s in sessions])
    apart = bucket < 1000 * settings.heldout_fraction
    if not apart.any() or apart.all():
        raise ValueError(
            f"fit-simulator: expected users enough to keep {settings.heldout_fraction:.0%} of them apart, "
            f"got {len(set(log.user_ids))}. Use a longer log."
        )
    held_out = np.concatenate([sessions[apart], log.sessions("validation")])
    return sessions[~apart][-settings.max_sessions :], held_out[-settings.max_sessions :]


def fit_ensemble(
    log: SessionLog,
    sessions: NDArray[np.int64],
    features: Features,
    tasks: Tasks,
    settings: SimulatorConfig,
    num_members: int,
    seed: int,
    resample: bool,
) -> tuple[Ensemble, list[FitReport]]:
    """Fit members in parallel Ray tasks, each with its own seed and, on demand, its own draw of the sessions.

    Ray must be connected.
    """
    import ray

    item_features, item_texts, past_mean, past_projection = features
    steps = build_steps(log, sessions, tasks.parents, settings.max_steps)
    past = torch.from_numpy((log.past[steps.session.numpy()] - past_mean) @ past_projection)
    held_back = _held_back(log, steps)
    widths = (settings.text_width, settings.text_width)
    slates = log.slates is not None
    shape = response_shape(settings, steps, tasks.parents, len(item_features), widths, slates)
    shared = ray.put((shape, item_features, item_texts, steps, past, held_back, settings, resample))
    fit = ray.remote(num_cpus=1)(_fit_one)
    waiting = [fit.remote(shared, seed + index) for index in range(num_members)]
    fitted = [ray.get(result) for result in track(waiting, total=num_members, what="simulator members")]
    members = []
    for state, _ in fitted:
        member = ResponseModel(shape, item_features, item_texts)
        member.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
        members.append(member.eval().requires_grad_(False))
    ensemble = Ensemble(
        members=tuple(members),
        tasks=tasks,
        past_mean=torch.from_numpy(past_mean),
        past_projection=torch.from_numpy(past_projection),
        max_steps=settings.max_steps,
        pessimism=settings.pessimism,
    )
    return ensemble, [report for _, report in fitted]


def build_features(
    log: SessionLog,
    embeddings: NDArray[np.float32],
    categories: NDArray[np.int64],
    settings: SimulatorConfig,
) -> Features:
    """The leading directions of items and pasts, and their texts as they are compared; ``categories`` [N]."""
    texts, compared = compared_texts(embeddings, categories, settings.compared_width)
    items = (embeddings - embeddings.mean(0)) @ whitened_directions(embeddings, settings.text_width)
    pasts = log.past[log.sessions("train")]
    mean = pasts.mean(0)
    size = np.linalg.norm((pasts - mean) @ compared, axis=1)
    usual = max(float(np.sqrt((size**2).mean())), 1e-6)
    projection = np.hstack([whitened_directions(pasts, settings.text_width), compared / usual])
    return Features(torch.from_numpy(items), torch.from_numpy(texts), mean, projection)


def _fit_one(shared: Any, seed: int) -> tuple[dict[str, NDArray[np.float32]], FitReport]:
    torch.set_num_threads(1)
    shape, item_features, item_texts, steps, past, held_back, settings, resample = shared
    member, report = fit_member(
        shape, item_features, item_texts, steps, past, held_back, settings, seed, resample
    )
    return {name: value.numpy() for name, value in member.state_dict().items()}, report


def _held_back(log: SessionLog, steps: Steps) -> NDArray[np.bool_]:
    """A tenth of the users for the early stop; a tenth of the sessions where that would be none or all."""
    bucket = user_bucket([log.user_ids[s] for s in steps.session.tolist()])
    held: NDArray[np.bool_] = bucket % 10 == 0
    if not held.any() or held.all():
        held = np.arange(len(steps)) % 10 == 9
        held[-1] = True
    return held


def _report(
    log: SessionLog,
    train: NDArray[np.int64],
    ensemble: Ensemble,
    heldout: Ensemble,
    history_length: int,
    settings: SimulatorConfig,
    seed: int,
) -> dict[str, Any]:
    """Predictions and drift of the training ensemble on test sessions; drift of the held-out one beside it."""
    parents = ensemble.tasks.parents
    test = build_steps(log, log.sessions("test"), parents, settings.max_steps)
    known = build_steps(log, train, parents, settings.max_steps)
    past = torch.from_numpy(log.past[test.session.numpy()])
    report: dict[str, Any] = dict(task_report(ensemble, known, test, past, seed))
    report["drift"] = drift(ensemble, log, test, history_length, 2000, seed)
    report["trust"] = trust(report["log_loss"], report["drift"])
    report["drift_heldout"] = drift(heldout, log, test, history_length, 2000, seed)
    return report


FIT_SIMULATOR = Stage(
    name="fit-simulator",
    inputs=("ingest", "embed"),
    sections=("seed", "rl.tasks", "rl.simulator", "rl.history_length"),
    execute=_fit_simulator,
    help="Learn from the log how users respond to slates and when they leave.",
)
