"""The state of the schedule: its plan, its runs, the inputs it has handled and the versions it has reported.

It is an SQLite database in the workspace, whose changes are atomic, so it survives a crash and a reboot.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from data.errors import WorkspaceError
from data.section import first_problem
from pipeline.records.summary import FailureRecord
from pipeline.workspace import OwnedLock, Workspace

RunCause = Literal["cron", "missed", "data", "once"]
"""Why a run began; 'missed' makes up for all runs that were due while the schedule was not running."""
RunResult = Literal["running", "pushed", "refused", "unchanged", "failed", "interrupted", "skipped"]
"""'unchanged': nothing new to evaluate or to push; 'skipped': another run was in progress for too long."""

#: How many runs are kept on record.
KEPT = 1000

#: Name of a fact in the database; it is older than the property that reads it.
_ANNOUNCED = "told"

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (result TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SchedulePlan(BaseModel):
    """The plan of the schedule: what it waits for."""

    cron: str | None
    timezone: str
    watch: bool
    next_run: datetime | None = None
    """Time of the next run; None without cron."""


class ScheduledRun(BaseModel):
    """One run of the schedule, including its retries."""

    id: int
    cause: RunCause
    started: datetime
    ended: datetime | None = None
    seconds: float | None = None
    attempts: int = 0
    result: RunResult = "running"
    run_id: str | None = None
    """Id of the pipeline's run; None if no run was started."""
    version: int | None = None
    """The version that was pushed, by this run, or before its end by a run that the schedule did not follow."""
    mean_iou: float | None = None
    images: dict[str, int] = {}
    """Number of images in each split."""
    quarantined: int | None = None
    reasons: list[str] = []
    failure: FailureRecord | None = None
    transient: bool = False
    """Whether the failure was transient, so that the next run may succeed on the same data."""

    @property
    def succeeded(self) -> bool:
        """Whether the pipeline completed, whatever the verdict on the model."""
        return self.result in ("pushed", "refused", "unchanged")


class ScheduleState:
    """The schedule's database; safe to use from several threads and processes.

    Args:
        path: The file; created if it does not exist.

    Raises:
        WorkspaceError: The file is damaged, or cannot be written to. Every method may raise this.
    """

    def __init__(self, path: Path):
        self._path = path
        if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            return  # A user with read access only can still read the state.
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.executescript(_TABLES)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as database:
                yield database
        except (sqlite3.Error, ValidationError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            raise WorkspaceError(
                f"{self._path} cannot be used: {problem}; if it is damaged, stop the schedule, move the file away and "
                "start it again: only its history is lost"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")  # So that no two read the same before they write.
            yield database

    def begin(self, cause: RunCause, now: datetime) -> ScheduledRun:
        """Records that a run begins."""
        with self._transaction() as database:
            number = database.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM runs").fetchone()[0]
            run = ScheduledRun(id=number, cause=cause, started=now)
            database.execute("INSERT INTO runs VALUES (?, ?)", (number, run.model_dump_json()))
            database.execute("DELETE FROM runs WHERE id <= ?", (number - KEPT,))
        return run

    def end(self, run: ScheduledRun) -> None:
        """Records the result of a run."""
        with self._transaction() as database:
            database.execute("UPDATE runs SET entry = ? WHERE id = ?", (run.model_dump_json(), run.id))
            database.execute(
                "INSERT INTO counts VALUES (?, 1) ON CONFLICT (result) DO UPDATE SET number = number + 1", (run.result,)
            )

    def last(self, number: int) -> list[ScheduledRun]:
        """The last runs, newest first."""
        with self._open() as database:
            rows = database.execute("SELECT entry FROM runs ORDER BY id DESC LIMIT ?", (number,)).fetchall()
            return [ScheduledRun.model_validate_json(entry) for (entry,) in rows]

    def counts(self) -> Counter[str]:
        """RunResult -> number of all runs that ever had it."""
        with self._open() as database:
            return Counter(dict(database.execute("SELECT result, number FROM counts").fetchall()))

    def close_interrupted(self) -> bool:
        """Records as interrupted a run that a killed schedule left behind.

        The caller must hold the schedule's lock.

        Returns:
            Whether the last run was interrupted, and so has to be made up for.
        """
        for run in self.last(1):
            if run.result == "running":
                self.end(run.model_copy(update={"result": "interrupted"}))
            return run.result in ("running", "interrupted")
        return False

    @property
    def plan(self) -> SchedulePlan | None:
        """The last recorded plan."""
        value = self._fact("plan")
        return SchedulePlan.model_validate_json(value) if value else None

    @plan.setter
    def plan(self, plan: SchedulePlan) -> None:
        self._set_fact("plan", plan.model_dump_json())

    @property
    def handled(self) -> str | None:
        """State of the configuration and data of the last run that succeeded, or failed for a lasting reason."""
        return self._fact("handled")

    @handled.setter
    def handled(self, inputs: str) -> None:
        self._set_fact("handled", inputs)

    @property
    def announced(self) -> int | None:
        """The newest pushed version that was reported; 0 if there is none, None for a new schedule."""
        value = self._fact(_ANNOUNCED)
        return int(value) if value else None

    @announced.setter
    def announced(self, version: int) -> None:
        self._set_fact(_ANNOUNCED, str(version))

    def _fact(self, name: str) -> str | None:
        with self._open() as database:
            row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set_fact(self, name: str, value: str) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def schedule_state(workspace: Workspace) -> ScheduleState:
    """The schedule's state in a workspace."""
    return ScheduleState(workspace.schedule / "state.sqlite")


def schedule_lock(workspace: Workspace) -> OwnedLock:
    """The lock that the only schedule of a workspace holds."""
    return OwnedLock(workspace.schedule / ".lock")
