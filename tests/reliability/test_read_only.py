"""A workspace that cannot be written to: what only reads works, what writes says why it does not."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.publishing.directory import publish
from local_runner import app
from pipeline.cli.application import answer
from pipeline.metadata.store import metadata_config, open_store
from pipeline.schedule.state import schedule_lock, schedule_state
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.history import History

pytestmark = pytest.mark.platform("only root can mount a file system for reading")

#: Arguments of a command -> its exit status.
Command = Callable[..., int]


def use(workspace: Workspace, model: Path) -> None:
    """Leaves a run, a version and a schedule in a workspace, and no file open."""
    with workspace.locked(), schedule_lock(workspace).held():
        workspace.start_run("20260101-000000-000")
    history = History(open_store(metadata_config(workspace, MetadataConfig())), str(workspace.serving))
    history.push("20260101-000000-000", "tiny", 1)
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    publish(str(model), str(workspace.serving / "tiny"), ["sky"], {})
    state = schedule_state(workspace)
    state.end(state.begin("once", datetime(2026, 1, 1, tzinfo=UTC)).model_copy(update={"result": "pushed"}))


@pytest.fixture
def read_only(tmp_path: Path, small_disk: Callable[[Path, str], Path]) -> Workspace:
    """A workspace that was used, on a disk that is mounted for reading."""
    workspace = Workspace(small_disk(tmp_path / "disk", "20m") / "work space")
    use(workspace, tmp_path / "model")
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
    return workspace


@pytest.fixture
def command(read_only: Workspace, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Answers a command line for that workspace."""

    def give(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["local_runner.py", *arguments, "--workspace", str(read_only.root)])
        with pytest.raises(SystemExit) as ended:
            answer(app)
        return int(ended.value.code or 0)

    monkeypatch.setenv("COLUMNS", "500")
    return give


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("status", "model tiny: serves version 1"),
        ("schedule --status", "no schedule runs"),
        ("lineage 1", "pushed 20"),
    ],
)
def test_what_only_reads_answers(
    arguments: str, shown: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command(*arguments.split())
    printed = capsys.readouterr()

    assert (status, printed.err) == (0, "")
    assert shown in printed.out


@pytest.mark.parametrize(
    ("arguments", "file"), [("pin 1", "serving/tiny/.lock"), ("report --index", "runs/index.html.new")]
)
def test_what_writes_ends_with_one_line_that_names_file_and_reason(
    arguments: str, file: str, command: Command, read_only: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments.split()) == 1
    assert capsys.readouterr().err == f"error: {read_only.root / file}: Read-only file system\n"


def test_the_doctor_names_it_and_examines_all_else(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("doctor", "--quick") == 1
    printed = capsys.readouterr()

    assert printed.err.startswith("error: this machine is not ready: ") and "Workspace" in printed.err
    for found in (
        "work space cannot be written to: Read-only file system",
        "11 executions recorded",
        "ended as pushed",
    ):
        assert found in printed.out
