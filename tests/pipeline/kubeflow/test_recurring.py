from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.kubeflow import recurring
from pipeline.kubeflow.client import Connection, Server, ServerError
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.recurring import ScheduleError, ScheduleKey
from pipeline.kubeflow.submission import Submission
from tests.pipeline.kubeflow import kfp_server

SPEC = {
    "schemaVersion": "2.1.0",
    "pipelineInfo": {"name": "segmentation"},
    "root": {"inputDefinitions": {"parameters": {"train_steps": {"parameterType": "NUMBER_INTEGER"}}}},
}
PLATFORMS = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
SUBMISSION = Submission(CompiledPipeline(SPEC, PLATFORMS), "nightly", "segmentation", {"train_steps": 7}, "trainer")
SCHEDULE = ScheduleKey("nightly", "segmentation")
OLD, NEW = "0 0 3 * * *", "0 0 4 * * *"
#: Experiments, recurring runs, create, disable, enable, delete.
REQUESTS_OF_A_REPLACEMENT = 6
FAULTS = ["error", "lost", "cut"]


@pytest.fixture
def kfp() -> Iterator[kfp_server.Server]:
    with kfp_server.running() as server:
        yield server


def server_of(kfp: kfp_server.Server, attempts: int = 1) -> Server:
    return Server(Connection(kfp.url, attempts=attempts, pause=0.001))


def expressions(kfp: kfp_server.Server) -> list[str]:
    return [each.trigger.cron_schedule.cron for each in kfp.state.recurring]


def test_a_schedule_is_made_as_the_server_should_run_it(kfp: kfp_server.Server):
    made = recurring.create(server_of(kfp), SUBMISSION, "0 3 * * *")

    (schedule,) = kfp.state.recurring
    assert schedule.recurring_run_id == made.recurring_run_id
    assert (schedule.display_name, schedule.mode) == ("segmentation", "ENABLE")
    assert schedule.trigger.cron_schedule.cron == "0 0 3 * * *"
    assert schedule.description.startswith("0 3 * * * (minute, hour")
    assert (schedule.max_concurrency, schedule.no_catchup) == ("1", True)
    assert schedule.runtime_config.parameters == {"train_steps": 7}
    assert schedule.service_account == "trainer"
    assert schedule.pipeline_spec == {"pipeline_spec": SPEC, "platform_spec": PLATFORMS}
    assert schedule.experiment_id == kfp.state.experiments[0].experiment_id


def test_it_is_made_disabled_and_then_enabled(kfp: kfp_server.Server):
    recurring.create(server_of(kfp), SUBMISSION, "0 3 * * *")

    posts = [path.rpartition("/")[2] for method, path in kfp.state.requests if method == "POST"]
    assert posts == ["experiments", "recurringruns", "schedule-2:enable"]
    assert kfp.state.bodies[1]["mode"] == "DISABLE"


def test_a_wrong_cron_is_refused_before_the_server_is_asked(kfp: kfp_server.Server):
    with pytest.raises(ConfigError, match="hour '25'"):
        recurring.replace(server_of(kfp), SUBMISSION, "0 25 * * *")

    assert kfp.state.requests == []


def test_create_leaves_what_is_there(kfp: kfp_server.Server):
    recurring.create(server_of(kfp), SUBMISSION, "0 3 * * *")

    with pytest.raises(ScheduleError, match="schedule 'segmentation' of experiment 'nightly': exists already"):
        recurring.create(server_of(kfp), SUBMISSION, "0 4 * * *")
    assert kfp.state.enabled() == [OLD]


