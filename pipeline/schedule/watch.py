"""Notices new data, and waits until they are complete.

The truth is the state of what a run would work on (`pipeline.schedule.inputs`). Notifications of the file system only
say when it is worth a look; where there are none (network drives, object stores) every `schedule.poll_seconds` is. Data
are complete once that state has stayed the same for `schedule.debounce_seconds` and no span holds `.incomplete`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchfiles import watch

from components.storage.file_systems import is_local
from data.dataset import DataConfig
from data.errors import IncompleteDataError, ProjectError
from data.spans import parse_pattern
from pipeline.sections.schedule import LONGEST_BACKOFF, ScheduleConfig

logger = logging.getLogger(__name__)


class Watcher(threading.Thread):
    """Has each new state of the data dealt with: once, or, where that came to nothing, again and again.

    Args:
        data: What is watched.
        config: How patiently.
        due: Gives the state of what a run would work on; None where it has been dealt with. Raises
            IncompleteDataError while data are being copied.
        on_change: Called with something due; returns when the run has ended.
        stop: Ends the thread.
    """

    def __init__(
        self,
        data: DataConfig,
        config: ScheduleConfig,
        due: Callable[[], str | None],
        on_change: Callable[[], None],
        stop: threading.Event,
    ):
        super().__init__(name="watch", daemon=True)
        self._data = data
        self._config = config
        self._due = due
        self._on_change = on_change
        self._stop_event = stop
        self._tried: str | None = None
        self._pause = self._not_before = 0.0
        self._obstacle = ""
        self._warn_at = 0.0

    def run(self) -> None:
        """Until it is stopped; what stands in the way of a look is logged, and the look repeated later."""
        for _ in self._looks():
            try:
                found = self._settled()
                if found is not None:
                    self._on_change()
                    self._put_off(found)
            except Exception as error:  # noqa: BLE001  # whatever it is, later looks may succeed
                if not self._stop_event.is_set():
                    self._log(error)

    def _settled(self) -> str | None:
        """What is due once it stays as it is; None if nothing is."""
        found, since = self._new(), time.monotonic()
        while found is not None and time.monotonic() - since < self._config.debounce_seconds:
            if self._stop_event.wait(min(self._config.debounce_seconds / 4, self._config.poll_seconds)):
                return None
            now = self._new()
            if now != found:
                found, since = now, time.monotonic()
        return found

    def _new(self) -> str | None:
        found = self._due()
        self._obstacle = ""
        return None if found == self._tried and time.monotonic() < self._not_before else found

    def _put_off(self, found: str) -> None:
        """Should the run not have dealt with what was found, as when it was skipped, the next one comes later."""
        again = found == self._tried
        self._pause = min(2 * self._pause, LONGEST_BACKOFF) if again else self._config.backoff_seconds
        self._tried, self._not_before = found, time.monotonic() + self._pause

    def _log(self, error: Exception) -> None:
        """Says why there is no run: once, and again should it stay so for long."""
        known = isinstance(error, ProjectError)
        obstacle = str(error) if known else f"{type(error).__name__}: {error}"
        now, patience = time.monotonic(), self._config.incomplete_warning_seconds
        if obstacle != self._obstacle:
            level = logging.INFO if isinstance(error, IncompleteDataError) else logging.WARNING
            logger.log(level, "waiting for %s: %s", self._data.path, obstacle, exc_info=not known)
        elif now >= self._warn_at:
            logger.warning("still waiting for %s after another %.0f s: %s", self._data.path, patience, obstacle)
        else:
            return
        self._obstacle, self._warn_at = obstacle, now + patience

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
