"""The server process: its socket, and its graceful stop."""

import logging
import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from pipeline.serving.app import create_app
from pipeline.serving.errors import ListenError
from pipeline.serving.service import Service

_LOG = logging.getLogger(__name__)


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
    """Serves until a signal ends it; requests in progress are finished."""
    with _following(service):
        _Server(service).run(sockets=[at])


@contextmanager
def _following(service: Service) -> Iterator[None]:
    stop = threading.Event()
    arguments = (stop, service.config.poll_seconds)
    thread = threading.Thread(target=service.versions.follow, args=arguments, name="versions")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
