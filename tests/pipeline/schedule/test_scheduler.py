"""The schedule as processes of their own: killed, stopped, started twice."""

import json
import re
import signal
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli.schedule import schedule as schedule_command
from pipeline.records.summary import FailureRecord
from pipeline.schedule.notifications import events_of
from pipeline.schedule.scheduler import ScheduleOptions, Scheduler
from pipeline.schedule.state import ScheduledRun, SchedulePlan
from tests.pipeline.conftest import command_line
from tests.pipeline.schedule.conftest import PUSHED, YEARLY, Receiver, ScheduledWorkspace, failure, wait_for

#: Seconds that a process may take on a machine that is busy.
PATIENCE = 300


def ended(scheduled: ScheduledWorkspace) -> list[tuple[str, str]]:
    """(Cause, result) of the runs, oldest first."""
    return [(run.cause, run.result) for run in reversed(scheduled.state.last(100))]


def overdue(scheduled: ScheduledWorkspace) -> None:
    """Makes the next run one that came hours ago, as if the machine had been off."""
    past = datetime.now(UTC) - timedelta(hours=30)
    scheduled.state.plan = SchedulePlan(cron=YEARLY, timezone="UTC", watch=False, next_run=past)


def test_runs_missed_while_it_was_dead_are_made_up_once(scheduled: ScheduledWorkspace):
    first = scheduled.start(cron=YEARLY)
    wait_for(lambda: scheduled.state.plan, "the plan is on record")
    planned = scheduled.state.plan
    assert planned and planned.next_run and planned.next_run > datetime.now(UTC)
    first.kill()
    first.wait()
    overdue(scheduled)

    second = scheduled.start(cron=YEARLY)
    wait_for(lambda: ended(scheduled) == [("missed", "pushed")], "the run is made up")
    second.kill()
    second.wait()

    begun = scheduled.log.count("the schedule begins")  # Who was killed may not have come to say it.
    third = scheduled.start(cron=YEARLY)
    wait_for(lambda: scheduled.log.count("the schedule begins") > begun, "the schedule runs again")
    third.send_signal(signal.SIGTERM)

    assert third.wait(PATIENCE) == 0
    assert ended(scheduled) == [("missed", "pushed")] and len(scheduled.calls) == 1
    assert scheduled.state.plan == planned


def test_a_second_one_is_refused_and_sigterm_ends_the_first_with_its_run(scheduled: ScheduledWorkspace):
    scheduled.script((0, 600, PUSHED))
    overdue(scheduled)
    first = scheduled.start(cron=YEARLY, metrics_port=0)
    wait_for(lambda: scheduled.calls, "the pipeline runs")
    scheduled.state.end(scheduled.state.begin("cron", datetime.now(UTC)).model_copy(update={"result": "skipped"}))

    second = scheduled.start(cron=YEARLY)
    assert second.wait(PATIENCE) == 75
    assert f"process {first.pid} schedules this workspace already" in scheduled.log
    url = re.search(r"http://127\S+", scheduled.log)
    assert url
    with urllib.request.urlopen(url[0], timeout=30) as page:
        families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
    assert families["deeplab_schedule_next_run_timestamp_seconds"].samples[0].value > 0

    first.send_signal(signal.SIGTERM)

    assert first.wait(PATIENCE) == 0
    assert (scheduled.root / "interrupted").exists(), "the pipeline was killed without a chance to end"
    assert ended(scheduled) == [("missed", "interrupted"), ("cron", "skipped")]


def test_a_closed_terminal_ends_it_and_a_receiver_that_trickles_holds_nothing_up(
    scheduled: ScheduledWorkspace, dripping: str
):
    scheduled.settings.append("schedule.webhook_timeout_seconds=2")
    overdue(scheduled)
    process = scheduled.start(cron=YEARLY, webhook_url=dripping, webhook_secret="swordfish")
    wait_for(lambda: "event: pushed" in scheduled.log, "the event is sent")
    begun = time.monotonic()
    process.send_signal(signal.SIGHUP)

    assert process.wait(PATIENCE) == 0
    assert time.monotonic() - begun < 30
    assert "the schedule ends" in scheduled.log and "no whole answer within 2 s" in scheduled.log


def test_data_that_no_run_accepts_make_one_failed_run_also_after_a_restart(scheduled: ScheduledWorkspace):
    scheduled.settings.append(f"data.path={scheduled.root.parent}/typo/span-{{SPAN}}")
    scheduled.script((1, 0, None))
    for starts in (1, 2):
        process = scheduled.start(watch=True)
        wait_for(lambda count=starts: scheduled.log.count("the schedule begins") == count, "the schedule runs")
        wait_for(lambda: ended(scheduled) == [("data", "failed")], "a run says why")
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert len(scheduled.calls) == 1

    scheduled.settings.append("validation.on_drift=warn")
    scheduled.start(watch=True)
    wait_for(lambda: len(scheduled.calls) == 2, "another configuration is tried")


def test_data_whose_run_was_skipped_are_tried_again(scheduled: ScheduledWorkspace):
    scheduled.settings.append("schedule.busy_wait_seconds=0.1")
    with scheduled.workspace.locked():
        scheduled.start(watch=True)
        wait_for(lambda: ("data", "skipped") in ended(scheduled), "the run is left out")
    wait_for(lambda: ended(scheduled)[-1:] == [("data", "pushed")], "it is made up for")

    assert len(scheduled.calls) == 1


