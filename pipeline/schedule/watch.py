"""Notices new data, and waits until they are complete.

What counts is the state of the inputs of a run that would start now: the configuration and the current data. File
system notifications only trigger a check of it; without them (network drives, object stores) it is checked every
`schedule.poll_seconds`. Data are complete once that state has stayed the same for `schedule.debounce_seconds` and no
span contains `.incomplete`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchfiles import watch

from components.storage.file_systems import file_system, is_local
from components.storage.fingerprint import fingerprint
from data.dataset import DataConfig
from data.errors import DataError, IncompleteDataError, ProjectError
from data.spans import parse_pattern
from pipeline.config import Config, config_hash
from pipeline.sections.schedule import LONGEST_BACKOFF, ScheduleConfig
from pipeline.workspace import Workspace

logger = logging.getLogger(__name__)


def input_state(config: Config, workspace: Workspace) -> str:
    """A text that changes when the configuration or the data that a run would read change.

    Data that a run would reject without reading them, for example because two folders have the same span number, are a
    state like any other: the run reports the error, and no further run starts until something changes. Section
    `schedule` is excluded, because it determines when runs start and not what they do.

    Raises:
        IncompleteDataError: The data are being copied.
    """
    configured = config_hash(config.model_copy(update={"schedule": ScheduleConfig()}))
    try:
        if config.data.has_spans:
            from components.spans.state import window_state  # imports pyarrow, whose memory is never freed

            data = window_state(config.data, str(workspace.ingested)).model_dump_json()
        else:
            files = file_system(config.data.path)
            if not files.exists(config.data.path):
                raise DataError(f"no folder {config.data.path} (data.path)")
            data = fingerprint(config.data.path, files)
    except IncompleteDataError:
        raise
    except FileNotFoundError as error:
        raise IncompleteDataError(f"{config.data.path} changed while it was read: no {error.filename}") from None
    except DataError as error:
        data = f"refused: {error}"
    return f"configuration {configured}\n{data}"


class DataWatcher(threading.Thread):
    """Starts a run for each new state of the data, and repeats it as long as the state is not handled.

    Args:
        data: The data to watch.
        config: The waiting times.
        due: Returns the state of a run's inputs; None if it has been handled. Raises IncompleteDataError while data are
            being copied.
        on_change: Called with a state that is due; returns when the run has ended.
        stop: Ends the thread when set.
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
        """Watches until it is stopped; an error in a check is logged, and the check repeated later."""
        for _ in self._checks():
            try:
                found = self._settled()
                if found is not None:
                    self._on_change()
                    # The next run is delayed if this one did not handle the state, for example because it was skipped.
                    again = found == self._tried
                    self._pause = min(2 * self._pause, LONGEST_BACKOFF) if again else self._config.backoff_seconds
                    self._tried, self._not_before = found, time.monotonic() + self._pause
            except Exception as error:  # noqa: BLE001  # whatever it is, later checks may succeed
                if not self._stop_event.is_set():
                    self._log(error)

    def _settled(self) -> str | None:
        """The state that is due, once it no longer changes; None if none is due."""
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

    def _log(self, error: Exception) -> None:
        """Logs why there is no run: once, and again if the reason persists."""
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

    def _checks(self) -> Iterator[None]:
        """Yields whenever the data may have changed."""
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
            except OSError as error:  # the folder was deleted, or the system's limit of watches is reached
                logger.warning("%s: no notifications of changes: %s; checking it from time to time", folder, error)
                self._stop_event.wait(self._config.poll_seconds)
                yield


def watched_folder(config: DataConfig) -> Path | None:
    """The folder whose changes the system reports; None if it is in an object store, or does not exist."""
    root = parse_pattern(config.path).root if config.has_spans else config.path
    return Path(root) if is_local(root) and Path(root).is_dir() else None
