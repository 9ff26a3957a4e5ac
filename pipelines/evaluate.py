"""Stage ``evaluate``: the trained policy beside its rivals, one verdict, report.json and report.html."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from encoders.sessions import SessionLog
from pipelines.artifacts import Folder, RunDirectory
from pipelines.dataset import load_item_embeddings, load_items, load_session_log
from pipelines.examples import example_users
from pipelines.fit_simulator import LOG_CHECKS
from pipelines.logged_evidence import logged_slates, logged_target
from pipelines.parity import parity_gap
from pipelines.players import load_policy, one_task_returns, simulated_returns
from pipelines.ranking import rank_policies
from pipelines.rivals import make_scorers
from pipelines.stages import Stage, StageContext
from rl.evaluation.evidence import ranking_findings, simulated_findings, simulator_findings
from rl.evaluation.fitness import build_fitness, policy_checks
from rl.evaluation.front import build_front
from rl.evaluation.gate import Finding, judge
from rl.evaluation.gate_logged import fairness_rules, logged_findings, parity_rule
from rl.evaluation.histogram import weights_histogram
from rl.evaluation.html import render_html
from rl.evaluation.intervals import Bootstrap
from rl.evaluation.logged import exposure, logged_evidence
from rl.evaluation.pasts import user_pasts
from rl.evaluation.report import (
    Evidence,
    Returns,
    Setting,
    add_truth,
    build_report,
    log_counts,
    setting_of,
)
from rl.policy.bundle import load_bundle, write_bundle
from rl.tasks import Tasks, build_tasks

CANDIDATE = "ppo"
NUM_PROBES = 16  # states that the service replays when it loads the bundle
REPORT = "report.json"
PAGE = "report.html"
SIMULATOR_REPORT = "report.json"  # of fit-simulator: auc {task}, drift {statistic}, calibration {task: bins}
LEARNING = "learning.json"  # of train: kept {policy, iterations}, curve [{iteration, one key a curve}]


def write_report(folder: Folder, report: dict[str, Any]) -> None:
    """Write ``report.json`` and ``report.html`` into a folder, each atomically."""
    folder.write_json(REPORT, report)
    folder.write_bytes(PAGE, render_html(report).encode())


def publish_truth(run: RunDirectory, returns: Returns, upper_bound: str | None) -> dict[str, Any]:
    """Add the made-up shop's true returns to the run's report and write it again. Returns the report.

    Args:
        run: With a finished ``evaluate``.
        returns: Signed return of each live session per task, by policy. float [S, K].
        upper_bound: The one of them that knows the hidden state; None where there is none.

    Raises:
        ArtifactError: The run has no report.
        ValueError: As for ``add_truth``.
    """
    report = add_truth(run.read_json(REPORT), returns, upper_bound)
    checks = policy_checks(returns, setting_of(report), "in the made-up shop's truth")
    report["fitness"] = build_fitness(report["fitness"]["log"], checks)
    write_report(run, report)
    return report


def _evaluate(context: StageContext) -> dict[str, Any]:
    config, settings = context.config, context.config.rl.evaluation
    torch.set_num_threads(settings.num_threads)
    tasks = build_tasks(config.rl.tasks)
    setting = Setting(CANDIDATE, tasks.names, tasks.weights, settings.confidence)
    bootstrap = Bootstrap(settings.num_bootstrap, settings.confidence, config.seed)
    log = load_session_log(context.run, config)
    items = load_items(context.run)
    simulator = context.input("fit-simulator").read_json(SIMULATOR_REPORT)
    pasts = user_pasts(log, tasks)
    scorers = make_scorers(context.run, config, log, pasts, tasks)
    simulated = simulated_returns(context.run, config, log, scorers)
    ranked = rank_policies(context.run, config, log, items, pasts, scorers, CANDIDATE, tasks)
    off_policy, logged, importance = _logged(context, log, items, tasks)
    # Behaviours on logged slates favour whatever was shown: there ranking is reported, but does not decide.
    ranking = ranking_findings(ranked.scores, ranked.judged, setting, tasks, settings.gate, bootstrap)
    findings = [
        *simulated_findings(simulated, setting, tasks, settings.gate),
        *(ranking if log.slates is None else ()),
        *logged,
        *simulator_findings(simulator, settings.gate),
        parity_rule(_parity(context, log, tasks), settings.gate),
    ]
    learning = context.input("train").read_json(LEARNING)
    evidence = Evidence(
        verdict=judge(findings),
        simulated=simulated,
        **ranked.parts,
        fitness=_fitness(context, simulated, setting),
        examples=example_users(context.run, config, log, items, ranked.judged, pasts, tasks, CANDIDATE),
        front=_front(context, log, simulated, tasks),
        importance=importance,
        off_policy=off_policy,
        simulator=simulator,
        log=log_counts(log.split, len(log.items), items.num_rows, log.user_ids),
        kept=learning["kept"],
        learning_curve=learning["curve"],
    )
    report = build_report(setting, evidence)
    version = _export_bundle(context, log, report["verdict"], tasks)
    write_report(context.folder, report)
    write_report(context.run, report)
    returns = {policy["name"]: policy["weighted"]["mean"] for policy in report["simulated"]["policies"]}
    return {
        "policy_version": version,
        "promote": report["verdict"]["promote"],
        "reasons": report["verdict"]["reasons"],
        "summary": report["summary"],
        "simulated": returns,
        "num_states": len(ranked.judged),
        "num_off_policy": len(off_policy),
    }


def _fitness(context: StageContext, simulated: Returns, setting: Setting) -> dict[str, Any]:
    """What the log and the policies say of reinforcement learning here."""
    checks = context.input("fit-simulator").read_json(LOG_CHECKS)
    return build_fitness(checks, policy_checks(simulated, setting, "in the held-out simulator"))


def _front(context: StageContext, log: SessionLog, simulated: Returns, tasks: Tasks) -> dict[str, Any]:
    """Policies, the candidate at one task alone, and the sweep's trials."""
    one_task = one_task_returns(context.run, context.config, log)
    return build_front(simulated, one_task, _trials(context.run), CANDIDATE, tasks.names)


