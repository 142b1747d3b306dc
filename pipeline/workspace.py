"""The workspace: the folder where a local pipeline keeps everything, and the lock that one run at a time holds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import WorkspaceBusy, WorkspaceError


@dataclass(frozen=True)
class Workspace:
    """Paths below one folder."""

    root: Path

    @property
    def metadata(self) -> Path:
        """ML Metadata's SQLite database."""
        return self.root / "metadata.sqlite"

    @property
    def backups(self) -> Path:
        """Copies of that database."""
        return self.root / "backups"

    @property
    def artifacts(self) -> Path:
        """TFX's pipeline root."""
        return self.root / "artifacts"

    @property
    def serving(self) -> Path:
        """Holds `<model name>/<version>/`."""
        return self.root / "serving"

    @property
    def checkpoints(self) -> Path:
        """Of trainings under way."""
        return self.root / "checkpoints"

    @property
    def ingested(self) -> Path:
        """What was made of each span of the data."""
        return self.root / "ingested"

    @property
    def runs(self) -> Path:
        """Holds `<run id>/`; `latest` points at the newest."""
        return self.root / "runs"

    @property
    def latest_run(self) -> Path:
        """The newest run's folder.

        Raises:
            WorkspaceError: Nothing has run in this workspace yet.
        """
        latest = self.runs / "latest"
        if not latest.exists():
            raise WorkspaceError(f"{self.root}: nothing has run in this workspace yet")
        return latest.resolve()

    @property
    def schedule(self) -> Path:
        """What the schedule remembers."""
        return self.root / "schedule"

    @cached_property
    def _lock(self) -> "OwnedLock":
        return OwnedLock(self.root / ".lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the workspace for one run.

        Raises:
            WorkspaceBusy: Another run holds it.
            WorkspaceError: The folder cannot be written to.
        """
        try:
            with self._lock.held():
                yield
        except Held as held:
            raise WorkspaceBusy(
                f"{self.root}: {held} is running in this workspace; wait for it, or give another --workspace"
            ) from None

    def holder(self) -> str:
        """Who holds the workspace now; empty if nobody does."""
        return self._lock.holder()

    def start_run(self, run_id: str) -> Path:
        """Makes a run's folder and points `latest` at it."""
        folder = self.runs / run_id
        folder.mkdir(parents=True)
        pointer = self.runs / ".latest"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(run_id)
        pointer.replace(self.runs / "latest")
        return folder


class Held(Exception):
    """Someone else holds the lock; the text says who."""


@dataclass(frozen=True)
class OwnedLock:
    """A lock between processes whose holder is known.

    The operating system gives it free should the process die.
    """

    path: Path

    @cached_property
    def _lock(self) -> FileLock:
        return FileLock(self.path)

    @property
    def _owner(self) -> Path:
        return self.path.with_name(f"{self.path.name}-owner")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock; makes its folder if absent.

        Raises:
            Held: Someone else holds it.
            WorkspaceError: The folder cannot be written to.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._owner.write_text(f"process {os.getpid()}", encoding="utf-8")
        except Timeout:
            raise Held(self.holder() or "another process") from None
        except OSError as error:
            raise WorkspaceError(f"{self.path.parent}: cannot be written to: {error.strerror or error}") from None
        try:
            yield
        finally:
            self._owner.unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> str:
        """Who holds the lock now; empty if nobody does."""
        if not self.path.exists():
            return ""
        try:
            with self._lock.acquire(timeout=0):
                return ""
        except Timeout:
            return self._owner.read_text(encoding="utf-8") if self._owner.exists() else "another process"
