"""The workspace: the folder where a local pipeline keeps everything, and the lock that one run at a time holds."""

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
from data.errors import WorkspaceBusy, WorkspaceError, is_transient

#: Name of a run: when it began, in UTC, cut to milliseconds.
_RUN_ID = "%Y%m%d-%H%M%S-%f"
#: Link to the newest run's folder, beside the folders of all runs.
LATEST = "latest"
#: In a run's folder: its configuration, written when it begins.
CONFIG_FILE = "config.json"
#: Beside it: what the run came to, for people.
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Workspace:
    """Paths below one folder."""

    root: Path

    @property
    def option(self) -> str:
        """What names it on a command line."""
        return f"--workspace {shlex.quote(str(self.root))}"

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
        """Holds `<pipeline>/<training>/`: trainings that are unfinished, and the newest finished one."""
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
        latest = self.runs / LATEST
        if not latest.exists():
            raise WorkspaceError(f"{self.root}: nothing has run in this workspace yet")
        return latest.resolve()

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run; of the newest one by the name `latest`.

        Raises:
            WorkspaceError: There is no such run.
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

    def new_run_id(self, now: datetime) -> str:
        """A name that sorts by the order of the runs: the time, or right after the newest where the clock went back."""
        latest = next(filter(None, (begun(folder.name) for folder in run_folders(self.runs))), None)
        return (max(now, latest + timedelta(milliseconds=1)) if latest else now).strftime(_RUN_ID)[:-3]

    def start_run(self, run_id: str) -> Path:
        """Makes a run's folder and points `latest` at it."""
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
    """When a run began, by its name; None for a folder that is none of a run."""
    try:
        return datetime.strptime(run_id, _RUN_ID).replace(tzinfo=UTC)
    except ValueError:
        return None


class Held(Exception):
    """Someone else holds the lock; the text says who."""


@dataclass(frozen=True)
class OwnedLock:
    """A lock between processes whose holder is known.

    It is two locks: one that decides who holds it, which nobody but those who want to hold it touches, and one on the
    file with the holder's name, by which others see that it is held. The operating system frees both should the
    process die.
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
            OSError: The same, for a reason that may pass, such as a full disk.
        """
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                owner = stack.enter_context(self._owner.open("ab", buffering=0))
                # Unlocked, not merely closed: a forked child may have the file open, too.
                stack.callback(fcntl.flock, owner, fcntl.LOCK_UN)
                self._lock.acquire(timeout=0)
                stack.callback(self._lock.release)  # The first of the two, so that who sees no holder may hold it.
                with annotate_errors(str(self._owner)):
                    owner.truncate(0)
                    owner.write(f"process {os.getpid()}".encode())
                fcntl.flock(owner, fcntl.LOCK_EX)  # Waits for nobody but those who look, which takes them an instant.
            except Timeout:
                raise Held(self.holder() or "another process") from None
            except OSError as error:
                if is_transient(error):
                    raise
                raise WorkspaceError(f"{self.path.parent}: cannot be written to: {error.strerror or error}") from None
            yield

    def holder(self) -> str:
        """Who holds the lock now; empty if nobody does. Writes nothing, so that whoever may read may ask, and keeps
        nobody from holding it.
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
