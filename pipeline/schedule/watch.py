"""Notices new data, and waits until they are complete.

The truth is the fingerprint of the spans that a run would take: names, sizes and times of change. Notifications of the
file system only say when it is worth a look; where there are none (network drives, object stores) every
`schedule.poll_seconds` is. Data are complete once their fingerprint has stayed the same for
`schedule.debounce_seconds` and no span holds `.incomplete`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchfiles import watch

from components.files import file_system, is_local
from components.fingerprint import fingerprint
from data.dataset import DataConfig
from data.errors import DataError
from data.spans import parse_pattern, select
from pipeline.schedule.config import ScheduleConfig

logger = logging.getLogger(__name__)


def data_fingerprint(config: DataConfig) -> str | None:
    """Of what a run would take now; None if there is nothing that it could take: no data, or a copy under way."""
    files = file_system(config.path)
    try:
        if not config.has_spans:
            return fingerprint(config.path, files) if files.exists(config.path) else None
        chosen = select(parse_pattern(config.path), config.spans, files)
        spans = [*chosen.reference, *chosen.window]
        return "\n".join(f"{span.name} {fingerprint(span.folder, files)}" for span in spans)
    except (DataError, FileNotFoundError):  # FileNotFoundError: it is being moved or deleted while it is read
        return None


class Watcher(threading.Thread):
    """Calls back for each new state of the data, once.

    Args:
        data: What is watched.
        config: How patiently.
        handled: Gives the fingerprint of the data that have been dealt with.
        on_change: Called with the new one.
        stop: Ends the thread.
    """

    def __init__(
        self,
        data: DataConfig,
        config: ScheduleConfig,
        handled: Callable[[], str | None],
        on_change: Callable[[], None],
        stop: threading.Event,
    ):
        super().__init__(name="watch", daemon=True)
        self._data = data
        self._config = config
        self._handled = handled
        self._on_change = on_change
        self._stop_event = stop

    def run(self) -> None:
        """Until it is stopped; an error of the file system is logged, and the look repeated later."""
        announced = None
        for _ in self._looks():
            try:
                found = self._settled(announced)
            except Exception:
                logger.exception("cannot look at %s; trying again", self._data.path)
                continue
            if found is not None:
                announced = found
                self._on_change()

    def _settled(self, announced: str | None) -> str | None:
        """The fingerprint of new data once they stay as they are; None if there are none."""
        found, since = self._new(announced), time.monotonic()
        while found is not None and time.monotonic() - since < self._config.debounce_seconds:
            if self._stop_event.wait(min(self._config.debounce_seconds / 4, self._config.poll_seconds)):
                return None
            now = self._new(announced)
            if now != found:
                found, since = now, time.monotonic()
        return found

    def _new(self, announced: str | None) -> str | None:
        found = data_fingerprint(self._data)
        return None if found in (announced, self._handled()) else found

    def _looks(self) -> Iterator[None]:
        """Yields whenever something may have changed."""
        yield
        while not self._stop_event.is_set():
            folder = watched_folder(self._data)
            if folder is None:
                self._stop_event.wait(self._config.poll_seconds)
                yield
                continue
            try:
                milliseconds = int(self._config.poll_seconds * 1000)
                for _ in watch(
                    folder,
                    watch_filter=None,
                    stop_event=self._stop_event,
                    rust_timeout=milliseconds,
                    yield_on_timeout=True,
                ):
                    yield
            except OSError as error:  # the folder is gone, or the system's limit of watches is reached
                logger.warning("%s: no notifications of changes: %s; looking at it from time to time", folder, error)
                self._stop_event.wait(self._config.poll_seconds)
                yield


def watched_folder(config: DataConfig) -> Path | None:
    """The folder whose changes the system tells of; None if it is on an object store, or not there."""
    root = parse_pattern(config.path).root if config.has_spans else config.path
    return Path(root) if is_local(root) and Path(root).is_dir() else None
