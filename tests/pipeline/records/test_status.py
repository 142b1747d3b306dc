"""`status`: what it says of whole, killed and failed runs and of the served models, and that it answers at once."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.publishing.directory import publish
from data.errors import WorkspaceError
from pipeline.cli.status import status as status_command
from pipeline.records.status import RunStatus, WorkspaceStatus, read_status
from pipeline.records.summary import SUMMARY_FILE, MetricsSummary, RunSummary, read_summary
from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("apache_beam", "tensorflow", "tfx.dsl", "keras", "pyarrow", "ml_metadata")
READ_AND_LIST = """
import sys
from pathlib import Path
from pipeline.records.status import read_status
from pipeline.workspace import Workspace
status = read_status(Workspace(Path(sys.argv[1])), 10)
print(status.serving, [name for name in sys.argv[2:] if name in sys.modules])
"""

METRICS = MetricsSummary(
    mean_iou=0.75, pixel_accuracy=0.8, frequency_weighted_iou=0.7, iou={"sky": 0.75}, slices={}, confusion_matrix=[[3]]
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def finish(workspace: Workspace, run_id: str, **values: Any) -> Path:
    """A run that wrote its summary; its file."""
    summary = RunSummary.model_validate({"run_id": run_id, "status": "succeeded", "config": {}} | values)
    file = workspace.start_run(run_id) / SUMMARY_FILE
    file.write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    return file


def serve(workspace: Workspace, name: str, versions: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    for _ in range(versions):
        publish(str(folder), str(workspace.serving / name), ["sky"], {})


def test_a_new_workspace_has_nothing(workspace: Workspace):
    assert read_status(workspace, 10) == WorkspaceStatus(runs=[], serving={}, running="")


def test_an_absent_workspace_is_an_error(tmp_path: Path):
    with pytest.raises(WorkspaceError, match="absent: no such workspace; a run creates it"):
        read_status(Workspace(tmp_path / "absent"), 10)


def test_a_run_is_summed_up(workspace: Workspace):
    finish(
        workspace, "1", metrics=METRICS, blessed=True, pushed_version=3, timings={"Trainer": 60.5, "ModelPusher": 1.5}
    )

    assert read_status(workspace, 10).runs == [
        RunStatus(run_id="1", status="succeeded", mean_iou=0.75, blessed=True, pushed_version=3, seconds=62.0)
    ]


def test_a_failed_run_has_no_score(workspace: Workspace):
    finish(workspace, "1", status="failed", error="no image is good", timings={"ImageExampleGen": 2.0})

    assert read_status(workspace, 10).runs == [RunStatus(run_id="1", status="failed", seconds=2.0)]


def test_a_run_without_summary_is_unfinished(workspace: Workspace):
    workspace.start_run("1")

    assert read_status(workspace, 10).runs == [RunStatus(run_id="1", status="unfinished")]


@pytest.mark.parametrize(
    "content", [b"", b'{"run_id": "1", "sta', b"\xff\xfe\x00", b"[]", b'{"run_id": "1", "status": "succeeded"}']
)
def test_a_run_whose_summary_is_damaged_is_unfinished_and_hides_no_other(workspace: Workspace, content: bytes):
    finish(workspace, "1")
    finish(workspace, "2").write_bytes(content)

    assert [(run.run_id, run.status) for run in read_status(workspace, 10).runs] == [
        ("2", "unfinished"),
        ("1", "succeeded"),
    ]


def test_a_damaged_summary_is_an_error_that_names_file_and_fault(workspace: Workspace):
    file = finish(workspace, "1")
    file.write_text('{"run_id": "1", "status": "done", "config": {}}')

    with pytest.raises(WorkspaceError, match=r"runs/1/summary.json: damaged record of a run: status: Input should be "):
        read_summary(file.parent)
    file.unlink()
    with pytest.raises(
        WorkspaceError, match=r"runs/1: there is no summary.json: this run was killed, or is still running"
    ):
        read_summary(file.parent)


def test_the_newest_runs_come_first_and_each_once(workspace: Workspace):
    for run_id in ("20260101-000000-000", "20260102-000000-000", "20260103-000000-000"):
        finish(workspace, run_id)
    (workspace.runs / "notes.txt").write_text("no run")

    assert [run.run_id for run in read_status(workspace, 2).runs] == ["20260103-000000-000", "20260102-000000-000"]
    assert len(read_status(workspace, 10).runs) == 3


def test_every_model_is_listed_with_its_complete_versions(workspace: Workspace, tmp_path: Path):
    serve(workspace, "roads", 2, tmp_path / "model")
    serve(workspace, "cells", 11, tmp_path / "model")
    (workspace.serving / "roads/3").mkdir()
    (workspace.serving / "never pushed").mkdir()

    serving = read_status(workspace, 10).serving

    assert serving == {"cells": list(range(1, 12)), "roads": [1, 2]}
    assert list(serving) == ["cells", "roads"]


def test_a_damaged_record_of_a_version_is_named_and_hides_nothing_else(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    serve(workspace, "roads", 2, tmp_path / "model")
    record = workspace.serving / "roads/1/PUBLISHED"
    record.write_text("{")

    status = read_status(workspace, 10)

    assert status.serving == {"roads": [2]}
    (error,) = status.damaged
    assert error.startswith(f"{record}: damaged record of a published version")
    status_command(workspace.root)
    shown = capsys.readouterr().out
    assert "model roads: serves version 2; kept: 2\n" in shown and f"{error}\n" in shown


def test_a_run_under_way_is_named(workspace: Workspace):
    with workspace.locked():
        # The lock lets its own holder in again, so another one asks, as another process would.
        assert read_status(Workspace(workspace.root), 10).running == f"process {os.getpid()}"
    assert read_status(workspace, 10).running == ""


def test_reading_the_status_imports_nothing_heavy(workspace: Workspace, tmp_path: Path):
    finish(workspace, "1")
    serve(workspace, "roads", 1, tmp_path / "model")
    result = subprocess.run(
        [sys.executable, "-c", READ_AND_LIST, str(workspace.root), *HEAVY],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert (result.stdout, result.stderr) == ("{'roads': [1]} []\n", "")