def test_replace_takes_the_place_and_never_has_two_enabled(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    before = len(kfp.state.requests)

    recurring.replace(server, SUBMISSION, "0 4 * * *")

    assert expressions(kfp) == kfp.state.enabled() == [NEW]
    assert kfp.state.most_enabled == 1
    assert len(kfp.state.requests) - before == REQUESTS_OF_A_REPLACEMENT


def test_schedules_of_other_names_and_experiments_stay(kfp: kfp_server.Server):
    server = server_of(kfp)
    weekly = Submission(SUBMISSION.pipeline, "nightly", "weekly", {})
    elsewhere = Submission(SUBMISSION.pipeline, "trials", "segmentation", {})
    for other in (weekly, elsewhere, SUBMISSION):
        recurring.replace(server, other, "0 3 * * *")

    recurring.replace(server, SUBMISSION, "0 4 * * *")
    recurring.pause(server, SCHEDULE)

    assert kfp.state.enabled() == [OLD, OLD]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("nth", range(1, REQUESTS_OF_A_REPLACEMENT + 1))
def test_one_failed_request_leaves_exactly_one_enabled(kfp: kfp_server.Server, nth: int, kind: str):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    kfp.state.fail(kind, nth=nth, times=1)

    with pytest.raises((ServerError, ScheduleError)) as raised:
        recurring.replace(server, SUBMISSION, "0 4 * * *")

    last = nth == REQUESTS_OF_A_REPLACEMENT
    assert kfp.state.enabled() == [NEW if last else OLD]
    assert ("is enabled, but an old one" if last else "") in str(raised.value)
    assert kfp.state.most_enabled == 1

    recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert expressions(kfp) == kfp.state.enabled() == [NEW]
    assert kfp.state.most_enabled == 1


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("nth", range(1, REQUESTS_OF_A_REPLACEMENT + 1))
def test_a_server_that_goes_away_never_has_two_enabled_and_a_new_attempt_mends_it(
    kfp: kfp_server.Server, nth: int, kind: str
):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    kfp.state.fail(kind, nth=nth)

    with pytest.raises((ServerError, ScheduleError)):
        recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert kfp.state.most_enabled == 1
    kfp.state.faults.clear()

    recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert expressions(kfp) == kfp.state.enabled() == [NEW]
    assert kfp.state.most_enabled == 1


@pytest.mark.parametrize(
    ("request_path", "complaint"),
    [
        ("POST /apis/v2beta1/recurringruns", "not created; what existed is unchanged"),
        (":disable", "not replaced; the old one is enabled"),
        (":enable", "so that possibly none is enabled now; run the same command again"),
    ],
)
def test_the_error_states_what_is_enabled(kfp: kfp_server.Server, request_path: str, complaint: str):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    kfp.state.fail("error", path=request_path)

    with pytest.raises(
        ScheduleError, match=f"schedule 'segmentation' of experiment 'nightly': .*{complaint}"
    ) as raised:
        recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert "503 Failed to reach the database" in str(raised.value)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_passing_trouble_is_ridden_out(kfp: kfp_server.Server, kind: str):
    server = server_of(kfp, attempts=3)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    for path in ("GET", ":disable", ":enable", "DELETE"):
        kfp.state.fail(kind, path=path, times=1)

    recurring.replace(server, SUBMISSION, "0 4 * * *")

    assert expressions(kfp) == kfp.state.enabled() == [NEW]
    assert kfp.state.most_enabled == 1


@pytest.mark.parametrize("call", ["disable", "enable"])
def test_an_interrupted_replacement_is_undone(kfp: kfp_server.Server, call: str, monkeypatch: pytest.MonkeyPatch):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    original: Callable[[str], None] = getattr(server, call)

    def interrupted(key: str) -> None:
        monkeypatch.undo()
        original(key)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, call, interrupted)

    with pytest.raises(ScheduleError, match="the old one is enabled\ninterrupted"):
        recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert expressions(kfp) == kfp.state.enabled() == [OLD]
    assert kfp.state.most_enabled == 1


