"""How a command line ends."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kubeflow_runner
import local_runner
from data.errors import (
    TEMPORARY,
    ConfigError,
    DataError,
    IncompleteDataError,
    MetadataError,
    TrainingError,
    WorkspaceBusy,
    WorkspaceError,
)
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
    assert "--status can only be combined" in result.stderr


@pytest.mark.parametrize("runner", ["local_runner", "kubeflow_runner"])
def test_the_help_imports_nothing_heavy(runner: str):
    heavy = "{'tensorflow', 'tfx', 'kfp', 'apache_beam', 'keras'} & set(sys.modules)"
    code = f"import sys, {runner}; found = {heavy}; sys.exit(str(found) if found else 0)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("name", ["a[1]", "a*", "why?", "a\\b"])
@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "--dry-run"], ["demo"], ["schedule", "--once"], ["schedule", "--cron", "0 3 * * *"]],
    ids=" ".join,
)
def test_a_workspace_whose_path_is_a_pattern_is_refused_before_anything_happens(
    arguments: list[str], name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / name / "workspace"

    result = CliRunner().invoke(local_runner.app, [*arguments, "--workspace", str(workspace)])

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"--workspace {workspace}: the path holds ")
    assert str(result.exception).endswith("allowed: a path without [ * ? \\")
    assert not workspace.exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["simulate", "--store", "/a[1]"], "--store"),
        (["compile", "--image", "i", "--serving", "/s", "--pipeline-root", "gs://b/a*"], "--pipeline-root"),
        (
            *(["compile", "--image", "i", "--serving", "/s", "--pipeline-root", "gs://b", "--checkpoints", "/a?"],),
            "--checkpoints",
        ),
        (["tfjob", "--image", "i", "--model", "/m", "--checkpoints", "/c", "--examples", "/a[1]"], "--examples"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_so_are_the_folders_of_artifacts_on_kubeflow(arguments: list[str], option: str) -> None:
    error = CliRunner().invoke(kubeflow_runner.app, arguments).exception

    assert isinstance(error, ConfigError) and str(error).startswith(f"{option} ")


@pytest.mark.parametrize("home", [None, "~"], ids=["unset", "unknown"])
def test_a_command_without_a_home_leaves_no_folder_called_like_it(
    home: str | None, tiny_dataset: Path, tmp_path: Path
) -> None:
    """`~` is what libraries get where HOME is unset and the list of users has no entry, as in some containers."""
    (folder := tmp_path / "here").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "KERAS_HOME")}

    ended = subprocess.run(
        [
            *(sys.executable, str(ROOT / "local_runner.py"), "run", "--dry-run"),
            *("--workspace", str(folder / "workspace"), "--set", f"data.path={tiny_dataset}"),
        ],
        cwd=folder,
        env=environment | ({"HOME": home} if home else {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in folder.iterdir()} <= {"workspace"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("a"), 1),
        (DataError("a"), 1),
        (TrainingError("a"), 1),
        (IncompleteDataError("a"), 75),
        (MetadataError("a"), 75),
        (WorkspaceBusy("a"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_says_whether_another_try_may_help(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise error

    app = application("fails")
    app.command()(fail)
    monkeypatch.setattr(sys, "argv", ["runner"])

    with pytest.raises(SystemExit) as ended:
        answer(app)

    assert ended.value.code == status
