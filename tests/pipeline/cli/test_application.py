"""How a command line ends."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import local_runner
from data.errors import TEMPORARY, WorkspaceError
from pipeline.cli.application import answer, application

ROOT = Path(__file__).resolve().parents[3]


def end_of(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of a command that meets an error."""
    app = application("Fails.")

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        answer(app)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, TEMPORARY),
        (errno.EDQUOT, TEMPORARY),
        (errno.EIO, TEMPORARY),
        (errno.EROFS, 1),
        (errno.EACCES, 1),
        (errno.EPERM, 1),
    ],
)
def test_what_disk_or_owner_refuse_is_one_line_that_names_file_and_reason(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = os.strerror(number)
    assert end_of(OSError(number, reason, "pins.json"), monkeypatch) == status
    assert end_of(OSError(number, reason), monkeypatch) == status
    assert capsys.readouterr().err == f"error: pins.json: {reason}\nerror: {reason}\n"


def test_an_error_of_the_project_is_its_text_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(WorkspaceError("nothing is pushed"), monkeypatch) == 1
    assert capsys.readouterr().err == "error: nothing is pushed\n"


def test_a_fault_of_the_program_keeps_its_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        end_of(FileNotFoundError(errno.ENOENT, "No such file", "forgotten"), monkeypatch)


@pytest.mark.parametrize(
    "options",
    [["--once"], ["--watch"], ["--cron", "0 3 * * *"], ["--config", "config.yaml"], ["--set", "training.steps=3"]],
    ids=" ".join,
)
def test_an_option_that_would_be_ignored_is_refused(options: list[str], tmp_path: Path) -> None:
    arguments = ["schedule", "--status", "--workspace", str(tmp_path), *options]

    result = CliRunner().invoke(local_runner.app, arguments)

    assert result.exit_code == 2
    assert "--status runs nothing" in result.stderr


@pytest.mark.parametrize("runner", ["local_runner", "kubeflow_runner"])
def test_the_help_imports_nothing_heavy(runner: str):
    heavy = "{'tensorflow', 'tfx', 'kfp', 'apache_beam', 'keras'} & set(sys.modules)"
    code = f"import sys, {runner}; found = {heavy}; sys.exit(str(found) if found else 0)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
