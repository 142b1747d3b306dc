"""A run that is killed while it trains and started again, and the record of a failed run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import ConfigError, DataError, ProjectError, TrainingError
from pipeline.records.executions import StageRecord
from pipeline.run import LOG_FILE, RunFailed, describe_failure
from pipeline.workspace import Workspace
from tests.pipeline.conftest import ROOT, command_line, overrides, run_arguments

SETTINGS = {"training.steps": "40", "training.checkpoint_every": "5", "training.eval_every": "20"}


def wait_for_checkpoint(workspace: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns as soon as training has saved its state."""
    deadline = time.monotonic() + 600
    while not list((workspace / "checkpoints").glob("*/*/checkpoints/state/*.index")):
        assert process.poll() is None, "the run ended before it saved a checkpoint"
        assert time.monotonic() < deadline, "no checkpoint within ten minutes"
        time.sleep(0.2)


@pytest.mark.long
def test_goes_on_where_it_was_killed_and_ends_as_if_nothing_had_happened(tiny_dataset: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    arguments = run_arguments(workspace, overrides(tiny_dataset, **SETTINGS))
    with (tmp_path / "output").open("wb") as output:
        command = [sys.executable, "local_runner.py", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            wait_for_checkpoint(workspace, process)
        finally:
            process.kill()
            process.wait()
    status = command_line("status", "--workspace", str(workspace))
    assert "unfinished" in status.stdout, status.stderr

    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr
    assert "resuming after step" in result.stderr
    assert "pushed        version 1" in result.stdout
    assert Workspace(workspace).holder() == ""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("bad image"), "data", "bad image"),
        (ConfigError("bad key"), "config", "bad key"),
        (TrainingError("diverged"), "fault", "diverged"),
        (OSError(28, "No space left on device"), "fault", "OSError: [Errno 28] No space left on device (the stack"),
    ],
)
def test_a_run_records_which_stage_failed_and_why(error: Exception, kind: str, message: str, tmp_path: Path):
    stages = {name: StageRecord(name, state, 1.0, {}, {}) for name, state in (("Gen", "ran"), ("Trainer", "failed"))}

    failure = describe_failure(error, stages, tmp_path)

    assert (failure.stage, failure.kind) == ("Trainer", kind)
    assert failure.message.startswith(message)
    assert (tmp_path / LOG_FILE).exists() == (not isinstance(error, ProjectError))
    assert f"the run's record is in {tmp_path}" in str(RunFailed(failure, tmp_path, transient=True))
