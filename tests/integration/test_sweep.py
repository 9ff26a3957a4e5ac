"""A sweep that loses its driver in the middle and goes on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.connection import CHECKOUT
from tests.integration.sweep_driver import NUM_BEFORE_KILL, NUM_TRIALS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PARTIAL = ".partial/sweep-0123456789abcdef"


def start(run: Path) -> subprocess.Popen[str]:
    with (run / "driver.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.sweep_driver", str(run)],
            cwd=CHECKOUT,
            env={**os.environ, "TUNE_GLOBAL_CHECKPOINT_S": "0.5"},
            stdout=log,
            stderr=log,
            text=True,
        )


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str], run: Path) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert driver.poll() is None and time.monotonic() < end, (run / "driver.log").read_text()
        time.sleep(0.1)


def started(run: Path) -> list[float]:
    file = run / "started"
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


def num_ended(run: Path) -> int:
    """Trials that Tune's last saved state calls ended."""
    states = sorted((run / PARTIAL / "tune").glob("experiment_state-*.json"))
    return states[-1].read_text().count("TERMINATED") if states else 0


def test_sweep_killed_in_the_middle_trains_only_the_rest_and_reports_all(tmp_path: Path) -> None:
    driver = start(tmp_path)
    wait_for(
        lambda: len(started(tmp_path)) > NUM_BEFORE_KILL and num_ended(tmp_path) >= NUM_BEFORE_KILL,
        driver,
        tmp_path,
    )
    driver.kill()
    driver.wait()
    before = started(tmp_path)
    (tmp_path / "go").touch()

    again = start(tmp_path)

    assert again.wait(timeout=100) == 0, (tmp_path / "driver.log").read_text()
    front = json.loads((tmp_path / PARTIAL / "front.json").read_text())
    assert len(front["trials"]) == NUM_TRIALS
    assert not set(started(tmp_path)[len(before) :]) & set(before[:NUM_BEFORE_KILL])
    for trial in front["trials"]:
        view, purchase = (trial["values"][f"rl.tasks.{name}.weight"] for name in ("view", "purchase"))
        assert trial["iterations"] == 4
        assert trial["returns"] == {"view": view, "purchase": purchase}  # of round 2, which training keeps
        assert trial["weighted"] == pytest.approx(0.25 * view + 0.75 * purchase)
    assert front["best"]["weighted"] == max(trial["weighted"] for trial in front["trials"])
    assert [path.name for path in (tmp_path / PARTIAL).iterdir()] == ["front.json"]
