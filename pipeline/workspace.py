"""The workspace: the folder in which a local pipeline stores everything, and the lock that a run holds."""

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from components.storage.atomic import annotate_errors
from data.errors import ConfigError, WorkspaceBusy, WorkspaceError, is_transient

#: Format of a run's name: its start time in UTC, truncated to milliseconds.
_RUN_ID = "%Y%m%d-%H%M%S-%f"
#: Link to the newest run's folder, beside the folders of all runs.
LATEST = "latest"
#: File in a run's folder: its configuration, written when it begins.
CONFIG_FILE = "config.json"
#: File beside it: the report of the run.
REPORT_FILE = "report.html"


#: Characters of a path that are part of a pattern for what reads artifacts.
_PATTERN = "[*?\\"


def check_artifact_path(name: str, path: str) -> None:
    """Checks a folder of artifacts or checkpoints before anything is written there.

    TFX, TensorFlow and Beam append `*` to its path and match that as a pattern, and Beam has no way to quote a
    character (`apache_beam.io.filesystem.FileSystem.translate_pattern`).

    Args:
        name: The option that names the folder, for the error.
        path: The absolute path, or a URI.

    Raises:
        ConfigError: The path holds a character that means something in a pattern.
    """
    if found := sorted(set(path) & set(_PATTERN)):
        raise ConfigError(
            f"{name} {path}: the path holds {' '.join(found)}, which TFX and Beam take for a pattern, so that they "
            f"would not find the files there; allowed: a path without {' '.join(_PATTERN)}"
        )


@dataclass(frozen=True)
class Workspace:
    """The paths below the folder of a workspace."""

    root: Path

    @property
    def option(self) -> str:
        """The command-line option that selects this workspace."""
        return f"--workspace {shlex.quote(str(self.root))}"

    @property
    def metadata(self) -> Path:
        """ML Metadata's SQLite database."""
        return self.root / "metadata.sqlite"

    @property
    def backups(self) -> Path:
        """Folder with the backups of that database."""
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
        """Holds `<pipeline>/<training>/`: unfinished trainings, and the newest finished one."""
        return self.root / "checkpoints"

    @property
    def ingested(self) -> Path:
        """Holds the ingested examples of each span of the data."""
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
        latest = self.runs / LATEST
        if not latest.exists():
            raise WorkspaceError(f"{self.root}: nothing has run in this workspace yet")
        return latest.resolve()

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run; the name `latest` stands for the newest one.

        Raises:
            WorkspaceError: The run does not exist.
        """
        if run_id == LATEST:
            return self.latest_run
        folders = {folder.name: folder for folder in run_folders(self.runs)}
        if run_id not in folders:
            known = ", ".join(folders) or "none"
            raise WorkspaceError(f"{self.root}: there is no run {run_id!r} in this workspace; its runs are: {known}")
        return folders[run_id]

    @property
    def schedule(self) -> Path:
        """The database with the state of the schedule."""
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
        """The process that holds the workspace's lock; empty if none does."""
        return self._lock.holder()

    def new_run_id(self, now: datetime) -> str:
        """A name that sorts in the order of the runs: the time, or just after the newest run if the clock went back."""
        latest = next(filter(None, (begun(folder.name) for folder in run_folders(self.runs))), None)
        return (max(now, latest + timedelta(milliseconds=1)) if latest else now).strftime(_RUN_ID)[:-3]

    def start_run(self, run_id: str) -> Path:
        """Creates a run's folder and points `latest` at it."""
        folder = self.runs / run_id
        folder.mkdir(parents=True)
        pointer = self.runs / ".latest"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(run_id)
        pointer.replace(self.runs / LATEST)
        return folder


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs below `runs`, newest first by their names."""
    return sorted((path for path in runs.glob("*") if path.is_dir() and not path.is_symlink()), reverse=True)


def begun(run_id: str) -> datetime | None:
    """The start time in a run's name; None for a folder that does not belong to a run."""
    try:
        return datetime.strptime(run_id, _RUN_ID).replace(tzinfo=UTC)
    except ValueError:
        return None


class Held(Exception):
    """Another process holds the lock; the text states which."""


@dataclass(frozen=True)
class OwnedLock:
    """A lock between processes whose holder is known.

    It consists of two locks: one decides who holds it, and is touched only by processes that want to hold it. The other
    is on the file with the holder's name, and shows observers that the lock is held. The operating system frees both if
    the process dies.
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
        """Holds the lock; creates its folder if it does not exist.

        Raises:
            Held: Another process holds the lock.
            WorkspaceError: The folder cannot be written to.
            OSError: The same, for a transient reason such as a full disk.
        """
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                owner = stack.enter_context(self._owner.open("ab", buffering=0))
                # Unlocked, not only closed: a forked child may have the file open, too.
                stack.callback(fcntl.flock, owner, fcntl.LOCK_UN)
                self._lock.acquire(timeout=0)
                stack.callback(self._lock.release)  # Before the other, so that who sees no holder can lock.
                with annotate_errors(str(self._owner)):
                    owner.truncate(0)
                    owner.write(f"process {os.getpid()}".encode())
                fcntl.flock(owner, fcntl.LOCK_EX)  # Waits only, and briefly, for `holder`.
            except Timeout:
                raise Held(self.holder() or "another process") from None
            except OSError as error:
                if is_transient(error):
                    raise
                raise WorkspaceError(f"{self.path.parent}: cannot be written to: {error.strerror or error}") from None
            yield

    def holder(self) -> str:
        """The process that holds the lock now; empty if none does. Writes nothing, so read access suffices, and does
        not keep another process from taking the lock.
        """
        try:
            descriptor = os.open(self._owner, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._owner.read_text(encoding="utf-8") or "another process"
        finally:
            os.close(descriptor)
        return ""
