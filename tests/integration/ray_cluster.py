"""A Ray cluster of one host, on ports of its own, for tests of what joins or is sent to one."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

WAIT_S = 90


@dataclass(frozen=True)
class RayCluster:
    """Where it listens."""

    address: str
    dashboard_url: str


@contextlib.contextmanager
def ray_cluster(environment: dict[str, str]) -> Iterator[RayCluster]:
    """A head started by ``ray start --block``; ``environment`` holds its token. Stops nothing but its own."""
    port, dashboard, agent, client, metrics = _free_ports(5)
    home = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie below it
    environment_path = Path(home, "environment")  # Ray cannot start a cluster from a path with a space in it
    environment_path.symlink_to(sys.prefix)
    command = [str(environment_path / "bin" / "python"), "-m", "ray.scripts.scripts", "start"]
    command += ["--head", "--block", "--num-cpus=2"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    command += [f"--metrics-export-port={metrics}"]
    command += [f"--temp-dir={home}", "--include-dashboard=true"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats"]
    # A local Ray that this process started before has bound it to loopback, where a head names no address.
    inherited = {
        name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    }
    with Path(home, "start.log").open("w") as log:
        head = subprocess.Popen(
            command, stdout=log, stderr=log, env={**inherited, **environment}, start_new_session=True
        )
    try:
        dashboard_url = f"http://127.0.0.1:{dashboard}"
        address = _wait_for(dashboard_url, environment, head, Path(home, "start.log"))
        yield RayCluster(address, dashboard_url)
    finally:
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=20)
        _kill_all(home)
        head.wait(timeout=20)
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(url: str, environment: dict[str, str], head: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the head names its address and the job API answers. Returns the address.

    Not through Ray's client: that reads the token's variables once a process.
    """
    request = Request(
        f"{url}/api/jobs/", headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    )
    end = time.monotonic() + WAIT_S
    while True:
        named = re.search(r"ray start --address='([^']+)'", log.read_text())
        with contextlib.suppress(OSError):
            urlopen(request, timeout=5).close()
            if named is not None:
                return named[1]
        assert head.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.3)


def _kill_all(home: str) -> None:
    """End what still runs of this cluster: processes whose command line names its own folder."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if home.encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
