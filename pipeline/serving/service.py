"""What all requests share: the model that is served, the limits on work, the token, the metrics and the access log."""

import asyncio
import hmac
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.sections.serving import ServingConfig
from pipeline.serving.model import LoadedModel
from pipeline.serving.tensors import RequestError
from pipeline.serving.versions import Versions

_LOG = logging.getLogger(__name__)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Paths that are requested by machines all the time, and are not logged.
_PROBES = ("/metrics", "/v2/health", "/v2/models/{name}/ready")
_UNKNOWN_ROUTE = "unknown"

Result = TypeVar("Result")


class Service:
    """One model that is being served.

    Args:
        name: Name by which clients address the model.
        directory: Its serving directory.
        config: The limits.
        token: Bearer token that clients must send; empty for no authorization.
    """

    def __init__(self, name: str, directory: str, config: ServingConfig, token: str = "") -> None:
        self.config = config
        self.token = token
        self.draining = False
        """Whether the server is about to stop."""
        self.metrics = Metrics()
        self.pool = Pool(config, self.metrics.taken)
        load = partial(LoadedModel, name, max_pixels=config.max_pixels)
        self.versions = Versions(name, directory, load, config.retry_seconds, self.metrics.count_load)
        self.metrics.version.set_function(lambda: self.versions.current.version if self.versions.current else 0)

    @property
    def ready(self) -> bool:
        """Whether the server accepts requests: a version is loaded, and the server is not about to stop."""
        return self.versions.current is not None and not self.draining

    async def authorize(self, request: Request) -> None:
        """Rejects requests without the token.

        Raises:
            RequestError: The token is missing or wrong.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.encode(), self.token.encode())
        if self.token and not (right and scheme.lower() == "bearer"):
            raise RequestError("needs the header 'Authorization: Bearer TOKEN'", HTTPStatus.UNAUTHORIZED)

    async def answer(self, request: Request, compute: Callable[[bytes, LoadedModel], bytes]) -> bytes:
        """Reads a request's body and computes its answer with the model that is served now.

        Raises:
            RequestError: No model of that name is served, the server is busy, or the body is rejected.
        """
        model = self.versions.model(*asked(request))
        read = partial(read_body, request, self.config.max_body_bytes)
        return await self.pool.run(read, lambda body: compute(body, model))


def asked(request: Request) -> tuple[str, int | None]:
    """Model and version in a request's path; None stands for the version that is served."""
    return request.path_params["name"], request.path_params.get("version")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Reads the body of a request.

    Raises:
        RequestError: It is larger than allowed, and the rest of it is not read; it is incomplete; or it is compressed.
    """
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise RequestError(
            f"Content-Encoding {encoding!r} is not supported; send the body as it is", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        )
    body = bytearray()
    if int(request.headers.get("content-length", "0")) <= max_bytes:
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    break
            else:
                return bytes(body)
        except ClientDisconnect:
            raise RequestError("the client went away before the body's end") from None
    raise RequestError(f"the body exceeds serving.max_body_bytes={max_bytes}", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class Pool:
    """Threads that compute requests: some requests are computed, some wait, and further ones are rejected at once.

    A request takes a place before its body is read, so that the bodies in memory are bounded, too. It frees the place
    when its computation has ended, even if the client has gone: TensorFlow cannot be interrupted.

    Args:
        config: How many requests are computed, how many wait, and for how long.
        taken: Gauge of the places that are taken.
    """

    def __init__(self, config: ServingConfig, taken: Gauge) -> None:
        self._config = config
        self._taken = taken
        self._threads = ThreadPoolExecutor(config.workers, thread_name_prefix="predict")
        self._places = threading.BoundedSemaphore(config.workers + config.queue)

    async def run(self, read: Callable[[], Awaitable[bytes]], compute: Callable[[bytes], bytes]) -> bytes:
        """Reads a body, then computes its answer in a thread.

        Raises:
            RequestError: All places are taken, or the request took too long.
        """
        deadline = asyncio.get_running_loop().time() + self._config.timeout_seconds
        if not self._places.acquire(blocking=False):
            raise RequestError(
                f"busy: serving.workers={self._config.workers} requests are computed and "
                f"serving.queue={self._config.queue} wait; try again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        self._taken.inc()
        try:
            body = await self._before(deadline, read(), HTTPStatus.REQUEST_TIMEOUT)
            work = self._threads.submit(compute, body)
        except BaseException:
            self._leave()
            raise
        work.add_done_callback(self._leave)
        return await self._before(deadline, asyncio.wrap_future(work), HTTPStatus.GATEWAY_TIMEOUT)

    async def _before(self, deadline: float, awaited: Awaitable[Result], status: HTTPStatus) -> Result:
        try:
            async with asyncio.timeout_at(deadline):
                return await awaited
        except TimeoutError:
            what = "the body did not arrive" if status == HTTPStatus.REQUEST_TIMEOUT else "no answer"
            raise RequestError(
                f"{what} within serving.timeout_seconds={self._config.timeout_seconds:g}", status
            ) from None

    def _leave(self, _: Future[bytes] | None = None) -> None:
        self._taken.dec()
        self._places.release()


class Metrics:
    """The server's metrics, in a separate registry. All names begin with `deeplab_server_`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("deeplab_server_requests", "Requests answered.", ["route", "code"], registry=registry)
        self.seconds = Histogram(
            "deeplab_server_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.taken = Gauge(
            "deeplab_server_requests_in_progress", "Predictions being read, waiting or computed.", registry=registry
        )
        self.loads = Counter("deeplab_server_loads", "Versions loaded, by result.", ["result"], registry=registry)
        for result in ("loaded", "failed"):
            self.loads.labels(result)  # Shown as 0 before the first load.
        self.version = Gauge("deeplab_server_version", "The version being served.", registry=registry)

    def count_load(self, succeeded: bool) -> None:
        """Counts the loading of a version, and whether it succeeded."""
        self.loads.labels("loaded" if succeeded else "failed").inc()


@dataclass(frozen=True)
class Observed:
    """An ASGI application whose requests are counted and logged.

    Metrics and log contain the route that answered instead of the path, so that clients cannot add arbitrary text.
    """

    app: ASGIApp
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route.startswith(_PROBES) else logging.INFO
            _LOG.log(level, "%s %s %d %.0f ms", scope["method"], route, status, seconds * 1000)
