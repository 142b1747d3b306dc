"""The schedule as processes of their own: killed, stopped, started twice."""

import json
import re
import signal
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.schedule.state import Plan
from tests.pipeline.conftest import command_line
from tests.pipeline.schedule.conftest import PUSHED, YEARLY, Place, Receiver, failure, wait_for

#: Seconds that a process may take on a machine that is busy.
PATIENCE = 300


def ended(place: Place) -> list[tuple[str, str]]:
    """(Cause, result) of the runs, oldest first."""
    return [(run.cause, run.result) for run in reversed(place.state.last(100))]


def overdue(place: Place) -> None:
    """Makes the next run one that came hours ago, as if the machine had been off."""
    past = datetime.now(UTC) - timedelta(hours=30)
    place.state.plan = Plan(cron=YEARLY, timezone="UTC", watch=False, next_run=past)


def test_runs_missed_while_it_was_dead_are_made_up_once(place: Place):
    first = place.start(cron=YEARLY)
    wait_for(lambda: place.state.plan, "the plan is on record")
    planned = place.state.plan
    assert planned and planned.next_run and planned.next_run > datetime.now(UTC)
    first.kill()
    first.wait()
    overdue(place)

    second = place.start(cron=YEARLY)
    wait_for(lambda: ended(place) == [("missed", "pushed")], "the run is made up")
    second.kill()
    second.wait()

    third = place.start(cron=YEARLY)
    wait_for(lambda: place.log.count("the schedule begins") == 3, "the schedule runs again")
    third.send_signal(signal.SIGTERM)

    assert third.wait(PATIENCE) == 0
    assert ended(place) == [("missed", "pushed")] and len(place.calls) == 1
    assert place.state.plan == planned


def test_a_second_one_is_refused_and_sigterm_ends_the_first_with_its_run(place: Place):
    place.script((0, 600, PUSHED))
    overdue(place)
    first = place.start(cron=YEARLY, metrics_port=0)
    wait_for(lambda: place.calls, "the pipeline runs")
    place.state.end(place.state.begin("cron", datetime.now(UTC)).model_copy(update={"result": "skipped"}))

    second = place.start(cron=YEARLY)
    assert second.wait(PATIENCE) == 75
    assert f"process {first.pid} schedules this workspace already" in place.log
    url = re.search(r"http://127\S+", place.log)
    assert url
    with urllib.request.urlopen(url[0], timeout=30) as page:
        families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
    assert families["deeplab_schedule_next_run_timestamp_seconds"].samples[0].value > 0

    first.send_signal(signal.SIGTERM)

    assert first.wait(PATIENCE) == 0
    assert (place.root / "interrupted").exists(), "the pipeline was killed without a chance to end"
    assert ended(place) == [("missed", "interrupted"), ("cron", "skipped")]


def test_once_runs_once_and_tells(place: Place, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    place.script((1, 0, failure("data")))
    receiver.statuses[:] = [503, 502]

    process = place.start(webhook_url=receiver.url, webhook_secret="swordfish")

    assert process.wait(PATIENCE) == 1
    assert ended(place) == [("once", "failed")]
    assert [json.loads(body)["kind"] for _, body in receiver.requests] == ["failed"] * 3
    assert "swordfish" not in place.log and "token-4711" not in place.log


@pytest.mark.long
def test_new_data_start_a_run_and_bad_ones_only_one(place: Place):
    place.script((0, 0, PUSHED), (1, 0, failure("data")))
    process = place.start(watch=True)
    wait_for(lambda: ended(place) == [("data", "pushed")], "the data that are there are used")

    (place.root.parent / "data" / "new.png").write_bytes(b"new")
    wait_for(lambda: ended(place)[1:] == [("data", "failed")], "the new data are used")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0

    again = place.start(watch=True)
    wait_for(lambda: place.log.count("the schedule begins") == 2, "the schedule runs again")
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE) == 0
    assert len(place.calls) == 2


@pytest.mark.long
def test_a_run_that_outlives_its_schedule_is_waited_for_then_made_up(place: Place):
    place.script((0, 8, PUSHED), (0, 0, {**PUSHED, "cached": ["ModelPusher"]}))
    overdue(place)
    first = place.start(cron=YEARLY)
    wait_for(lambda: place.calls, "the pipeline runs")
    first.kill()
    first.wait()

    second = place.start(cron=YEARLY)
    wait_for(lambda: len(ended(place)) == 2 and ended(place)[1][1] != "running", "the run is made up")

    assert ended(place) == [("missed", "interrupted"), ("missed", "unchanged")]
    assert len(place.calls) == 2
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 0


@pytest.mark.long
def test_cron_starts_runs_by_the_clock(place: Place):
    process = place.start(cron="* * * * *")
    wait_for(lambda: len(ended(place)) == 2 and "running" not in dict(map(reversed, ended(place))), "two runs", 200)
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert ended(place) == [("cron", "pushed")] * 2
    begun = [float(call.split()[0]) % 60 for call in place.calls]
    assert all(seconds < 30 for seconds in begun), begun


def test_status_shows_the_plan_and_the_runs(place: Place):
    overdue(place)
    run = place.state.begin("cron", datetime(2026, 3, 1, 3, tzinfo=UTC))
    place.state.end(run.model_copy(update={"result": "pushed", "version": 7, "seconds": 62.5, "attempts": 2}))

    shown = command_line("schedule", "--status", "--json", "--workspace", str(place.root))

    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    assert (status["alive"], status["plan"]["cron"]) == (False, YEARLY)
    assert [(run["result"], run["version"], run["seconds"]) for run in status["runs"]] == [("pushed", 7, 62.5)]
