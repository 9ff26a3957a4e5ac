"""Where logs may lie, and where ingest's tasks may run."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector

from cluster.config import ClusterConfig
from cluster.connection import connect
from pipelines.artifacts import RunDirectory
from pipelines.config import load_config
from pipelines.ingest import INGEST
from pipelines.stages import run_stage
from tests.integration.test_ingest import HEADER, many_rows, write


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a local S3 service; pyarrow finds the service as any client does."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="shop")
    yield f"s3://shop/{{}}?endpoint_override={host}:{port}&scheme=http"
    server.stop()


def put(uri: str, name: str, data: bytes) -> None:
    service = boto3.client("s3", endpoint_url=f"http://{uri.split('endpoint_override=')[1].split('&')[0]}")
    service.put_object(Bucket="shop", Key=name, Body=data)


def test_a_log_on_s3_gives_the_tables_of_a_local_one(tmp_path: Path, bucket: str) -> None:
    write(tmp_path, "a.csv", many_rows())
    write(tmp_path, "b.csv.gz", HEADER + "u1,i2,view,2020-03-01\n,i2,view,2020-03-01\n")
    (tmp_path / "log/day=2020-01-01").mkdir()
    frame = pl.DataFrame(
        {"user_id": [5, 6], "item_id": [1, 2], "behaviour": ["view"] * 2, "timestamp": [1583000000] * 2}
    )
    frame.write_parquet(tmp_path / "log/day=2020-01-01/c.parquet")
    for path in (tmp_path / "log").rglob("*.*"):
        if path.is_file():
            put(bucket, f"logs/{path.relative_to(tmp_path / 'log')}", path.read_bytes())
    put(bucket, "logs/_SUCCESS", b"")
    settings = ["rl.slate_length=2", "ingest.user_shards=2", "cluster.num_cpus=1"]
    local = load_config(None, [f"paths.log={tmp_path}/log", f"paths.run={tmp_path}/local", *settings])
    remote = load_config(
        None, [f"paths.log={bucket.format('logs')}", "paths.run=s3://shop/runs/one", *settings]
    )

    expected = run_stage(INGEST, local)
    found = run_stage(INGEST, remote)

    tables = {name for name in expected["files"] if name.endswith(".parquet")}
    assert len(tables) > 3
    assert {n: found["files"][n] for n in tables} == {n: expected["files"][n] for n in tables}
    assert run_stage(INGEST, remote)["skipped"]
    run = RunDirectory(remote.paths.run)
    assert run.sha256("ingest/items.parquet") == found["files"]["items.parquet"]["sha256"]
    lying = run.filesystem.get_file_info(FileSelector(run.path, recursive=True))
    assert not [info for info in lying if "/.partial/" in info.path or info.path.endswith(".tmp")]
    glob = load_config(
        None, [f"paths.log={bucket.format('logs/*.csv')}", f"paths.run={tmp_path}/glob", *settings]
    )
    assert run_stage(INGEST, glob)["result"]["rows_in"] == 200


@pytest.mark.ray
def test_rays_tasks_give_the_bytes_of_our_own_processes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv.gz"):
        write(tmp_path, name, many_rows() + f"{name},,view,2020-01-01\n")
    settings = [f"paths.log={tmp_path}/log", "rl.slate_length=2", "ingest.user_shards=4"]
    settings.append("ingest.max_rejected_fraction=1")  # the second file repeats the first
    local = run_stage(
        INGEST, load_config(None, [f"paths.run={tmp_path}/local", "cluster.num_cpus=2", *settings])
    )
    with connect(ClusterConfig(num_cpus=2)):
        on_ray = run_stage(INGEST, load_config(None, [f"paths.run={tmp_path}/ray", *settings]))

    assert {**on_ray["files"], "config.json": None} == {**local["files"], "config.json": None}
