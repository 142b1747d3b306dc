"""The server's Prometheus metrics, and its access log with one line for each request."""

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.versions import Versions

_LOG = logging.getLogger(__name__)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Paths that are requested by machines all the time, and are not logged.
_PROBES = ("/metrics", "/v2/health", "/v2/models/{name}/ready")
_UNKNOWN_ROUTE = "unknown"


class Metrics:
    """The server's metrics, in a separate registry. All names begin with `deeplab_server_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "deeplab_server_requests", "Requests answered.", ["route", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "deeplab_server_request_seconds", "From the head of a request to the end of its answer.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.taken = Gauge(
            "deeplab_server_requests_in_progress",
            "Predictions being read, waiting or computed.",
            registry=self.registry,
        )
        self.loads = Counter("deeplab_server_loads", "Versions loaded, by result.", ["result"], registry=self.registry)
        for result in ("loaded", "failed"):
            self.loads.labels(result)

    def loaded(self, succeeded: bool) -> None:
        """Counts the loading of a version, and whether it succeeded."""
        self.loads.labels("loaded" if succeeded else "failed").inc()

    def watch(self, versions: Versions) -> None:
        """Adds a metric of the version that is served; 0 before the first one is loaded."""
        version = Gauge("deeplab_server_version", "The version being served.", registry=self.registry)
        version.set_function(lambda: versions.current.version if versions.current else 0)


class Observed:
    """An ASGI application whose requests are counted and logged.

    Metrics and log contain the route that answered instead of the path, so that clients cannot add arbitrary text.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route.startswith(_PROBES) else logging.INFO
        _LOG.log(level, "%s %s %d %.0f ms", scope["method"], route, status, seconds * 1000)
