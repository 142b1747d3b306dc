"""Runs over metadata that are locked, damaged, restored or lost."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from data.errors import TEMPORARY
from pipeline.metadata.backup import backups
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line, overrides, run_arguments

pytestmark = pytest.mark.long

FIRST_STAGES = {"ImageExampleGen", "StatisticsGen"}


def latest(workspace: Path) -> dict:
    return json.loads((workspace / "runs/latest/summary.json").read_text())


def test_metadata_that_are_locked_damaged_restored_or_lost(tiny_dataset: Path, tmp_path: Path):
    workspace, database = tmp_path / "workspace", tmp_path / "workspace/metadata.sqlite"
    arguments = run_arguments(workspace, overrides(tiny_dataset), "--to", "StatisticsGen")
    assert command_line(*arguments).returncode == 0
    first = latest(workspace)["run_id"]
    assert len(backups(Workspace(workspace))) == 1

    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        locked = command_line(*arguments)
    assert locked.returncode == TEMPORARY
    assert f"error: ML Metadata: {database} is locked by another program" in locked.stderr

    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2)
        file.write(b"\xff" * (database.stat().st_size // 2))
    damaged = command_line(*arguments)
    assert damaged.returncode == 1
    assert "is damaged" in damaged.stderr and "doctor --restore" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert latest(workspace)["run_id"] == first, "nothing was started"
    assert "not ready: ML Metadata" in command_line("doctor", "--quick", "--workspace", str(workspace)).stderr

    assert command_line("doctor", "--restore", "--workspace", str(workspace)).returncode == 0
    restored = command_line(*arguments)
    assert restored.returncode == 0, restored.stderr
    assert set(latest(workspace)["cached"]) >= FIRST_STAGES

    database.unlink()
    before = set((workspace / "artifacts/ImageExampleGen/examples").iterdir())
    lost = command_line(*arguments)
    assert lost.returncode == 0, lost.stderr
    assert latest(workspace)["cached"] == []
    (made,) = set((workspace / "artifacts/ImageExampleGen/examples").iterdir()) - before
    assert int(made.name) > max(int(folder.name) for folder in before)
