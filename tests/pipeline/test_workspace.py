import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.errors import WorkspaceError
from pipeline.workspace import Workspace
from tests.pipeline.conftest import as_no_root
from tests.pipeline.schedule.conftest import wait_for

HOLD = """
import sys, time
from pathlib import Path
from pipeline.workspace import Workspace
with Workspace(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_told_who_runs(tmp_path: Path, other_process: subprocess.Popen[str]) -> None:
    with pytest.raises(WorkspaceError, match=f"process {other_process.pid} is running"), Workspace(tmp_path).locked():
        pass
    assert Workspace(tmp_path).holder() == f"process {other_process.pid}"


def test_a_killed_run_leaves_the_workspace_free(tmp_path: Path, other_process: subprocess.Popen[str]) -> None:
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.wait()
    with Workspace(tmp_path).locked():
        pass
    assert Workspace(tmp_path).holder() == ""


LOOK = """
import sys
from pathlib import Path
from pipeline.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
while True:
    print(workspace.holder(), flush=True)
"""


def test_whoever_looks_who_runs_keeps_nobody_from_running(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    with Workspace(workspace).locked():
        pass
    outputs = [tmp_path / f"look{number}" for number in range(3)]
    lookers = []
    try:
        for output in outputs:
            with output.open("w") as file:
                lookers.append(subprocess.Popen([sys.executable, "-c", LOOK, str(workspace)], stdout=file))
        wait_for(lambda: all(output.stat().st_size for output in outputs), "all look")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with Workspace(workspace).locked():
                time.sleep(0.002)
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()
    for output in outputs:
        answers = set(output.read_text().splitlines())
        assert {"", f"process {os.getpid()}"} <= answers <= {"", f"process {os.getpid()}", "another process"}


def test_who_may_only_read_is_told_who_runs_and_that_nothing_can_be_written(reachable: Path) -> None:
    workspace = Workspace(reachable)
    with workspace.locked():
        pass
    reachable.chmod(0o555)
    (reachable / ".lock").chmod(0o444)

    with as_no_root():
        assert workspace.holder() == ""
        with pytest.raises(WorkspaceError, match="cannot be written to: Permission denied"), workspace.locked():
            pass


def test_a_workspace_is_named_as_a_shell_takes_it(tmp_path: Path) -> None:
    assert Workspace(Path("/data/workspace")).option == "--workspace /data/workspace"
    assert Workspace(Path("/my data/w")).option == "--workspace '/my data/w'"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written to"), Workspace(tmp_path / "file" / "below").locked():
        pass


def test_latest_points_at_the_newest_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(WorkspaceError, match="nothing has run"):
        _ = workspace.latest_run
    for run_id in ("1", "2"):
        assert workspace.start_run(run_id) == tmp_path / "runs" / run_id
        assert workspace.latest_run == tmp_path / "runs" / run_id


def test_runs_are_named_by_the_time_and_sort_by_their_order_whatever_the_clock_does(tmp_path: Path) -> None:
    workspace, noon = Workspace(tmp_path), datetime(2026, 3, 4, 12, 0, 0, 123900, tzinfo=UTC)
    names = []
    for now in (noon, noon, noon - timedelta(days=1), noon + timedelta(minutes=1), noon - timedelta(days=400)):
        names.append(workspace.new_run_id(now))
        workspace.start_run(names[-1])
    (workspace.runs / "notes").mkdir()

    assert names == [
        "20260304-120000-123",
        "20260304-120000-124",
        "20260304-120000-125",
        "20260304-120100-123",
        "20260304-120100-124",
    ]
    assert workspace.new_run_id(noon) == "20260304-120100-125"
