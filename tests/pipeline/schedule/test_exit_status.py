"""What the exit status of `local_runner.py` says to whoever may try again."""

import sys
from pathlib import Path

import pytest

from data.errors import (
    ConfigError,
    DataError,
    IncompleteDataError,
    MetadataError,
    ProjectError,
    TrainingError,
    WorkspaceBusy,
)
from pipeline.cli.application import answer, application


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


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("bad picture"), "data", "bad picture"),
        (ConfigError("bad key"), "config", "bad key"),
        (TrainingError("diverged"), "fault", "diverged"),
        (OSError(28, "No space left on device"), "fault", "OSError: [Errno 28] No space left on device (the stack"),
    ],
)
def test_a_run_records_which_stage_failed_and_why(error: Exception, kind: str, message: str, tmp_path: Path):
    from pipeline.records.executions import StageRecord
    from pipeline.run import LOG_FILE, RunFailed, describe_failure

    stages = {name: StageRecord(name, state, 1.0, {}, {}) for name, state in (("Gen", "ran"), ("Trainer", "failed"))}

    failure = describe_failure(error, stages, tmp_path)

    assert (failure.stage, failure.kind) == ("Trainer", kind)
    assert failure.message.startswith(message)
    assert (tmp_path / LOG_FILE).exists() == (not isinstance(error, ProjectError))
    assert f"the run's record is in {tmp_path}" in str(RunFailed(failure, tmp_path, transient=True))
