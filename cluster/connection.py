"""The connection to Ray: a local one for the length of a stage, or a running cluster."""

import logging
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig

CHECKOUT = Path(__file__).resolve().parent.parent
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entrypoint of a submitted job

PROBE_TIMEOUT_S = 5


class ClusterError(ValueError):
    """A Ray cluster cannot be reached, or refuses us."""


@contextmanager
def connect(config: ClusterConfig) -> Iterator[None]:
    """Ray for the length of a ``with`` block.

    Starts a local Ray on loopback without a dashboard, or joins ``config.address``, and leaves again at the end.
    Nothing happens where this process is connected already. Workers import our packages from this checkout, run
    one thread a process, and no usage statistics are sent.

    Raises:
        ClusterError: The address cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its warning speaks to nobody here
    if config.address is None:
        # Read when Ray is imported: off, a local Ray stays on loopback, on Linux too despite the name.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    _start(config)
    _restore(handler)  # Ray's own would leave in the middle with status 15
    try:
        yield
    finally:
        ray.shutdown()


def _start(config: ClusterConfig) -> None:
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if config.address is None:
        ray.init(
            address="local",
            num_cpus=config.num_cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            # Ray's own is 15: beside any other work, a stage's workers would hardly get a turn.
            _system_config={"worker_niceness": 0},
            runtime_env=_local_environment(),
            **quiet,
        )
        return
    _probe(config.address)
    try:
        ray.init(address=config.address, runtime_env=_remote_environment(), **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(config.address, error) from error


def _probe(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, local or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"cluster.address: expected a running Ray cluster at {address!r}, got: {first_line(error)} "
        "Start one with `ray start --head`, or leave cluster.address out."
    )


def _local_environment() -> dict[str, Any]:
    """Workers find our packages wherever the driver was started."""
    paths = [str(CHECKOUT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    variables = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1"}
    # Ray hands the interpreter's path to a shell as it is, and waits for ever where the path has a space in it.
    return {"env_vars": variables, "py_executable": shlex.quote(sys.executable)}


def _remote_environment() -> dict[str, Any]:
    """The checkout travels to the hosts, unless a job brought it or the packages are installed there."""
    environment: dict[str, Any] = {"env_vars": {"OMP_NUM_THREADS": "1"}}
    if JOB_VARIABLE not in os.environ and (CHECKOUT / "pyproject.toml").is_file():
        environment["working_dir"] = str(CHECKOUT)
    return environment


def _restore(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def first_line(error: BaseException) -> str:
    """First line of an error's text as a sentence, for one-line messages."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__).strip()
    return text if text.endswith((".", "!", "?")) else text + "."