def test_cron_that_falls_due_during_its_run_says_so_in_few_words(
    scheduled: ScheduledWorkspace, caplog: pytest.LogCaptureFixture
):
    schedule = Scheduler(scheduled.config, scheduled.workspace, ScheduleOptions(scheduled.command, cron=YEARLY))

    schedule._scheduler._dispatch_event(JobSubmissionEvent(EVENT_JOB_MAX_INSTANCES, "cron", "default", []))
    schedule._scheduler._dispatch_event(JobSubmissionEvent(EVENT_JOB_MAX_INSTANCES, "another", "default", []))

    assert [record.getMessage() for record in caplog.records] == [
        "cron falls due while a run that it started is in progress: left out"
    ]


def test_an_event_for_which_no_time_was_left_is_logged(scheduled: ScheduledWorkspace, caplog: pytest.LogCaptureFixture):
    schedule = Scheduler(scheduled.config, scheduled.workspace, ScheduleOptions(scheduled.command))
    notices, gate = schedule._threads["notices"], threading.Event()
    notices.submit(gate.wait)
    for event in events_of(ScheduledRun(id=1, cause="cron", started=datetime.now(UTC), version=3), None, [], "p", "m"):
        schedule._announce(event)

    notices.shutdown(wait=False, cancel_futures=True)
    gate.set()
    notices.shutdown()

    (record,) = caplog.records
    assert "(pushed) was not sent: the schedule ends" in record.getMessage()


def test_once_runs_once_and_sends_its_event(
    scheduled: ScheduledWorkspace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    scheduled.script((1, 0, failure("data")))
    receiver.statuses[:] = [503, 502]

    process = scheduled.start(webhook_url=receiver.url, webhook_secret="swordfish")

    assert process.wait(PATIENCE) == 1
    assert ended(scheduled) == [("once", "failed")]
    assert [json.loads(body)["kind"] for _, body in receiver.requests] == ["failed"] * 3
    assert "swordfish" not in scheduled.log and "token-4711" not in scheduled.log


@pytest.mark.long
def test_new_data_start_a_run_and_bad_ones_only_one(scheduled: ScheduledWorkspace):
    scheduled.script((0, 0, PUSHED), (1, 0, failure("data")))
    process = scheduled.start(watch=True)
    wait_for(lambda: ended(scheduled) == [("data", "pushed")], "the data that are there are used")

    (scheduled.root.parent / "data" / "new.png").write_bytes(b"new")
    wait_for(lambda: ended(scheduled)[1:] == [("data", "failed")], "the new data are used")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0

    again = scheduled.start(watch=True)
    wait_for(lambda: scheduled.log.count("the schedule begins") == 2, "the schedule runs again")
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE) == 0
    assert len(scheduled.calls) == 2


@pytest.mark.long
def test_a_run_that_outlives_its_schedule_is_waited_for_then_made_up(scheduled: ScheduledWorkspace):
    scheduled.script((0, 8, PUSHED), (0, 0, {**PUSHED, "cached": ["ModelPusher"]}))
    overdue(scheduled)
    first = scheduled.start(cron=YEARLY)
    wait_for(lambda: scheduled.calls, "the pipeline runs")
    first.kill()
    first.wait()

    second = scheduled.start(cron=YEARLY)
    wait_for(lambda: len(ended(scheduled)) == 2 and ended(scheduled)[1][1] != "running", "the run is made up")

    assert ended(scheduled) == [("missed", "interrupted"), ("missed", "unchanged")]
    assert len(scheduled.calls) == 2
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 0


@pytest.mark.long
def test_cron_starts_runs_by_the_clock(scheduled: ScheduledWorkspace):
    process = scheduled.start(cron="* * * * *")
    wait_for(
        lambda: len(ended(scheduled)) == 2 and "running" not in dict(map(reversed, ended(scheduled))), "two runs", 200
    )
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert ended(scheduled) == [("cron", "pushed")] * 2
    begun = [float(call.split()[0]) % 60 for call in scheduled.calls]
    assert all(seconds < 30 for seconds in begun), begun


def test_status_shows_the_plan_and_the_runs(scheduled: ScheduledWorkspace):
    overdue(scheduled)
    run = scheduled.state.begin("cron", datetime(2026, 3, 1, 3, tzinfo=UTC))
    scheduled.state.end(run.model_copy(update={"result": "pushed", "version": 7, "seconds": 62.5, "attempts": 2}))

    shown = command_line("schedule", "--status", "--json", "--workspace", str(scheduled.root))

    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    assert (status["alive"], status["plan"]["cron"]) == (False, YEARLY)
    assert [(run["result"], run["version"], run["seconds"]) for run in status["runs"]] == [("pushed", 7, 62.5)]


def test_status_is_whole_at_80_columns(
    scheduled: ScheduledWorkspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    reason = "the newest span is not like those before it: " + "class 'ball' vanished, " * 8
    measured = {"ended": datetime.now(UTC), "seconds": 86399.6, "attempts": 10, "mean_iou": 0.62512}
    results = [
        {"result": "pushed", "version": 1234, "reasons": [reason + "1"]},
        {
            "result": "failed",
            "failure": FailureRecord(stage=None, kind="data", message=reason + "2\n  and a second line"),
        },
        {"result": "interrupted"},
    ]
    for changes in results:
        run = scheduled.state.begin("missed", datetime(2026, 3, 1, 23, 59, 58, tzinfo=UTC))
        scheduled.state.end(run.model_copy(update={**measured, **changes}))
    monkeypatch.setenv("COLUMNS", "80")

    schedule_command(status_=True, workspace=scheduled.root)

    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "missed" in line]
    assert rows == [
        ["3", "2026-03-01 23:59", "missed", "interrupted", "86400", "10", "0.6251"],
        ["2", "2026-03-01 23:59", "missed", "failed", "86400", "10", "0.6251"],
        ["1", "2026-03-01 23:59", "missed", "pushed 1234", "86400", "10", "0.6251"],
    ]
    assert f"run 2: {reason}2\n  and a second line\nrun 1: {reason}1\n" in shown