def _export_bundle(context: StageContext, log: SessionLog, verdict: dict[str, Any], tasks: Tasks) -> str:
    """Write the candidate and all its service needs into ``bundle/``. Returns the policy version."""
    sessions = log.sessions("test")[:NUM_PROBES]
    known = np.diff(log.offsets)[sessions] // 2  # in the middle of the session, so that history counts
    return write_bundle(
        context.folder.folder("bundle"),
        load_policy(context.run, CANDIDATE),
        items=load_items(context.run),
        embeddings=load_item_embeddings(context.run),
        users=context.input("embed").read_table("users.parquet"),
        encoder=context.input("embed").read_json("encoder.json"),
        config=context.config.model_dump(mode="json"),
        verdict=verdict,
        tasks=tasks,
        probes=log.states(sessions, known, context.config.rl.history_length),
        task_weights=np.tile(tasks.weights, (len(sessions), 1)),
        seed=context.config.seed,
    )


def _parity(context: StageContext, log: SessionLog, tasks: Tasks) -> float:
    """How far a bundle's answers are from the judged policy's, nats. The bundle is written again with the verdict."""
    unjudged = {"promote": False, "reasons": ["The gate has not judged this bundle."]}
    _export_bundle(context, log, unjudged, tasks)
    bundle = load_bundle(context.folder.folder("bundle"))
    items = load_items(context.run)["item_id"].to_pylist()
    return parity_gap(
        bundle, load_policy(context.run, CANDIDATE), log, items, log.sessions("test")[:NUM_PROBES]
    )


def _logged(
    context: StageContext, log: SessionLog, items: pa.Table, tasks: Tasks
) -> tuple[list[dict[str, Any]], list[Finding], dict[str, Any] | None]:
    """Rows, findings and the spread of weights, from the test sessions' slates whose propensities are known."""
    config, settings = context.config, context.config.rl.evaluation
    slates = logged_slates(log)
    if slates is None:
        return [], logged_findings(None, CANDIDATE, tasks.names, settings.gate), None
    target = logged_target(context.run, config, log, slates, CANDIDATE)
    cap, confidence = settings.max_importance_weight, settings.confidence
    rows, judged = logged_evidence(slates, target, tasks, items.num_rows, CANDIDATE, cap, confidence)
    findings = logged_findings(judged, CANDIDATE, tasks.names, settings.gate)
    if "group" in items.column_names:
        groups = np.array([str(group) for group in items["group"].to_pylist()])
        now, before = exposure(target.drawn, groups), exposure(slates.items, groups)
        findings += fairness_rules(now, before, CANDIDATE, settings.gate)
    return rows, findings, weights_histogram(judged.cumulative)


def _trials(run: RunDirectory) -> list[dict[str, Any]]:
    """The sweep's trials; none where no sweep was made."""
    if run.manifest("sweep") is None:
        return []
    trials: list[dict[str, Any]] = run.read_json("sweep/front.json")["trials"]
    return trials


EVALUATE = Stage(
    name="evaluate",
    inputs=("ingest", "embed", "fit-simulator", "train"),
    sections=("seed", "rl.tasks", "rl.slate_length", "rl.history_length", "rl.evaluation"),
    execute=_evaluate,
    fingerprint=lambda config: {"sweep": (RunDirectory(config.paths.run).manifest("sweep") or {}).get("key")},
    help="Compare the policy with its rivals and say whether to promote it.",
)
