"""The checks of the workspace."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.errors import WorkspaceError
from pipeline.doctor import checks, workspace
from pipeline.metadata.backup import back_up, require_whole
from pipeline.schedule.state import SchedulePlan, schedule_lock, schedule_state
from pipeline.workspace import Workspace
from tests.pipeline.conftest import as_no_root

#: Is killed in the middle of a transaction that it has begun to write to disk.
KILLED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO Execution (name) VALUES (?)", [("x" * 5000,)] * 500)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_little_disk_is_told_before_it_runs_out(
    tmp_path: Path, free_gib: float, status: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free_gib * workspace.GIB))

    check = workspace.check_disk(tmp_path / "not" / "there")

    assert check.status == status
    assert str(tmp_path) in check.detail


def test_a_workspace_below_a_file_is_not_writable(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()

    check = workspace.check_writable(file / "workspace")

    assert check.status == "fail"
    assert check.detail == f"{file} cannot be written to: Not a directory"


def test_a_workspace_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path):
    assert workspace.check_writable(tmp_path / "a" / "b").detail == f"{tmp_path} is writable"


def test_a_network_file_system_fails_by_the_longest_mount_point(tmp_path: Path):
    share = tmp_path / "my share"
    (share / "runs").mkdir(parents=True)
    table = tmp_path / "mounts"
    escaped = str(share).replace(" ", "\\040")
    table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {escaped} nfs4 rw 0 0\n")

    assert workspace.check_filesystem(tmp_path, table).status == "ok"
    check = workspace.check_filesystem(share / "runs" / "workspace", table)
    assert check.status == "fail"
    assert "nfs4" in check.detail


def test_the_last_of_two_mounts_on_one_point_counts(tmp_path: Path):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path} nfs rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")

    assert workspace.check_filesystem(tmp_path, table) == workspace.Finding("File system", "ok", f"tmpfs ({tmp_path})")


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Execution (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO Execution (name) VALUES (?)", [(f"run {n} " * 100,) for n in range(200)])


def test_a_whole_database_is_counted(tmp_path: Path):
    write_database(tmp_path / "metadata.sqlite")

    check = workspace.check_metadata(tmp_path / "metadata.sqlite")

    assert check == workspace.Finding("ML Metadata", "ok", "200 executions recorded")


def test_no_database_yet_is_well(tmp_path: Path):
    assert workspace.check_metadata(tmp_path / "metadata.sqlite").status == "ok"

    (tmp_path / "metadata.sqlite").touch()  # as a run leaves it that was killed while making it
    assert workspace.check_metadata(tmp_path / "metadata.sqlite").status == "ok"


@pytest.mark.parametrize("content", [b"this is not a database, but it is long enough " * 50, b""])
def test_something_else_in_the_databases_place_fails(tmp_path: Path, content: bytes):
    database = tmp_path / "metadata.sqlite"
    database.write_bytes(content)
    Workspace(tmp_path).start_run("20260101-000000-000")

    check = workspace.check_metadata(database)

    assert check.status == "fail"
    assert str(database) in check.remedy


def test_an_overwritten_page_fails(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with database.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)

    check = workspace.check_metadata(database)

    assert check.status == "fail"
    assert str(database) in check.detail


def test_a_database_in_use_is_not_called_damaged(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")

        check = workspace.check_metadata(database)

    assert check.status == "warn"
    assert "in use" in check.detail


def test_backups_are_counted_and_offered_where_the_database_is_damaged(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    back_up(Workspace(tmp_path), keep=3)
    assert (
        workspace.check_metadata(database).detail
        == "200 executions recorded; 1 backups, the newest metadata-000001.sqlite"
    )
    database.write_bytes(b"damage" * 1000)

    check = workspace.check_metadata(database)

    assert (check.status, check.remedy) == (
        "fail",
        f"`python local_runner.py doctor --restore --workspace {tmp_path}` restores the newest intact backup",
    )


def test_what_a_killed_run_had_begun_to_write_is_not_called_damage(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", KILLED_WRITER, str(database)], check=True)
    assert Path(f"{database}-journal").stat().st_size > 0

    assert workspace.check_metadata(database) == workspace.Finding("ML Metadata", "ok", "200 executions recorded")


def test_a_database_that_is_closed_to_this_user_is_not_called_damaged(reachable: Path):
    database = reachable / "metadata.sqlite"
    write_database(database)
    database.chmod(0)

    with as_no_root():
        check = workspace.check_metadata(database)
        with pytest.raises(WorkspaceError, match="cannot be opened by this user: unable to open database file"):
            require_whole(Workspace(reachable))

    assert (check.status, check.remedy) == ("fail", workspace.AS_OWNER)
    assert check.detail == f"{database} cannot be opened by this user: unable to open database file"


def test_a_workspace_that_is_closed_to_this_user_is_a_finding(reachable: Path):
    reachable.chmod(0)
    with as_no_root():
        check = checks.examine("ML Metadata", workspace.check_metadata, reachable / "metadata.sqlite")

    assert (check.name, check.status, check.remedy) == ("ML Metadata", "fail", workspace.AS_OWNER)
    assert check.detail.startswith(str(reachable)) and check.detail.endswith(": Permission denied")


def schedule(workspace: Path, next_run: datetime | None, *results: str, watch: bool = False) -> None:
    state = schedule_state(Workspace(workspace))
    state.plan = SchedulePlan(cron=None if watch else "0 3 * * *", timezone="UTC", watch=watch, next_run=next_run)
    for result in results:
        run = state.begin("cron", next_run or datetime.now(UTC))
        if result != "running":  # A schedule that is killed writes nothing more.
            state.end(run.model_copy(update={"result": result}))


def test_a_schedule_that_does_not_run_is_told_once_a_run_was_due(tmp_path: Path):
    due = datetime(2026, 3, 1, 3, tzinfo=UTC)
    schedule(tmp_path, due, "pushed")

    before = workspace.check_schedule(tmp_path, now=due - timedelta(minutes=1))
    after = workspace.check_schedule(tmp_path, now=due + timedelta(minutes=1))

    assert before == workspace.Finding("Schedule", "ok", "no schedule runs; the last run ended as pushed")
    assert (after.status, after.detail) == (
        "warn",
        "no schedule runs, and the run of 2026-03-01 03:00 UTC was due; the last run ended as pushed",
    )
    with schedule_lock(Workspace(tmp_path)).held():
        alive = workspace.check_schedule(tmp_path, now=due + timedelta(minutes=1))
    assert (alive.status, alive.detail) == ("ok", f"process {os.getpid()}; the last run ended as pushed")


def test_a_schedule_that_was_killed_in_a_run_is_told_at_once(tmp_path: Path):
    schedule(tmp_path, None, "pushed", "running", watch=True)

    check = workspace.check_schedule(tmp_path)

    assert (check.status, check.detail) == ("warn", "the schedule's process is gone, and run 2 was interrupted")
    assert check.remedy == f"start it again: `python local_runner.py schedule ... --workspace {tmp_path}`"
    with schedule_lock(Workspace(tmp_path)).held():
        assert workspace.check_schedule(tmp_path) == workspace.Finding("Schedule", "ok", f"process {os.getpid()}")


def test_a_schedule_that_should_watch_and_is_gone_is_told(tmp_path: Path):
    schedule(tmp_path, None, "pushed", watch=True)

    check = workspace.check_schedule(tmp_path)

    assert (check.status, check.detail) == (
        "warn",
        "no schedule runs, and nobody watches for new data; the last run ended as pushed",
    )


def test_a_schedule_whose_last_run_failed_or_whose_state_is_damaged_is_told(tmp_path: Path):
    now = datetime.now(UTC)
    schedule(tmp_path, now + timedelta(days=1), "pushed", "failed")
    assert workspace.check_schedule(tmp_path).status == "warn"
    assert "the last run ended as failed" in workspace.check_schedule(tmp_path).detail
    (tmp_path / "schedule/state.sqlite").write_bytes(b"damage" * 1000)

    check = workspace.check_schedule(tmp_path)

    assert check.status == "fail"
    assert "state.sqlite" in check.detail and "move" in check.remedy
