import time
from collections.abc import Iterator

import pytest

from pipeline.kubeflow.client import Connection, Server, ServerRefused, ServerUnavailable
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.submission import Patience, RunUnfinished, Submission, failures, follow, start
from tests.pipeline.kubeflow import kfp_server

SPEC = {
    "schemaVersion": "2.1.0",
    "pipelineInfo": {"name": "segmentation"},
    "root": {"inputDefinitions": {"parameters": {"train_steps": {"parameterType": "NUMBER_INTEGER"}}}},
}
SUBMISSION = Submission(CompiledPipeline(SPEC), "nightly", "a run", {"train_steps": 7}, "trainer")
QUICK = Patience(limit=60, poll=0.001)


@pytest.fixture
def kfp() -> Iterator[kfp_server.Server]:
    with kfp_server.running() as server:
        yield server


def server_of(kfp: kfp_server.Server) -> Server:
    return Server(Connection(kfp.url, attempts=1))


def test_a_run_is_started_with_all_that_it_needs(kfp: kfp_server.Server):
    started = start(server_of(kfp), SUBMISSION)

    (run,) = kfp.state.runs
    assert (run.run_id, run.display_name, run.service_account) == (started.run_id, "a run", "trainer")
    assert run.experiment_id == kfp.state.experiments[0].experiment_id
    assert run.pipeline_spec == SPEC
    assert run.runtime_config.parameters == {"train_steps": 7}


def test_a_refusal_is_shown_in_the_words_of_the_server(kfp: kfp_server.Server):
    wrong = Submission(SUBMISSION.pipeline, "nightly", "a run", {"steps": 7})

    with pytest.raises(ServerRefused, match="400 parameter.s. provided are not required by pipeline: steps"):
        start(server_of(kfp), wrong)


def test_a_lost_answer_warns_that_the_run_may_have_started(kfp: kfp_server.Server):
    kfp.state.fail("cut", path="POST /apis/v2beta1/runs")

    with pytest.raises(ServerUnavailable, match=f"'a run' may have started nevertheless; before .* {kfp.url}/#/runs"):
        start(server_of(kfp), SUBMISSION)
    assert len(kfp.state.runs) == 1


@pytest.mark.parametrize("end", ["SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"])
def test_a_run_is_followed_to_its_end(kfp: kfp_server.Server, end: str):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.progress = ["PENDING", "RUNNING", "RUNNING", "PAUSED", "CANCELING", end]
    seen: list[str] = []

    ended = follow(server, run.run_id, QUICK, seen.append)

    assert ended.state == end
    assert seen == ["PENDING", "RUNNING", "PAUSED", "CANCELING", end]


def test_the_wait_ends_in_time_and_the_run_continues(kfp: kfp_server.Server):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.progress = ["RUNNING"]
    begin = time.monotonic()

    with pytest.raises(
        RunUnfinished, match=f"RUNNING after 0.2 s of waiting; it has not ended: {kfp.url}/#/runs/details"
    ):
        follow(server, run.run_id, Patience(limit=0.2, poll=0.05))
    assert time.monotonic() - begin >= 0.2


def test_no_time_to_wait_is_one_look(kfp: kfp_server.Server):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    before = len(kfp.state.requests)

    with pytest.raises(RunUnfinished, match="PENDING after 0 s"):
        follow(server, run.run_id, Patience(limit=0))
    assert len(kfp.state.requests) == before + 1


@pytest.mark.parametrize("kind", ["error", "cut"])
def test_an_outage_of_the_server_is_waited_for(kfp: kfp_server.Server, kind: str):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.fail(kind, nth=2, times=5)

    assert follow(server, run.run_id, QUICK).state == "SUCCEEDED"


def test_an_outage_that_does_not_end_is_an_error(kfp: kfp_server.Server):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.fail("error", nth=2)

    with pytest.raises(ServerUnavailable, match="503 Failed to reach the database"):
        follow(server, run.run_id, Patience(poll=0.01, outage=0.1))


def test_an_expired_token_ends_the_wait_at_once(kfp: kfp_server.Server):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.token = "another"

    with pytest.raises(ServerRefused, match="401 "):
        follow(server, run.run_id, QUICK)


def test_a_failure_names_the_task_and_its_reason(kfp: kfp_server.Server):
    server = server_of(kfp)
    run = start(server, SUBMISSION)
    kfp.state.progress = ["FAILED"]
    kfp.state.run_error = "1 of 9 tasks failed"

    ended = follow(server, run.run_id, QUICK)

    assert failures(ended) == ["1 of 9 tasks failed", "Trainer: out of memory"]
    assert failures(run) == []
