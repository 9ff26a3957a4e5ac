"""Jobs on a running Ray cluster: send, follow, and learn how they ended."""

import asyncio
import logging
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connection import ClusterError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 0.5
LEAST_STATUS = 1  # of a job that failed without saying how


@dataclass(frozen=True)
class JobEnd:
    """How a job ended."""

    job: str
    status: str  # SUCCEEDED, FAILED or STOPPED
    exit_code: int


def run_job(
    dashboard_url: str, command: list[str], working_dir: Path, write: Callable[[str], None]
) -> JobEnd:
    """Run a command on a cluster and wait for its end.

    Args:
        dashboard_url: Where the cluster's job API listens, such as http://head:8265.
        command: Words of the command, run on the head in a copy of ``working_dir``.
        working_dir: Folder that travels along, without what its .gitignore leaves out.
        write: Told the job's log as it grows.

    Raises:
        ClusterError: The cluster cannot be reached, refuses us, or was lost on the way.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    environment = {"working_dir": str(working_dir), "env_vars": _variables()}
    try:
        client = JobSubmissionClient(dashboard_url)
        _hush()
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env=environment)
        logger.info("submit: %s at %s: %s", job, dashboard_url, shlex.join(command))
        _follow(client, job, write)
        return _end(client, job, write)
    except AuthenticationError as error:
        raise ClusterError(
            f"cluster.dashboard_url: {dashboard_url} refused us, {first_line(error)} "
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token."
        ) from error
    except (ConnectionError, OSError, RuntimeError) as error:
        raise ClusterError(
            f"cluster.dashboard_url: expected a Ray cluster's job API at {dashboard_url}, got: "
            f"{first_line(error)} Start a cluster with `ray start --head`, or name its dashboard."
        ) from error


def _variables() -> dict[str, str]:
    """On a cluster of this machine, ``python`` is then ours even if no environment was activated there."""
    if sys.prefix == sys.base_prefix:
        return {}
    return {"PATH": f"{Path(sys.executable).parent}:${{PATH}}"}


def _hush() -> None:
    """Ray tells of each file it does not upload, by loggers that set their own level."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "ray":
            logging.getLogger(name).setLevel(logging.ERROR)


def _follow(client: "JobSubmissionClient", job: str, write: Callable[[str], None]) -> None:
    """Pass on the log until it ends. A broken stream ends it too; the job's status is asked for afterwards."""
    import aiohttp

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            write(text)

    try:
        asyncio.run(tail())
    except (RuntimeError, aiohttp.ClientError) as error:
        logger.warning("submit: the log of %s broke off (%s); waiting for the job", job, first_line(error))


def _end(client: "JobSubmissionClient", job: str, write: Callable[[str], None]) -> JobEnd:
    while True:
        info = client.get_job_info(job)
        if info.status.is_terminal():
            break
        time.sleep(POLL_S)
    status = str(info.status.value)
    code = info.driver_exit_code
    if code is None or (code == 0 and status != "SUCCEEDED"):
        code = 0 if status == "SUCCEEDED" else LEAST_STATUS
        if code:
            write(f"{info.message}\n")
    return JobEnd(job=job, status=status, exit_code=code)
