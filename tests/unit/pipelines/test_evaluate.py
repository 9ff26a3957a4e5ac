"""The evaluate stage on a made-up log, with the policies' players replaced by figures."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

import rl.evaluation
from encoders.sessions import LoggedSlates, SessionLog
from pipelines import evaluate, ranking
from pipelines.artifacts import SCHEMA_VERSION, ArtifactError, RunDirectory
from pipelines.config import build_config, override_config
from pipelines.stages import StageContext
from rl.evaluation.delay import find_delay
from rl.evaluation.fitness import log_checks
from rl.evaluation.logged import Target
from rl.tasks import build_tasks
from tests.unit.rl.evaluation_logs import session_log

NUM_ITEMS = 12
POLICIES = ("random", "popular", "clone", "ppo")
SCHEMA = json.loads((Path(rl.evaluation.__file__).parent / "report.schema.json").read_text())


def made_up_log(with_slates: bool) -> SessionLog:
    rng = np.random.default_rng(0)
    sessions = [
        [(int(rng.integers(NUM_ITEMS)), int(rng.integers(2))) for _ in range(rng.integers(1, 6))]
        for _ in range(90)
    ]
    log = session_log(sessions, [0] * 50 + [1] * 10 + [2] * 30, users=[f"u{i % 25}" for i in range(90)])
    if not with_slates:
        return log
    slates = LoggedSlates(
        session=np.arange(90),
        items=np.tile([[0, 1]], (90, 1)),
        responses=rng.integers(0, 2, size=(90, 2, 3)).astype(np.float32),
        values=np.zeros((90, 2, 3), dtype=np.float32),
        propensities=np.full((90, 2), 0.25),
        behaviours_before=np.zeros(90, dtype=np.int64),
    )
    return replace(log, slates=slates)


@pytest.fixture
def context(tmp_path, monkeypatch):
    run = RunDirectory(str(tmp_path / "run"))
    learning = {
        "kept": {"policy": "tilt", "iterations": []},
        "curve": [{"iteration": 1, "training": 1.0, "held_out": 0.9, "held_out_tilt": 1.9}],
    }
    run.write_json("train/learning.json", learning)
    simulator = {
        "auc": {"view": 0.8, "cart": 0.7, "purchase": 0.7},
        "drift": {"return": 0.05},
        "calibration": {},
    }
    run.write_json("fit-simulator/report.json", simulator)
    rng = np.random.default_rng(1)
    returns = {
        name: rng.normal(mean, 1, size=(200, 3))
        for name, mean in {"logging": 1, "clone": 1.1, "ppo": 3}.items()
    }
    ids = [str(i) for i in range(NUM_ITEMS)]
    table = pa.table({"item_id": ids, "category": ["even" if i % 2 else "odd" for i in range(NUM_ITEMS)]})
    scorers = {name: lambda states, sessions: rng.random((len(states), NUM_ITEMS)) for name in POLICIES}
    monkeypatch.setattr(evaluate, "load_session_log", lambda run, config: made_up_log(with_slates=True))
    monkeypatch.setattr(evaluate, "load_items", lambda run: table)
    embeddings = rng.random((NUM_ITEMS, 2), dtype=np.float32)
    monkeypatch.setattr(ranking, "cached_item_embeddings", lambda uri: embeddings)
    log, tasks = made_up_log(with_slates=True), build_tasks(build_config({}).rl.tasks)
    checks = [check.to_json() for check in log_checks(log, find_delay(log, embeddings, tasks))]
    run.write_json("fit-simulator/log_checks.json", checks)
    monkeypatch.setattr(evaluate, "example_users", lambda *given: [])
    monkeypatch.setattr(evaluate, "one_task_returns", lambda *given: {"view": returns["ppo"] + 1})
    monkeypatch.setattr(evaluate, "make_scorers", lambda *given: scorers)
    monkeypatch.setattr(evaluate, "simulated_returns", lambda *given: returns)
    monkeypatch.setattr(
        evaluate,
        "logged_target",
        lambda run, config, log, slates, name: Target(
            np.full(slates.items.shape, np.log(0.3)),
            slates.items[:, None],
            lambda rows, values: np.ones((len(rows), 2, 1)) * values.mean(axis=0),
        ),
    )
    monkeypatch.setattr(evaluate, "_parity", lambda context, log, tasks: 1e-6)
    monkeypatch.setattr(
        evaluate, "_export_bundle", lambda *given: "version-1"
    )  # the loop's test writes a real one
    config = build_config({"rl": {"evaluation": {"num_bootstrap": 100}}})
    return StageContext(config=config, run=run, folder=run.folder(".partial/evaluate-1"))


def test_stage_writes_the_report_into_its_folder_and_the_run(context):
    result = evaluate.EVALUATE.execute(context)

    report = context.run.read_json("report.json")
    jsonschema.validate(report, SCHEMA)
    assert report == context.folder.read_json("report.json")
    assert context.run.read_bytes("report.html") == context.folder.read_bytes("report.html")
    assert list(report["ranking"]) == ["view", "cart", "purchase"]
    for part in (report["ranking"]["view"], report["overall"], report["lists"]):
        assert tuple(row["name"] for row in part) == POLICIES
    assert [check["answer"] for check in report["fitness"]["log"]] == ["yes", "yes", "no", "unknown", "no"]
    assert [check["answer"] for check in report["fitness"]["policies"]] == ["yes"]  # than the clone
    assert {p["name"]: p["best"] for p in report["front"]["points"]}["ppo for view alone"]
    assert sum(report["importance"]["counts"]) == 30
    assert report["segments"]["reference"] in ("random", "popular")
    assert {row["kind"] for row in report["segments"]["rows"]} >= {"items", "users", "category"}
    assert {row["first"] for row in report["comparisons"]} == {"random", "popular", "clone"}
    assert result["promote"] == report["verdict"]["promote"]
    assert report["log"]["test_sessions"] == 30
    assert result["policy_version"] == "version-1"
    json.dumps(result, allow_nan=False)


def test_page_says_what_training_kept(context):
    evaluate.EVALUATE.execute(context)
    assert context.run.read_json("report.json")["kept"] == {"policy": "tilt", "iterations": []}
    assert b"ppo is the clone tilted along the text" in context.run.read_bytes("report.html")

    for iterations, says in (
        ([1200], b"ppo is what iteration 1,200 had learned."),
        ([1200, 90], b"ppo is the mean of 2 trainings\nby iterations 1,200 and 90."),
    ):
        kept = {"kept": {"policy": "ppo", "iterations": iterations}}
        context.run.write_json("train/learning.json", context.run.read_json("train/learning.json") | kept)
        evaluate.EVALUATE.execute(context)
        page = context.run.read_bytes("report.html")
        assert says in page and b"tilted along the text" not in page


def test_only_slates_of_test_sessions_are_off_policy_evidence(context):
    evaluate.EVALUATE.execute(context)

    rows = context.run.read_json("report.json")["off_policy"]

    assert {row["policy"] for row in rows} == {"logging", "ppo"}
    assert {row["estimate"]["n"] for row in rows} == {30}
    ips = next(row for row in rows if row["estimator"] == "ips" and row["task"] == "view")
    logged = next(row for row in rows if row["estimator"] == "logged" and row["task"] == "view")
    assert ips["estimate"]["mean"] == pytest.approx(logged["estimate"]["mean"] * (0.3 / 0.25) ** 2)


def test_log_without_slates_is_evaluated_without_off_policy_estimates(context, monkeypatch):
    monkeypatch.setattr(evaluate, "load_session_log", lambda run, config: made_up_log(with_slates=False))

    evaluate.EVALUATE.execute(context)

    report = context.run.read_json("report.json")
    assert report["off_policy"] == []
    assert any("no slates with propensities" in reason for reason in report["verdict"]["reasons"])


def test_untrustworthy_simulator_stops_promotion(context):
    poor = {"auc": {"view": 0.4}, "drift": {"return": 0.9}, "calibration": {}}
    context.run.write_json("fit-simulator/report.json", poor)

    result = evaluate.EVALUATE.execute(context)

    assert result["promote"] is False
    assert any("0.400" in reason for reason in result["reasons"])


def test_truth_is_added_to_the_runs_report_and_page(context):
    evaluate.EVALUATE.execute(context)
    rng = np.random.default_rng(2)
    returns = {
        name: rng.normal(mean, 1, size=(100, 3))
        for name, mean in {"popular": 1, "ppo": 2, "oracle": 9}.items()
    }

    evaluate.publish_truth(context.run, returns, "oracle")

    report = context.run.read_json("report.json")
    jsonschema.validate(report, SCHEMA)
    assert report["truth"]["upper_bound"]["name"] == "oracle"
    assert report["fitness"]["policies"] == []  # neither clone, greedy nor bandit was played live
    assert len(report["fitness"]["log"]) == 5
    assert b"upper bound (oracle)" in context.run.read_bytes("report.html")


def test_sweeps_trials_join_the_front_and_make_evaluate_run_again(context):
    before = evaluate.EVALUATE.fingerprint(context.config)
    config = override_config(context.config, {"paths.run": context.run.uri})
    trial = {"returns": {"view": 9.0, "cart": 9.0, "purchase": 9.0}}
    context.run.write_json("sweep/front.json", {"trials": [trial], "best": trial})
    context.run.write_json("sweep/manifest.json", {"schema_version": SCHEMA_VERSION, "key": "k", "files": {}})

    evaluate.EVALUATE.execute(context)

    points = context.run.read_json("report.json")["front"]["points"]
    assert [(p["name"], p["returns"]) for p in points if p["best"]] == [("trial 0", [9.0, 9.0, 9.0])]
    assert evaluate.EVALUATE.fingerprint(config) != before


def test_truth_without_a_report_says_what_to_run(tmp_path):
    with pytest.raises(ArtifactError, match=r"report\.json: expected a file, found none"):
        evaluate.publish_truth(RunDirectory(str(tmp_path)), {}, None)
