"""`status`: what has run in a workspace, and what is being served."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from components.publishing.directory import DamagedVersion, ModelVersion, versions
from data.errors import WorkspaceError
from pipeline.records.summary import RunSummary, read_summary
from pipeline.workspace import Workspace, run_folders


class RunStatus(BaseModel):
    """One run, as one line of the output."""

    run_id: str
    status: Literal["succeeded", "failed", "unfinished"]
    mean_iou: float | None = None
    blessed: bool | None = None
    pushed_version: int | None = None
    seconds: float = 0.0


class WorkspaceStatus(BaseModel):
    """The state of a workspace."""

    runs: list[RunStatus]
    """Newest first."""
    serving: dict[str, list[int]]
    """Model name -> complete versions, oldest first."""
    damaged: list[str] = []
    """Errors in the records of served versions; such versions are not listed in `serving`."""
    running: str = ""
    """The process that holds the workspace's lock; empty if none does."""


def read_status(workspace: Workspace, last: int) -> WorkspaceStatus:
    """Reads the state of a workspace.

    Raises:
        WorkspaceError: The workspace does not exist.
    """
    if not workspace.root.is_dir():
        raise WorkspaceError(f"{workspace.root}: no such workspace; a run creates it")
    models = sorted(path.name for path in workspace.serving.glob("*") if path.is_dir())
    found = {name: versions(str(workspace.serving / name)) for name in models}
    serving = {name: [v.version for v in known if isinstance(v, ModelVersion)] for name, known in found.items()}
    return WorkspaceStatus(
        runs=[run_status(folder) for folder in run_folders(workspace.runs)[:last]],
        serving={name: complete for name, complete in serving.items() if complete},
        damaged=[v.error for known in found.values() for v in known if isinstance(v, DamagedVersion)],
        running=workspace.holder(),
    )


def recorded(folder: Path) -> RunSummary | None:
    """A run's summary; None if the run is still in progress, or was killed before the summary was complete."""
    try:
        return read_summary(folder)
    except WorkspaceError:
        return None


def run_status(folder: Path) -> RunStatus:
    """Reads the status of a run from its folder."""
    summary = recorded(folder)
    if summary is None:
        return RunStatus(run_id=folder.name, status="unfinished")
    return RunStatus(
        run_id=summary.run_id,
        status=summary.status,
        mean_iou=summary.metrics.mean_iou if summary.metrics else None,
        blessed=summary.blessed,
        pushed_version=summary.pushed_version,
        seconds=sum(summary.timings.values()),
    )
