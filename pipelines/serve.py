"""Command ``serve``: a policy behind HTTP until it is told to stop."""

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster.connection import connect, first_line
from pipelines.artifacts import ArtifactError, Folder, RunDirectory
from pipelines.config import Config
from pipelines.environment import environment
from rl.policy.bundle import Bundle, load_bundle
from rl.policy.bundle_files import MANIFEST
from serve.binding import check_port, fast_environment
from serve.config import ServeConfig
from serve.gate import check_verdict

logger = logging.getLogger(__name__)

BUNDLE = "evaluate/bundle"  # where a run keeps it
_LOOK_S = 0.2  # between two looks at whether we were told to stop


class ServiceError(ValueError):
    """The service cannot start."""


def serve_command(config: Config, policy: str | None = None) -> None:
    """Serve a policy until Ctrl-C or SIGTERM.

    Args:
        config: The resolved config.
        policy: Run directory or bundle folder; None takes ``serve.policy``, then ``paths.run``.

    Raises:
        ArtifactError: There is no bundle there.
        BundleError: The bundle is damaged.
        NotPromotedError: The gate refused the policy and nobody allowed it.
        ServiceError: The service did not come up.
        PortError: The port is in use.
    """
    folder = bundle_folder(policy or config.serve.policy or config.paths.run)
    bundle = load_bundle(folder)
    check_verdict(bundle, config.serve.allow_unpromoted)
    local = config.cluster.address is None
    if local:
        check_port(config.serve.host, config.serve.port)
    logger.info("serve: starting policy %s (%s)", bundle.version, folder.path)
    with _stop_signals() as stop, _service(folder, config, local):
        print(_welcome(bundle, config.serve), flush=True)
        while not stop.called:
            time.sleep(_LOOK_S)
        logger.info("serve: stopping")


def bundle_folder(policy: str) -> Folder:
    """The bundle of a run directory, or the folder itself where it is one.

    Raises:
        ArtifactError: It is neither.
    """
    root = RunDirectory(policy)
    if root.exists(f"{BUNDLE}/{MANIFEST}"):
        return root.folder(BUNDLE)
    if root.exists("policy.safetensors"):
        return root
    raise ArtifactError(
        f"{root.join(BUNDLE)}: expected a policy bundle, found none. Run `slatewise evaluate "
        f"paths.run={policy}` first, or name a bundle's folder."
    )


@contextmanager
def _service(folder: Folder, config: Config, local: bool) -> Iterator[None]:
    """The service on Ray, up for the length of a ``with`` block."""
    with environment(fast_environment(config.serve) if local else {}), connect(config.cluster):
        from serve.app import start_service, stop_service  # reads the environment when it is imported

        _check_cpus(config.serve.num_replicas)
        try:
            start_service(folder, config.serve, local)
            yield
        except RuntimeError as error:
            raise ServiceError(f"serve: the service did not come up: {first_line(error)}") from error
        finally:
            stop_service()


def _check_cpus(num_replicas: int) -> None:
    import ray

    num_cpus = int(ray.cluster_resources().get("CPU", 0))
    if num_replicas > num_cpus:
        raise ServiceError(
            f"serve.num_replicas: expected at most {num_cpus}, the cores that Ray has, got {num_replicas}."
        )


class _Stop:
    """Whether we were told to stop. A plain flag: an event's lock is not safe inside a signal handler."""

    called = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.called:
            raise KeyboardInterrupt  # told twice: do not even finish starting or stopping
        self.called = True


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """A flag that Ctrl-C and SIGTERM raise."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _welcome(bundle: Bundle, config: ServeConfig) -> str:
    """URL and a curl to try."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.port}"
    request: dict[str, Any] = {"k": min(10, len(bundle.item_index), config.max_k)}
    if bundle.users:
        request = {"user_id": next(iter(bundle.users)), **request}
    body = json.dumps(request, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"Serving policy {bundle.version} at {url}\n  curl -s {url}/v1/recommend -d '{body}'\nCtrl-C stops."
    )
