import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.connection import CHECKOUT, ClusterError, connect

pytestmark = pytest.mark.ray

SCRIPT = """
import json, signal
from cluster.config import ClusterConfig
from cluster.connection import connect

before = signal.getsignal(signal.SIGTERM)
with connect(ClusterConfig(num_cpus=1)):
    import ray

    with connect(ClusterConfig()):
        pass
    assert ray.is_initialized()

    @ray.remote
    def look():
        import os, pipelines
        return pipelines.__file__, os.environ["OMP_NUM_THREADS"]

    file, threads = ray.get(look.remote())
    (node,) = ray.nodes()
    told = {"file": file, "threads": threads, "host": node["NodeManagerAddress"]}
    assert signal.getsignal(signal.SIGTERM) == before
assert not ray.is_initialized()
print(json.dumps(told))
"""


def test_local_ray_works_from_paths_with_spaces_and_stays_on_loopback(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "environment").symlink_to(Path(sys.executable).parent.parent)
    (folder / "checkout").symlink_to(CHECKOUT)

    done = subprocess.run(
        [str(folder / "environment" / "bin" / "python"), "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(folder / "checkout")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["file"]).parent.parent == CHECKOUT
    assert told["threads"] == "1"
    assert told["host"] == "127.0.0.1"


def test_unreachable_address_is_a_sentence_at_once() -> None:
    with (
        pytest.raises(
            ClusterError, match=r"cluster\.address: expected a running Ray cluster at '127.0.0.1:1'"
        ),
        connect(ClusterConfig(address="127.0.0.1:1")),
    ):
        pass
