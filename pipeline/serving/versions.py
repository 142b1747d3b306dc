"""Selects the version of a model that is served, and follows the serving directory while requests are answered."""

import gc
import logging
import math
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from components.publishing.directory import DamagedVersion, ModelVersion, Version, versions
from data.errors import ProjectError
from pipeline.serving.model import LoadedModel
from pipeline.serving.tensors import RequestError

_LOG = logging.getLogger(__name__)

Load = Callable[[ModelVersion], LoadedModel]


class VersionStatus(NamedTuple):
    """The status of a version; `state` is one of ModelVersionStatus.State, `error` is empty unless it failed."""

    version: int
    state: str
    error: str = ""


class _Failure(NamedTuple):
    found: Version
    error: str
    retry_at: float


class Versions:
    """The versions of one model, of which the highest one that can be loaded is served.

    A version is loaded and has answered its warm-up requests before it replaces the one in use; requests in progress
    keep the model with which they began. A version that fails to load is skipped, and retried later; one whose record
    is damaged is retried when the record is intact again.

    Args:
        name: The model's name.
        directory: Its serving directory.
        load: Loads a version and warms it up.
        retry_seconds: Time before loading a failed version is retried.
        on_load: Called with whether a version was loaded successfully.
    """

    def __init__(
        self, name: str, directory: str, load: Load, retry_seconds: float, on_load: Callable[[bool], None]
    ) -> None:
        self.name = name
        self._directory = directory
        self._load = load
        self._retry_seconds = retry_seconds
        self._on_load = on_load
        self.current: LoadedModel | None = None
        """The model that is served; None until the first version is loaded."""
        self._loading: int | None = None
        self._failures: dict[int, _Failure] = {}

    def model(self, name: str, version: int | None) -> LoadedModel:
        """The model for a request.

        Raises:
            RequestError: Another model or version is served, or none is loaded yet; only the latter is transient.
        """
        current = self.current
        if name == self.name and current is None:
            raise RequestError(f"no version of model {name} is loaded yet", HTTPStatus.SERVICE_UNAVAILABLE)
        if name == self.name and current and version in (None, current.version):
            return current
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        there = f"{self.name}, version {current.version}" if current else self.name
        raise RequestError(f"Servable not found for request: {asked}; served is {there}", HTTPStatus.NOT_FOUND)

    def statuses_of(self, name: str, version: int | None) -> list[VersionStatus]:
        """The statuses of all versions that are in use, being loaded or failed, or of a given one; the newest first.

        Raises:
            RequestError: There is no such version.
        """
        current, loading, failures = self.current, self._loading, list(self._failures.values())
        known = {failed.found.version: VersionStatus(failed.found.version, "END", failed.error) for failed in failures}
        if loading is not None:
            known[loading] = VersionStatus(loading, "LOADING")
        if current:
            known[current.version] = VersionStatus(current.version, "AVAILABLE")
        found = [status for number, status in known.items() if name == self.name and version in (None, number)]
        if not found:
            asked = "any versions" if version is None else f"version {version}"
            raise RequestError(f"Could not find {asked} of model {name}", HTTPStatus.NOT_FOUND)
        return sorted(found, reverse=True)

    def follow(self, stop: threading.Event, poll_seconds: float) -> None:
        """Polls the serving directory until it is stopped."""
        while not stop.is_set():
            try:
                self.poll()
            except Exception as error:  # noqa: BLE001 - whatever one poll raises, the next may succeed.
                _LOG.error("%s: %s", self._directory, error, exc_info=not isinstance(error, ProjectError))
            stop.wait(poll_seconds)

    def poll(self) -> None:
        """Reads the serving directory once, and loads the highest version unless it is in use."""
        found = versions(self._directory)
        self._failures = {number: failure for number, failure in self._failures.items() if failure.found in found}
        for version in found:
            if isinstance(version, DamagedVersion) and version.version not in self._failures:
                self._leave_out(version, version.error, math.inf)
        for candidate in reversed(found):
            served = self.current.published if self.current else None
            # A loaded version stays in service if its record is damaged later.
            damaged_since = served and isinstance(candidate, DamagedVersion) and candidate.version == served.version
            if candidate == served or damaged_since:
                return
            failure = self._failures.get(candidate.version)
            due = failure is None or time.monotonic() >= failure.retry_at
            if isinstance(candidate, ModelVersion) and due and self._try(candidate):
                return

    def _leave_out(self, version: Version, error: str, retry_at: float) -> None:
        _LOG.error("version %d cannot be served: %s", version.version, error)
        self._failures[version.version] = _Failure(version, error, retry_at)
        self._on_load(False)

    def _try(self, candidate: ModelVersion) -> bool:
        self._loading = candidate.version
        started = time.monotonic()
        try:
            model = self._load(candidate)
        except Exception as error:  # noqa: BLE001 - a broken SavedModel raises nearly anything; serving continues.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self._leave_out(candidate, reason, time.monotonic() + self._retry_seconds)
            return False
        else:
            self._failures.pop(candidate.version, None)
            self.current = model
            _LOG.info("serving version %d, loaded in %.1f s", candidate.version, time.monotonic() - started)
            self._on_load(True)
            return True
        finally:
            self._loading = None
            gc.collect()  # A SavedModel has reference cycles; the replaced one would stay in memory for long.
