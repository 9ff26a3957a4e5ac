"""Workers and drivers killed at random moments, any number of workers and threads: the same bytes, and nothing left."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.artifacts import RunDirectory

ROOT = Path(__file__).parents[2]
KEY = {"SLATEWISE_TEST_KEY": "a key of the test"}
RAW = b"rawuser"
NUM_KILLS = 10


def write_log(folder: Path) -> None:
    folder.mkdir()
    for number in range(6):
        rows = [
            f"rawuser{n * 7919 % 997},item{n % 83},{'view' if n % 9 else 'odd'},{1577836800 + number * 4000 + n},{n}\n"
            for n in range(4_000)
        ]
        (folder / f"{number}.csv").write_text(
            "user_id,item_id,behaviour,timestamp,value\n" + "".join(rows + rows[:9])
        )


def start(tmp_path: Path, run: str, workers: int = 2, threads: int = 1) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "ingest",
        f"paths.run={tmp_path}/{run}",
        f"paths.log={tmp_path}/log",
    ]
    command += [
        "ingest.pseudonym_key_env=SLATEWISE_TEST_KEY",
        "ingest.user_shards=5",
        f"cluster.num_cpus={workers}",
    ]
    environment = {**os.environ, **KEY, "POLARS_MAX_THREADS": str(threads)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def tables(tmp_path: Path, run: str) -> dict[str, str]:
    manifest = RunDirectory(f"{tmp_path}/{run}").manifest("ingest")
    assert manifest is not None
    return {name: entry["sha256"] for name, entry in manifest["files"].items() if name != "config.json"}


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def assert_nothing_is_left(tmp_path: Path, run: str) -> None:
    files = [path for path in (tmp_path / run).rglob("*") if path.is_file()]
    assert not [
        path for path in files if path.suffix == ".tmp" or ".partial" in path.parts or "parts" in path.parts
    ]
    assert not [path for path in files if RAW in path.read_bytes()]


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the workers in /proc, as Linux has it"
)
@pytest.mark.slow
def test_killed_workers_and_drivers_change_no_byte(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    begin = time.monotonic()
    finish(start(tmp_path, "calm"))
    lasted = time.monotonic() - begin
    calm, chance, killed, number = tables(tmp_path, "calm"), random.Random(0), 0, 0
    while killed < NUM_KILLS:
        assert number < 5 * NUM_KILLS, "ingest ended before it could be killed, again and again"
        run, driver = f"run-{number}", killed % 2 == 1
        number += 1
        process = start(tmp_path, run)
        time.sleep(lasted * (0.3 + 0.7 * chance.random()))
        victims = [process.pid] if driver else children(process.pid) if process.poll() is None else []
        late = process.poll() is not None
        if late or not victims:  # before there is a worker
            finish(process)
            lasted *= 0.8 if late else 1.2
            continue
        os.kill(chance.choice(victims), signal.SIGKILL)
        killed += 1
        if driver:
            process.communicate()
            assert not [
                path for path in (tmp_path / run).rglob("*") if path.is_file() and RAW in path.read_bytes()
            ]
            process = start(tmp_path, run)
        finish(process)

        assert tables(tmp_path, run) == calm
        assert_nothing_is_left(tmp_path, run)


@pytest.mark.slow
def test_additions_killed_at_random_moments_change_no_byte(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    late = [tmp_path / "log" / name for name in ("4.csv", "5.csv")]
    (tmp_path / "held").mkdir()
    for path in late:
        path.rename(tmp_path / "held" / path.name)
    finish(start(tmp_path, "first"))
    for path in late:
        (tmp_path / "held" / path.name).rename(path)
    shutil.copytree(tmp_path / "first", tmp_path / "calm")
    begin = time.monotonic()
    finish(start(tmp_path, "calm"))
    lasted = time.monotonic() - begin
    calm, chance = tables(tmp_path, "calm"), random.Random(1)
    for number in range(3):
        run = f"run-{number}"
        shutil.copytree(tmp_path / "first", tmp_path / run)
        process = start(tmp_path, run)
        time.sleep(lasted * (0.4 + 0.6 * chance.random()))
        process.kill()
        process.communicate()

        finish(start(tmp_path, run))

        assert tables(tmp_path, run) == calm
        assert_nothing_is_left(tmp_path, run)
    assert {"behaviours/shard-00000.parquet", "behaviours/shard-00000.0001.parquet"} <= set(calm)


def test_any_number_of_workers_and_threads_gives_the_same_bytes(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    ways = [(1, 1), (3, 1), (2, 3)]
    for workers, threads in ways:
        finish(start(tmp_path, f"{workers}-{threads}", workers, threads))

    first, *others = [tables(tmp_path, f"{workers}-{threads}") for workers, threads in ways]

    assert all(other == first for other in others)
    assert {"items.parquet", "behaviours/shard-00004.parquet", "rejected/piece-00000-0000.parquet"} <= set(
        first
    )
    assert_nothing_is_left(tmp_path, "1-1")
