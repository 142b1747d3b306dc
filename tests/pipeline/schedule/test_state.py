import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.errors import WorkspaceError
from pipeline.schedule import state as module
from pipeline.schedule.state import SchedulePlan, ScheduleState
from tests.pipeline.conftest import as_no_root

NOW = datetime(2026, 3, 1, 3, tzinfo=UTC)


def test_what_was_written_is_there_after_opening_it_again(tmp_path: Path):
    state = ScheduleState(tmp_path / "schedule" / "state.sqlite")
    run = state.begin("cron", NOW)
    state.end(run.model_copy(update={"result": "pushed", "version": 3, "ended": NOW}))
    state.plan = SchedulePlan(cron="0 3 * * *", timezone="UTC", watch=False, next_run=NOW)
    state.handled = "some data"

    again = ScheduleState(tmp_path / "schedule" / "state.sqlite")

    assert [(r.id, r.cause, r.result, r.version) for r in again.last(5)] == [(1, "cron", "pushed", 3)]
    assert again.plan == state.plan and again.plan and again.plan.next_run == NOW
    assert (again.handled, again.counts()) == ("some data", {"pushed": 1})


def test_the_run_of_a_killed_schedule_counts_as_interrupted_once(tmp_path: Path):
    state = ScheduleState(tmp_path / "state.sqlite")
    assert not state.close_interrupted()
    state.begin("cron", NOW)

    assert state.close_interrupted() and state.close_interrupted()

    assert [run.result for run in state.last(5)] == ["interrupted"]
    assert state.counts() == {"interrupted": 1}


def test_old_runs_go_and_stay_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT", 3)
    state = ScheduleState(tmp_path / "state.sqlite")
    for _ in range(5):
        state.end(state.begin("cron", NOW).model_copy(update={"result": "unchanged"}))

    assert [run.id for run in state.last(10)] == [5, 4, 3]
    assert state.counts() == {"unchanged": 5}


def test_many_threads_may_write(tmp_path: Path):
    state = ScheduleState(tmp_path / "state.sqlite")
    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda _: state.begin("data", NOW), range(24)))

    assert sorted(run.id for run in runs) == list(range(1, 25))


def test_another_user_may_look(reachable: Path):
    """As an administrator does into the workspace of the service's own user."""
    path = reachable / "state.sqlite"
    ScheduleState(path).begin("cron", NOW)
    path.chmod(0o444)
    with as_no_root():
        state = ScheduleState(path)
        assert [run.result for run in state.last(5)] == ["running"]
        assert state.plan is None
        with pytest.raises(WorkspaceError, match="attempt to write a readonly database"):
            state.begin("cron", NOW)


def test_an_entry_of_another_version_is_named_with_what_to_do(tmp_path: Path):
    state = ScheduleState(tmp_path / "state.sqlite")
    run = state.begin("cron", NOW)
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as database, database:
        entry = run.model_dump_json().replace('"running"', '"postponed"')
        database.execute("UPDATE runs SET entry = ?", (entry,))

    with pytest.raises(WorkspaceError, match="cannot be used: result: Input should be .* move the file away"):
        state.last(5)


def test_a_damaged_state_says_what_to_do(tmp_path: Path):
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database" * 1000)

    with pytest.raises(
        WorkspaceError, match=r"state.sqlite cannot be used: file is not a database; .* move the file away"
    ):
        ScheduleState(path)
