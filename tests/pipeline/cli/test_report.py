"""What `report` writes, and what it says where there is nothing to write."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.errors import ConfigError, WorkspaceError
from local_runner import app
from pipeline.cli.report import report
from pipeline.records.summary import SUMMARY_FILE
from pipeline.workspace import Workspace
from tests.pipeline.report.hand_made import BLESSED, make_summary

OLD, NEW = "20260101-010000-000", "20260102-010000-000"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two runs whose artifacts are gone."""
    places = Workspace(tmp_path)
    for run_id in (OLD, NEW):
        folder = places.start_run(run_id)
        (folder / SUMMARY_FILE).write_text(make_summary(**BLESSED, run_id=run_id).model_dump_json())
    return places


@pytest.mark.parametrize(
    ("run", "compare", "file"),
    [
        (None, None, f"{NEW}/report.html"),
        (OLD, None, f"{OLD}/report.html"),
        ("latest", None, f"{NEW}/report.html"),
        (None, OLD, f"{NEW}/compare-{OLD}.html"),
        (OLD, "latest", f"{OLD}/compare-{NEW}.html"),
    ],
)
def test_pages_are_written_and_named(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], run: str | None, compare: str | None, file: str
):
    report(run, compare, workspace=workspace.root, verbose=True)
    path = workspace.runs / file
    assert path.is_file() and str(path) in capsys.readouterr().out


def test_a_run_is_not_compared_with_itself_nor_with_one_without_a_name(workspace: Workspace):
    with pytest.raises(ConfigError, match=f"{NEW} cannot be compared with itself"):
        report(None, "latest", workspace=workspace.root, verbose=True)
    with pytest.raises(WorkspaceError, match="there is no run ''"):
        report(None, "", workspace=workspace.root, verbose=True)


def test_the_index_is_written_and_named(workspace: Workspace, capsys: pytest.CaptureFixture[str]):
    report(index=True, workspace=workspace.root, verbose=True)
    path = workspace.runs / "index.html"
    assert path.is_file() and str(path) in capsys.readouterr().out


def test_a_workspace_without_runs_is_named(tmp_path: Path):
    with pytest.raises(WorkspaceError, match="nothing has run in this workspace yet"):
        report(index=True, workspace=tmp_path / "none", verbose=True)
    assert not (tmp_path / "none").exists()


def test_the_index_takes_no_run():
    answer = CliRunner().invoke(app, ["report", "x", "--index"])
    assert answer.exit_code == 2
    assert "--index cannot be combined with RUN" in answer.output
