"""What one run of the schedule comes to; the pipeline is a script of a few lines in a process of its own."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.publishing.directory import Record
from pipeline.records.summary import RunSummary
from pipeline.schedule.notifications import ScheduleEvent
from pipeline.schedule.process import ProcessResult, RunProcess
from pipeline.schedule.retraining import Retraining, result_of
from pipeline.schedule.state import ScheduledRun
from pipeline.schedule.watch import input_state
from tests.pipeline.schedule.conftest import PUSHED, REFUSED, ScheduledWorkspace, failure, wait_for


def retraining(scheduled: ScheduledWorkspace, events: list[ScheduleEvent], **changes: object) -> Retraining:
    (scheduled.root / "schedule").mkdir(exist_ok=True)
    config = scheduled.config.model_copy(update={"schedule": scheduled.config.schedule.model_copy(update=changes)})
    process = RunProcess(scheduled.command, scheduled.root / "schedule" / "output.txt", 10)
    return Retraining(config, scheduled.workspace, scheduled.state, process, True, events.append, threading.Event())


def run(scheduled: ScheduledWorkspace, events: list[ScheduleEvent], **changes: object) -> ScheduledRun:
    job = retraining(scheduled, events, **changes)
    return job.run(job.begin("cron"))


def test_a_push_is_recorded_and_announced(scheduled: ScheduledWorkspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEEPLAB_WEBHOOK_SECRET", "swordfish")
    events: list[ScheduleEvent] = []

    ended = run(scheduled, events)

    assert scheduled.state.last(9) == [ended]
    assert (ended.result, ended.version, ended.mean_iou, ended.run_id) == ("pushed", 7, 0.625, "r1")
    assert (ended.attempts, ended.images["train"], ended.quarantined) == (1, 8, 2)
    assert [(event.kind, event.version, event.model) for event in events] == [("pushed", 7, "tiny")]
    assert scheduled.state.handled == input_state(scheduled.config, scheduled.workspace)
    assert scheduled.calls[0].endswith("False"), "the pipeline was given the webhook's secret"


def test_a_temporary_fault_is_repeated_until_it_passes(scheduled: ScheduledWorkspace):
    scheduled.script((75, 0, failure("fault")), (-9, 0, None), (0, 0, PUSHED))
    events: list[ScheduleEvent] = []

    ended = run(scheduled, events)

    assert (ended.result, ended.attempts, len(scheduled.calls)) == ("pushed", 3, 3)
    assert [event.kind for event in events] == ["pushed"]


def test_the_output_of_every_attempt_is_kept_until_the_next_run(scheduled: ScheduledWorkspace):
    scheduled.script((75, 0, None), (75, 0, None), (-9, 0, None), (75, 0, None))
    output = scheduled.root / "schedule" / "output.txt"

    ended = run(scheduled, [], retries=2)

    assert ended.failure and ended.failure.message == "killed by signal 9: it printed nothing"
    attempts = output.read_text().split("\n--- attempt ")
    assert [text.partition("error: ")[2].partition("\n")[0] for text in attempts] == [
        "attempt 1 failed",
        "attempt 2 failed",
        "",
    ]

    run(scheduled, [], retries=0)
    assert output.read_text().count("failed") == 1
    assert "attempt 4 failed" in output.read_text()


def test_bad_data_are_not_repeated_until_they_change(scheduled: ScheduledWorkspace):
    scheduled.script((1, 0, failure("data")))
    events: list[ScheduleEvent] = []

    ended = run(scheduled, events)

    assert (ended.result, ended.attempts, len(scheduled.calls)) == ("failed", 1, 1)
    assert [(event.kind, event.failure and event.failure.message) for event in events] == [("failed", "bad data")]
    assert scheduled.state.handled == input_state(scheduled.config, scheduled.workspace)


def test_repetitions_end_and_the_next_success_is_a_recovery(scheduled: ScheduledWorkspace):
    scheduled.script((75, 0, None), (75, 0, None), (75, 0, None), (0, 0, REFUSED))
    events: list[ScheduleEvent] = []

    ended = run(scheduled, events, retries=2)
    assert (ended.result, ended.attempts, ended.transient) == ("failed", 3, True)
    assert ended.failure and ended.failure.message == "attempt 3 failed\nits record is elsewhere"
    assert scheduled.state.handled is None

    assert run(scheduled, events).result == "refused"
    assert [event.kind for event in events] == ["failed", "recovered", "refused"]


def test_a_run_waits_for_another_one(scheduled: ScheduledWorkspace):
    job, ended = retraining(scheduled, []), []
    with scheduled.workspace.locked():
        thread = threading.Thread(target=lambda: ended.append(job.run(job.begin("cron"))))
        thread.start()
        wait_for(lambda: scheduled.state.last(1), "the run is on record")
        assert scheduled.calls == []
    thread.join(60)

    assert [run.result for run in ended] == ["pushed"]


def test_a_run_that_would_wait_for_too_long_is_left_out_without_an_event(scheduled: ScheduledWorkspace):
    events: list[ScheduleEvent] = []
    with scheduled.workspace.locked():
        ended = run(scheduled, events, busy_wait_seconds=0.1)

    assert (ended.result, ended.attempts, scheduled.calls, events) == ("skipped", 0, [], [])


def serve(scheduled: ScheduledWorkspace, version: int, rollback_of: int | None = None) -> None:
    """As if a run had pushed, or a person rolled a version back."""
    folder = scheduled.workspace.serving / "tiny" / str(version)
    folder.mkdir(parents=True)
    record = Record(
        version=version,
        model_fingerprint="f",
        class_names=[],
        published_at=datetime.now(UTC),
        rollback_of=rollback_of,
    )
    (folder / "PUBLISHED").write_text(record.model_dump_json())


@pytest.mark.parametrize(
    ("step", "result", "kinds"),
    [
        ((0, 0, {**PUSHED, "cached": ["ModelPusher"]}), "pushed", ["pushed"]),
        ((0, 0, REFUSED), "refused", ["pushed", "refused"]),
        ((1, 0, failure("data")), "failed", ["pushed", "failed"]),
    ],
)
def test_a_version_that_another_run_pushed_is_announced_once(
    scheduled: ScheduledWorkspace, step: object, result: str, kinds: list[str]
):
    scheduled.script(step)
    events: list[ScheduleEvent] = []
    scheduled.state.announced = 6
    serve(scheduled, 8)

    assert (run(scheduled, events).result, [event.kind for event in events]) == (result, kinds)
    pushed = events[0]
    assert (pushed.version, pushed.mean_iou) == (8, 0.625 if result == "pushed" else None)
    assert "version 8 was pushed by a run that the schedule did not see to its end" in pushed.reasons
    assert [event.version for event in events[1:]] == [None] * (len(events) - 1)
    assert scheduled.state.counts() == {result: 1}

    del events[:]
    assert run(scheduled, events).version is None
    assert "pushed" not in [event.kind for event in events]


def test_each_version_is_announced_where_a_run_pushes_after_one_that_was_not_seen_to_its_end(
    scheduled: ScheduledWorkspace,
):
    events: list[ScheduleEvent] = []
    scheduled.state.announced = 4
    serve(scheduled, 5)
    serve(scheduled, 8)

    ended = run(scheduled, events)

    assert (ended.result, ended.version, scheduled.state.announced) == ("pushed", 7, 8)
    assert [(event.kind, event.version, event.mean_iou) for event in events] == [
        ("pushed", 5, None),
        ("pushed", 7, 0.625),
        ("pushed", 8, None),
    ]
    assert [reason for reason in ended.reasons if "did not see to its end" in reason] == [
        f"version {version} was pushed by a run that the schedule did not see to its end" for version in (5, 8)
    ]


def test_the_recorded_inputs_are_those_of_the_last_attempt(
    scheduled: ScheduledWorkspace, monkeypatch: pytest.MonkeyPatch
):
    """The data are still being copied during the first attempt."""
    scheduled.script((75, 0, failure("data")), (0, 0, PUSHED))
    job = retraining(scheduled, [])
    run_command = job.process.run

    def run_process(attempt: int) -> ProcessResult:
        new = Path(scheduled.config.data.path) / "new.jpg"
        if not new.exists():
            new.touch()
        return run_command(attempt)

    monkeypatch.setattr(job.process, "run", run_process)

    assert job.run(job.begin("data")).attempts == 2
    assert scheduled.state.handled == input_state(scheduled.config, scheduled.workspace)


def test_a_rollback_is_no_push(scheduled: ScheduledWorkspace):
    scheduled.script((0, 0, {**PUSHED, "cached": ["ModelPusher"]}))
    events: list[ScheduleEvent] = []
    scheduled.state.announced = 6
    serve(scheduled, 6)
    serve(scheduled, 7, rollback_of=6)

    assert (run(scheduled, events).result, events, scheduled.state.announced) == ("unchanged", [], 6)


def test_stopping_ends_the_run_and_leaves_no_failure(scheduled: ScheduledWorkspace):
    scheduled.script((0, 600, PUSHED))
    events: list[ScheduleEvent] = []
    job = retraining(scheduled, events)
    thread = threading.Thread(target=lambda: job.run(job.begin("cron")))
    thread.start()
    wait_for(lambda: scheduled.calls, "the pipeline runs")

    job.stop.set()
    job.process.stop()
    thread.join(60)

    assert (scheduled.root / "interrupted").exists() or "killed by signal" in str(scheduled.state.last(1))
    assert [run.result for run in scheduled.state.last(9)] == ["interrupted"]
    assert events == []


@pytest.mark.parametrize(
    ("blessed", "pushed", "cached", "result"),
    [
        (True, 3, [], "pushed"),
        (True, 3, ["ModelPusher"], "unchanged"),
        (False, None, ["Trainer"], "refused"),
        (False, None, ["Trainer", "SegmentationEvaluator"], "unchanged"),
        (True, None, ["Trainer"], "unchanged"),  # what is served, evaluated against itself
        (True, None, [], "refused"),  # a new model that may not be pushed
        (None, None, [], "unchanged"),
    ],
)
def test_only_what_is_new_is_news(blessed: bool | None, pushed: int | None, cached: list[str], result: str):
    summary = RunSummary(
        run_id="r", status="succeeded", config={}, blessed=blessed, pushed_version=pushed, cached=cached
    )

    assert result_of(summary) == result