def test_several_that_are_there_become_one(kfp: kfp_server.Server):
    server = server_of(kfp)
    for _ in range(3):
        recurring.replace(server, SUBMISSION, "0 3 * * *")
        kfp.state.recurring[-1].display_name = "put aside"
    for each in kfp.state.recurring:
        each.display_name = "segmentation"
    kfp.state.page_size = 2

    recurring.replace(server, SUBMISSION, "0 4 * * *")

    assert expressions(kfp) == kfp.state.enabled() == [NEW]


def test_a_paused_schedule_starts_nothing_until_it_is_resumed(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")

    recurring.pause(server, SCHEDULE)
    assert kfp.state.enabled() == []

    recurring.resume(server, SCHEDULE)
    assert kfp.state.enabled() == [OLD]


def test_replacing_a_paused_schedule_enables_it(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    recurring.pause(server, SCHEDULE)

    recurring.replace(server, SUBMISSION, "0 4 * * *")

    assert kfp.state.enabled() == [NEW]


def test_after_a_replacement_cut_short_resume_enables_the_newest_alone(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    kfp.state.fail("error", path="DELETE")
    with pytest.raises(ScheduleError):
        recurring.replace(server, SUBMISSION, "0 4 * * *")
    assert expressions(kfp) == [OLD, NEW]

    recurring.pause(server, SCHEDULE)
    recurring.resume(server, SCHEDULE)

    assert kfp.state.enabled() == [NEW]
    assert kfp.state.most_enabled == 1


def test_resume_keeps_what_is_enabled(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    kfp.state.fail("error", path=":disable")
    kfp.state.fail("error", path="DELETE")
    with pytest.raises(ScheduleError):
        recurring.replace(server, SUBMISSION, "0 4 * * *")
    kfp.state.faults.clear()
    assert expressions(kfp) == [OLD, NEW]

    recurring.resume(server, SCHEDULE)

    assert kfp.state.enabled() == [OLD]
    assert kfp.state.most_enabled == 1


def test_of_several_enabled_by_hand_resume_leaves_one(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")
    recurring.replace(server, Submission(SUBMISSION.pipeline, "nightly", "copy", {}), "0 4 * * *")
    kfp.state.recurring[1].display_name = "segmentation"

    recurring.resume(server, SCHEDULE)

    assert kfp.state.enabled() == [NEW]


def test_delete_leaves_nothing_and_says_so_when_there_is_nothing(kfp: kfp_server.Server):
    server = server_of(kfp)
    recurring.replace(server, SUBMISSION, "0 3 * * *")

    recurring.delete(server, SCHEDULE)

    assert kfp.state.recurring == []
    for change in (recurring.delete, recurring.pause, recurring.resume):
        with pytest.raises(ScheduleError, match=f"'segmentation' of experiment 'nightly': does not exist on {kfp.url}"):
            change(server, SCHEDULE)


def test_an_unknown_experiment_is_not_made_by_looking(kfp: kfp_server.Server):
    with pytest.raises(ScheduleError, match="does not exist"):
        recurring.pause(server_of(kfp), SCHEDULE)

    assert kfp.state.experiments == []


STEPS = st.tuples(
    st.sampled_from(["replace", "pause", "resume"]), st.integers(1, 9), st.sampled_from(FAULTS), st.integers(1, 4)
)


@settings(max_examples=30)
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_whatever_fails_there_are_never_two_and_a_quiet_replacement_ends_with_one(
    steps: list[tuple[str, int, str, int]],
):
    with kfp_server.running() as kfp:
        server = server_of(kfp)
        for action, nth, kind, times in steps:
            kfp.state.fail(kind, nth=nth, times=times)
            try:
                if action == "replace":
                    recurring.replace(server, SUBMISSION, "0 3 * * *")
                else:
                    getattr(recurring, action)(server, SCHEDULE)
            except (ServerError, ScheduleError):
                pass
            kfp.state.faults.clear()
            assert kfp.state.most_enabled <= 1

        recurring.replace(server, SUBMISSION, "0 4 * * *")

        assert expressions(kfp) == kfp.state.enabled() == [NEW]
        assert kfp.state.most_enabled == 1
