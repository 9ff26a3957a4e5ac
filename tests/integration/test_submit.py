import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from cluster.connection import CHECKOUT
from tests.integration.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        with ray_cluster(TOKEN) as running:
            yield running


def submit(
    cluster: RayCluster, words: list[str], where: Path, variables: dict[str, str] = TOKEN
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", "submit", f"cluster.dashboard_url={cluster.dashboard_url}"]
    return subprocess.run(
        [*command, "--json", "--", *words],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **variables},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def write_log(file: Path) -> None:
    hours = [f"2024-01-{day:02d}T{hour:02d}:00:00Z" for day in range(1, 11) for hour in (3, 9, 15)]
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{(user + n) % 7}", "behaviour": "view", "timestamp": time}
        for user in range(4)
        for n, time in enumerate(hours)
    ]
    pl.DataFrame(rows).write_csv(file)


def test_submit_runs_a_stage_on_the_cluster_from_relative_paths(cluster: RayCluster, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_log(folder / "log.csv")

    done = submit(cluster, ["ingest", "paths.log=log.csv", "paths.run=run"], folder)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "SUCCEEDED"
    assert "ingest: done" in done.stderr
    assert json.loads((folder / "run/ingest/manifest.json").read_text())["result"]["rows_in"] == 120


def test_submit_ends_with_the_status_of_a_failing_stage(cluster: RayCluster, tmp_path: Path) -> None:
    done = submit(
        cluster, ["ingest", f"paths.log={tmp_path}/none.csv", f"paths.run={tmp_path}/run"], tmp_path
    )

    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "FAILED"
    assert "slatewise ingest: paths.log: expected" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "6" * 64}, "Invalid authentication token"),
        ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token"),
    ],
)
def test_submit_says_in_one_line_that_the_cluster_refuses(
    cluster: RayCluster, tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    done = submit(cluster, ["status", "x"], tmp_path, variables)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_travels_leaves_out_environment_and_history(cluster: RayCluster, tmp_path: Path) -> None:
    script = (
        "import json, pathlib, ray, pipelines\n"
        "from cluster.config import ClusterConfig\n"
        "from cluster.connection import connect\n"
        "where = pathlib.Path(pipelines.__file__).parent.parent\n"
        f"with connect(ClusterConfig(address={cluster.address!r})):\n"
        "    @ray.remote\n"
        "    def look():\n"
        "        import pathlib, pipelines\n"
        "        root = pathlib.Path(pipelines.__file__).parent.parent\n"
        "        return str(root), sorted(path.name for path in root.iterdir())\n"
        "    print(json.dumps(ray.get(look.remote())))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    root, names = json.loads(done.stdout)
    assert root != str(CHECKOUT)
    assert {"pipelines", "cluster", "rl", "serve", "encoders"} <= set(names)
    assert not {".git", ".venv", "runs"} & set(names)
