"""Where the service listens: Serve's settings, free ports, and the addresses of a replica's own ports."""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from serve.config import ServeConfig


class PortError(ValueError):
    """The service's address cannot be bound."""


def check_port(host: str, port: int) -> None:
    """Make sure that nobody listens at an address and that we may.

    Raises:
        PortError: The port is in use, or the address is none of this machine.
    """
    try:
        with _socket(host) as probe:
            # Connections that an earlier service closed must not hold the port for another minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortError(
                f"serve.port: expected a free port at {host}, got {port}, which is in use. "
                "Stop what listens there, or choose another, as serve.port=8080."
            ) from error
        raise PortError(
            f"serve.host: expected an address of this machine, got {host!r} with port {port}: "
            f"{error.strerror or error}. Use 127.0.0.1 for this machine alone."
        ) from error


def free_port(host: str) -> int:
    """A port that nobody uses at the moment."""
    with _socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def fast_environment(config: ServeConfig) -> dict[str, str]:
    """Environment that a local Ray must start with, and be imported with, for a fast service on its host alone.

    One replica answers its clients itself, on the service's port. Several need Serve's proxy before them.
    """
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "0",  # its statistics port listens on all interfaces, whatever the host
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1" if config.num_replicas == 1 else "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(config.port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(config.port + 1),  # exclusive
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # no balancer has to notice that we leave
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    }


def bind_replica_to(host: str) -> None:
    """Keep the ports of the replica in whose process this runs to one address. Call from its constructor.

    Two of Serve's habits have no setting. A replica takes calls from other replicas, pickled and without a
    token, on all interfaces. And it binds its HTTP port without SO_REUSEADDR, so that a service could not
    start again for a minute. Both are set through the names that the replica's module looks up after the
    constructor; where a release of Ray lacks them, this fails instead of listening to the world.
    """
    from ray.serve._private import replica

    add_port: Callable[[Any, str], int] = replica.add_port_to_grpc_server
    start_http: Callable[..., Awaitable[Any]] = replica.start_asgi_http_server
    inner = f"[{host}]" if ":" in host else host

    def add_port_at_host(server: Any, address: str) -> int:
        return add_port(server, address.replace("[::]", inner))

    async def start_http_again(app: Any, options: Any, **settings: Any) -> Any:
        return await start_http(app, options, **{**settings, "enable_so_reuseport": True})

    replica.add_port_to_grpc_server = add_port_at_host
    replica.start_asgi_http_server = start_http_again


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
