"""What the schedule remembers: its plan, its runs, what it has dealt with and told of. Survives a crash and a reboot.

An SQLite database in the workspace: each change is there whole or not at all.
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
from pipeline.records.summary import Failure

Cause = Literal["cron", "missed", "data", "once"]
"""Why a run began; 'missed' makes up for all those that were due while no schedule ran."""
Result = Literal["running", "pushed", "refused", "unchanged", "failed", "interrupted", "skipped"]
"""'unchanged': nothing new to judge or to push; 'skipped': another run was under way for too long."""

#: How many runs are kept.
KEPT = 1000

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (result TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Plan(BaseModel):
    """What the schedule waits for."""

    cron: str | None
    timezone: str
    watch: bool
    next_run: datetime | None = None
    """None without cron."""


class ScheduledRun(BaseModel):
    """One run of the schedule, its repetitions included."""

    id: int
    cause: Cause
    started: datetime
    ended: datetime | None = None
    seconds: float | None = None
    attempts: int = 0
    result: Result = "running"
    run_id: str | None = None
    """Of the pipeline; None where it did not come to a run."""
    version: int | None = None
    """That was pushed: by this run, or before its end by one that the schedule did not see through."""
    mean_iou: float | None = None
    images: dict[str, int] = {}
    """Per split."""
    quarantined: int | None = None
    reasons: list[str] = []
    failure: Failure | None = None
    transient: bool = False
    """Whether the failure was one that may pass, so that the next run may succeed on the same data."""

    @property
    def succeeded(self) -> bool:
        """Whether the pipeline ran to its end, whatever the verdict on the model."""
        return self.result in ("pushed", "refused", "unchanged")


class State:
    """The schedule's database; safe to use from several threads and processes.

    Args:
        path: The file; made if absent.

    Raises:
        WorkspaceError: As every method does: it is damaged, or cannot be written to.
    """

    def __init__(self, path: Path):
        self._path = path
        if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            return  # Who may only read can look at what there is.
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
            database.execute("BEGIN IMMEDIATE")  # Else two that read before they write could both see the same.
            yield database

    def begin(self, cause: Cause, now: datetime) -> ScheduledRun:
        """Records that a run begins."""
        with self._transaction() as database:
            number = database.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM runs").fetchone()[0]
            run = ScheduledRun(id=number, cause=cause, started=now)
            database.execute("INSERT INTO runs VALUES (?, ?)", (number, run.model_dump_json()))
            database.execute("DELETE FROM runs WHERE id <= ?", (number - KEPT,))
        return run

    def end(self, run: ScheduledRun) -> None:
        """Records what a run came to."""
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
        """Result -> runs that ever had it."""
        with self._open() as database:
            return Counter(dict(database.execute("SELECT result, number FROM counts").fetchall()))

    def close_interrupted(self) -> bool:
        """Records that a run which a killed schedule left behind is interrupted.

        Only for who holds the schedule's lock.

        Returns:
            Whether the last run was interrupted, and so is to be made up for.
        """
        for run in self.last(1):
            if run.result == "running":
                self.end(run.model_copy(update={"result": "interrupted"}))
            return run.result in ("running", "interrupted")
        return False

    @property
    def plan(self) -> Plan | None:
        """What was last planned."""
        value = self._fact("plan")
        return Plan.model_validate_json(value) if value else None

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._set_fact("plan", plan.model_dump_json())

    @property
    def handled(self) -> str | None:
        """Configuration and data of the last run that ended for good: by success, or because it was refused."""
        return self._fact("handled")

    @handled.setter
    def handled(self, inputs: str) -> None:
        self._set_fact("handled", inputs)

    @property
    def told(self) -> int | None:
        """The newest pushed version that was told of; 0 is none, None a schedule without a past."""
        value = self._fact("told")
        return int(value) if value else None

    @told.setter
    def told(self, version: int) -> None:
        self._set_fact("told", str(version))

    def _fact(self, name: str) -> str | None:
        with self._open() as database:
            row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set_fact(self, name: str, value: str) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
