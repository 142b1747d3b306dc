"""The HTTP server: its routes, errors as JSON, its socket and its graceful stop."""

import logging
import math
import secrets
import signal
import socket
import threading
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from data.errors import ProjectError
from data.masks import palette
from pipeline.report.render import render
from pipeline.serving import open_inference, tf_serving
from pipeline.serving.service import Observed, Service, asked
from pipeline.serving.tensors import RequestError

_LOG = logging.getLogger(__name__)
_NAME = "deeplab-tfx"
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


class ListenError(ProjectError):
    """The server cannot listen on the given address."""


class EncodedJson(Response):
    """A response whose body is already encoded as JSON."""

    media_type = "application/json"


def create_app(service: Service) -> ASGIApp:
    """Creates the application of a service; every error is `{"error": "..."}`, as in both protocols."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return JSONResponse({"error": str(error)}, error.status, _HEADERS.get(error.status))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        text = f"Malformed request: {request.method} {request.url.path}: {error.detail}"
        return JSONResponse({"error": text}, error.status_code, error.headers)

    @app.exception_handler(Exception)  # uvicorn logs it
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"internal error: {type(error).__name__}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    app.include_router(public_routes(service))
    app.include_router(protected_routes(service), dependencies=[Depends(service.authorize)])
    return Observed(app, service.metrics)


def public_routes(service: Service) -> APIRouter:
    """What is answered without a token: the probes of orchestrators, and the page, which contains nothing secret."""
    routes = APIRouter()

    @routes.head("/v2/health/live")
    @routes.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.head("/v2/health/ready")
    @routes.get("/v2/health/ready")
    @routes.get("/v2/models/{name}/ready")
    @routes.get("/v2/models/{name}/versions/{version:int}/ready")
    async def ready(request: Request) -> JSONResponse:
        of_model = "name" in request.path_params
        named = {"name": service.versions.model(*asked(request)).name} if of_model else {}
        status = HTTPStatus.OK if service.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({**named, "ready": service.ready}, status)

    @routes.head("/")
    @routes.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(
            render(
                "serving.html",
                model=service.versions.name,
                max_pixels=service.config.max_pixels,
                token_needed=bool(service.token),
                nonce=secrets.token_urlsafe(16),
            )
        )

    return routes


def protected_routes(service: Service) -> APIRouter:
    """Both protocols, the metrics, and the classes for the page."""
    routes, versions = APIRouter(), service.versions

    @routes.post("/v1/models/{name}:predict")
    @routes.post("/v1/models/{name}/versions/{version:int}:predict")
    async def predict(request: Request) -> Response:
        return EncodedJson(await service.answer(request, tf_serving.predict))

    @routes.get("/v1/models/{name}")
    @routes.get("/v1/models/{name}/versions/{version:int}")
    async def status(request: Request) -> Response:
        return EncodedJson(tf_serving.status(versions.statuses_of(*asked(request))))

    @routes.get("/v1/models/{name}/metadata")
    @routes.get("/v1/models/{name}/versions/{version:int}/metadata")
    async def metadata(request: Request) -> Response:
        return EncodedJson(tf_serving.metadata(versions.model(*asked(request))))

    @routes.get("/v2")
    async def server() -> dict[str, Any]:
        try:
            installed = installed_version(_NAME)
        except PackageNotFoundError:
            installed = "checkout"
        return {"name": _NAME, "version": installed, "extensions": []}

    @routes.get("/v2/models/{name}")
    @routes.get("/v2/models/{name}/versions/{version:int}")
    async def model(request: Request) -> dict[str, Any]:
        return open_inference.model_metadata(versions.model(*asked(request)))

    @routes.post("/v2/models/{name}/infer")
    @routes.post("/v2/models/{name}/versions/{version:int}/infer")
    async def infer(request: Request) -> Response:
        if (header := open_inference.BINARY_HEADER) in request.headers:
            raise RequestError(
                f"{header}: binary tensor data are not supported; send all data in the JSON, BYTES as base64"
            )
        return EncodedJson(await service.answer(request, open_inference.infer))

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/v1/models/{name}/versions/{version:int}/classes")
    async def classes(request: Request) -> list[dict[str, Any]]:
        """In the order of their ids, with the project's common colours."""
        names = versions.model(*asked(request)).label_map.names
        return [{"name": text, "color": color} for text, color in zip(names, palette(len(names)), strict=True)]

    return routes


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket that accepts connections.

    Raises:
        ListenError: The address is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ListenError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None
    # Connections inherit TCP_NODELAY; asyncio sets it only for sockets with an explicit protocol, which these do not
    # have. Without it, the body of an answer waits up to 40 ms for the client to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class _Server(uvicorn.Server):
    """Stops at SIGTERM or SIGINT: reports not ready, then finishes open requests; at a second signal, at once."""

    def __init__(self, service: Service) -> None:
        config = uvicorn.Config(
            create_app(service),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(service.config.timeout_seconds),
        )
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in the main thread when a signal arrives."""
        _LOG.info("%s: stopping", signal.Signals(sig).name)
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        later = threading.Timer(self._service.config.drain_seconds, self._exit)
        later.daemon = True
        later.start()

    def _exit(self) -> None:
        self.should_exit = True


def serve(service: Service, at: socket.socket) -> None:
    """Serves, and follows the serving directory, until a signal ends it; requests in progress are finished."""
    stop = threading.Event()
    following = threading.Thread(
        target=service.versions.follow, args=(stop, service.config.poll_seconds), name="versions"
    )
    following.start()
    try:
        _Server(service).run(sockets=[at])
    finally:
        stop.set()
        following.join()
