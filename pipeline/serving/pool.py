"""A bounded pool: some requests are computed, some wait, and further ones are rejected at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import TypeVar

from prometheus_client import Gauge

from pipeline.sections.serving import ServingConfig
from pipeline.serving.errors import RequestError

Result = TypeVar("Result")


class Pool:
    """Threads that compute requests.

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
        self._enter()
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

    def _enter(self) -> None:
        if not self._places.acquire(blocking=False):
            raise RequestError(
                f"busy: serving.workers={self._config.workers} requests are computed and "
                f"serving.queue={self._config.queue} wait; try again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        self._taken.inc()

    def _leave(self, _: Future[bytes] | None = None) -> None:
        self._taken.dec()
        self._places.release()
