"""One run at a time: a lock in the workspace, and across hosts a lease on the MySQL server that holds the metadata.

The lease is a named lock of the server (GET_LOCK), which belongs to a connection: if its holder dies, the server
frees it. If its host vanishes, the server frees it after `EXPIRY` seconds without a heartbeat.
"""

import contextlib
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql  # type: ignore[import-untyped]

from data.errors import MetadataError, WorkspaceBusy
from pipeline.config import Config
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace

#: Seconds between two heartbeats, and until the server gives up waiting for one.
HEARTBEAT, EXPIRY = 30.0, 150

_PATIENCE = 10

logger = logging.getLogger(__name__)


def holder(workspace: Workspace, config: Config) -> str:
    """The process that keeps a new run from starting; empty if none does.

    Raises:
        MetadataError: The MySQL server cannot be asked.
    """
    found = workspace.holder()
    if found or config.metadata.backend == "sqlite":
        return found
    with contextlib.closing(_connect(config.metadata)) as connection:
        return _lease_holder(connection, _lock_name(config.metadata, config.name))


@contextmanager
def run_lease(metadata: MetadataConfig, pipeline: str) -> Iterator[None]:
    """Holds the lease of a pipeline on its MySQL server; does nothing if the metadata are in the workspace.

    Raises:
        WorkspaceBusy: Another host holds the lease.
        MetadataError: The server cannot be reached, or the lease was lost and another host holds it now.
    """
    if metadata.backend == "sqlite":
        yield
        return
    held = _Lease(metadata, _lock_name(metadata, pipeline))
    held.acquire()
    try:
        yield
    except KeyboardInterrupt:
        if held.lost:
            raise MetadataError(f"{_place(metadata)}: the lease went to {held.lost} during this run") from None
        raise
    finally:
        held.release()


class _Lease:
    """A named lock on a server, and the thread that keeps it alive."""

    def __init__(self, metadata: MetadataConfig, name: str):
        self._metadata = metadata
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.lost = ""
        """The host that took the lease over; empty as long as this process holds it."""

    def acquire(self) -> None:
        self._connection, other = self._try()
        if other:
            self._connection.close()
            raise WorkspaceBusy(
                f"{_place(self._metadata)}: {other} runs this pipeline; wait for it, or give another name or database"
            )
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(pymysql.MySQLError):
            self._connection.close()

    def _try(self) -> "tuple[pymysql.Connection, str]":
        connection = _connect(self._metadata)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = %s", (EXPIRY,))
            cursor.execute("SELECT GET_LOCK(%s, 0)", (self._name,))
            got = cursor.fetchone()[0] == 1
        return connection, "" if got else _lease_holder(connection, self._name) or "another host"

    def _keep(self) -> None:
        """Sends heartbeats to the server; ends this process's run if another host has taken the lease over."""
        while not self._ended.wait(HEARTBEAT):
            try:
                self._connection.ping(reconnect=False)
            except pymysql.MySQLError as error:
                logger.warning("%s: connection lost (%s); taking the lease again", _place(self._metadata), error)
                with contextlib.suppress(pymysql.MySQLError):
                    self._connection.close()
                try:
                    self._connection, self.lost = self._try()
                except (MetadataError, pymysql.MySQLError) as retry_error:
                    logger.warning("%s", retry_error)  # Retried at the next heartbeat; nobody else gets the lease.
            if self.lost:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _connect(metadata: MetadataConfig) -> "pymysql.Connection":
    from pipeline.metadata.store import PASSWORD  # takes a second, which a workspace without a server need not wait

    try:
        return pymysql.connect(
            host=metadata.host,
            port=metadata.port,
            user=metadata.user,
            password=os.environ.get(PASSWORD, ""),
            connect_timeout=_PATIENCE,
            read_timeout=_PATIENCE,
            write_timeout=_PATIENCE,
        )
    except pymysql.MySQLError as error:
        raise MetadataError(f"{_place(metadata)}: the lease of a run cannot be asked for: {error}") from None


def _lease_holder(connection: "pymysql.Connection", name: str) -> str:
    """The host that holds a lock; empty if none does."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT IS_USED_LOCK(%s)", (name,))
        number = cursor.fetchone()[0]
        if number is None:
            return ""
        cursor.execute("SELECT host FROM information_schema.processlist WHERE id = %s", (number,))
        row = cursor.fetchone()
    return f"a run on {row[0]}" if row else "a run on another host"


def _lock_name(metadata: MetadataConfig, pipeline: str) -> str:
    """The name of a pipeline's lock: unique on the whole server, not per database, and at most 64 characters long."""
    return "deeplab-" + hashlib.sha256(f"{metadata.database}\0{pipeline}".encode()).hexdigest()[:40]


def _place(metadata: MetadataConfig) -> str:
    return f"MySQL database {metadata.database} at {metadata.host}:{metadata.port}"
