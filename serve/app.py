"""The HTTP service: FastAPI and the ranker in one Ray Serve deployment, and how it is started and stopped.

On a cluster: ``serve run serve.app:app bundle=s3://bucket/run/evaluate/bundle``.
"""

import json
import logging
from http import HTTPStatus
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from ray import serve as ray_serve
from starlette.exceptions import HTTPException

from rl.policy.bundle import load_bundle
from rl.policy.bundle_files import BundleFolder, ReadableFolder
from serve.binding import bind_replica_to, free_port
from serve.config import ServeConfig
from serve.gate import check_verdict
from serve.ranker import Ranker
from serve.schema import Health, RecommendRequest, RecommendResponse, RequestError, parse_request

APPLICATION = "slatewise"
_MAX_ONGOING = 256  # requests a replica holds at once; more wait in the kernel's queue
_SHUTDOWN_S = 3.0
_JSON = "application/json"

http = FastAPI(title="Slatewise", docs_url=None, redoc_url=None)


async def _read_body(request: Request, most: int) -> bytes:
    """The body, unless it is too large.

    Raises:
        RequestError: It has more than ``most`` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise RequestError(f"body: expected at most {most} bytes, got more.", status=413)
        chunks.append(chunk)
    return b"".join(chunks)


@http.exception_handler(RequestError)
async def _refuse(request: Request, error: RequestError) -> Response:
    return _error(error.status, str(error))


@http.exception_handler(HTTPException)
async def _no_route(request: Request, error: HTTPException) -> Response:
    reason = HTTPStatus(error.status_code).phrase.lower()
    return _error(error.status_code, f"{request.method} {request.url.path}: {reason}.", error.headers)


@http.exception_handler(Exception)
async def _broken(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("%s failed", request.url.path, exc_info=error)
    return _error(500, "the service failed on this request; its log says why.")


def _error(status: int, message: str, headers: Any = None) -> Response:
    return Response(json.dumps({"error": message}), status, headers, media_type=_JSON)


# Below its helpers and handlers: `ingress` copies the FastAPI app, with the globals there are by then.
@ray_serve.deployment(
    max_ongoing_requests=_MAX_ONGOING,
    ray_actor_options={"num_cpus": 1},
    graceful_shutdown_timeout_s=_SHUTDOWN_S,
    graceful_shutdown_wait_loop_s=0.2,
)
@ray_serve.ingress(http)
class RecommendService:
    """Ingress and ranker in one process: a hop between them would cost more than the ranking."""

    def __init__(self, folder: ReadableFolder, config: ServeConfig, host: str | None) -> None:
        """``host`` is where a local replica's own ports listen; None leaves them to the cluster."""
        if host is not None:
            bind_replica_to(host)
        torch.set_num_threads(1)
        self._config = config
        self._ranker = Ranker(load_bundle(folder))

    @http.post(
        "/v1/recommend",
        response_model=RecommendResponse,
        openapi_extra={"requestBody": {"content": {_JSON: {"schema": RecommendRequest.model_json_schema()}}}},
    )
    async def recommend(self, request: Request) -> Response:
        """A slate for a user of the log, a history in the request, or a user never seen."""
        body = await _read_body(request, self._config.max_body_bytes)
        answer = self._ranker.recommend(parse_request(body, self._config))
        return Response(answer.model_dump_json(), media_type=_JSON)

    @http.get("/healthz", response_model=Health)
    async def health(self) -> Response:
        """Which policy answers, on which language model. A replica without its bundle does not answer at all."""
        bundle = self._ranker.bundle
        health = Health(
            status="ok",
            policy_version=bundle.version,
            encoder=bundle.encoder["model"],
            encoder_sha256=bundle.encoder.get("weights_sha256"),
        )
        return Response(health.model_dump_json(), media_type=_JSON)


class AppArguments(BaseModel):
    """What ``app`` is told: by ``serve run`` as key=value, in a RayService under ``args``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str = Field(description="Bundle folder: a path or URI that every host reads.")
    allow_unpromoted: str | None = Field(None, description="Version to serve though the gate refused it.")
    settings: ServeConfig = Field(
        ServeConfig(), description="Limits of a request; where to listen is the cluster's matter."
    )


def app(arguments: AppArguments) -> ray_serve.Application:
    """The application for ``serve run``, ``serve build`` and RayService.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        NotPromotedError: The gate refused the policy and nobody allowed it.
    """
    folder = BundleFolder(arguments.bundle)
    check_verdict(load_bundle(folder), arguments.allow_unpromoted, key="allow_unpromoted")
    return RecommendService.bind(folder, arguments.settings, None)  # type: ignore[attr-defined, no-any-return]


def start_service(folder: ReadableFolder, config: ServeConfig, local: bool) -> None:
    """Start the service on the connected Ray and wait until it answers.

    Args:
        folder: The bundle; must be picklable and readable from where replicas run.
        config: Where to listen.
        local: Whether this process started Ray, with ``fast_environment``.

    Raises:
        RuntimeError: The service did not come up.
    """
    direct = local and config.num_replicas == 1
    # The proxy starts in any case; with direct ingress it must leave the service's port to the replica.
    proxy_port = free_port(config.host) if direct else config.port
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it would name the proxy's port as the service's
    ray_serve.start(http_options={"host": config.host, "port": proxy_port}, logging_config=quiet)
    service = RecommendService.options(num_replicas=config.num_replicas)  # type: ignore[attr-defined]
    ray_serve.run(
        service.bind(folder, config, config.host if local else None),
        name=APPLICATION,
        route_prefix="/",
        logging_config=quiet,
    )


def stop_service() -> None:
    """Finish the requests under way and stop."""
    ray_serve.shutdown()
