"""Runs over metadata that are locked, damaged, restored or lost."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest

from data.errors import TEMPORARY
from pipeline.metadata.backup import backups
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line, in_process, overrides, run_arguments

pytestmark = pytest.mark.long

FIRST_STAGES = {"ImageExampleGen", "StatisticsGen"}


class Attempt(NamedTuple):
    """A run."""

    result: CompletedProcess[str]
    summary: dict[str, Any]
    """Of the newest run that has begun, which may be an earlier one."""


class Attempts(NamedTuple):
    """A run, and others after something has happened to the metadata."""

    database: Path
    backups: int
    """As many as the first run has left."""
    first: Attempt
    locked: Attempt
    damaged: Attempt
    doctor: CompletedProcess[str]
    """What the doctor says of the damaged ones."""
    restored: Attempt
    lost: Attempt
    before: set[Path]
    """The examples that were there before the metadata were lost."""


def examples(workspace: Path) -> set[Path]:
    return set((workspace / "artifacts/ImageExampleGen/examples").iterdir())


@pytest.fixture(scope="module")
def attempts(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    workspace = tmp_path_factory.mktemp("metadata") / "workspace"
    database = workspace / "metadata.sqlite"
    arguments = run_arguments(workspace, overrides(tiny_dataset), "--to", "StatisticsGen")

    def told(result: CompletedProcess[str]) -> Attempt:
        return Attempt(result, json.loads((workspace / "runs/latest/summary.json").read_text()))

    first, number = told(in_process(*arguments)), len(backups(Workspace(workspace)))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        # A process does not see the locks that it holds on a file itself.
        locked = told(command_line(*arguments))
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2)
        file.write(b"\xff" * (database.stat().st_size // 2))
    damaged = told(in_process(*arguments))
    doctor = command_line("doctor", "--quick", "--workspace", str(workspace))  # It looks at packages, too.
    assert in_process("doctor", "--restore", "--workspace", str(workspace)).returncode == 0
    restored = told(in_process(*arguments))
    database.unlink()
    before = examples(workspace)
    return Attempts(database, number, first, locked, damaged, doctor, restored, told(in_process(*arguments)), before)


def test_a_run_backs_the_metadata_up(attempts: Attempts):
    assert attempts.first.result.returncode == 0, attempts.first.result.stderr
    assert attempts.backups == 1


def test_locked_metadata_are_a_transient_error(attempts: Attempts):
    assert attempts.locked.result.returncode == TEMPORARY
    error = f"error: ML Metadata: {attempts.database} is locked by another program"
    assert error in attempts.locked.result.stderr


def test_over_damaged_metadata_nothing_is_started_and_a_remedy_named(attempts: Attempts):
    assert attempts.damaged.result.returncode == 1
    assert "is damaged" in attempts.damaged.result.stderr and "doctor --restore" in attempts.damaged.result.stderr
    assert attempts.damaged.summary["run_id"] == attempts.first.summary["run_id"]
    assert "not ready: ML Metadata" in attempts.doctor.stderr


def test_restored_metadata_know_what_was_made_before(attempts: Attempts):
    assert attempts.restored.result.returncode == 0, attempts.restored.result.stderr
    assert set(attempts.restored.summary["cached"]) >= FIRST_STAGES


def test_without_metadata_everything_is_made_again_under_higher_numbers(attempts: Attempts):
    assert attempts.lost.result.returncode == 0, attempts.lost.result.stderr
    assert attempts.lost.summary["cached"] == []
    (made,) = examples(attempts.database.parent) - attempts.before
    assert int(made.name) > max(int(folder.name) for folder in attempts.before)
