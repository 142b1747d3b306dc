import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import kubeflow_runner
from data.errors import ConfigError, ProjectError
from pipeline.kubeflow import submission as submit
from pipeline.kubeflow.client import TOKEN_VARIABLE, ServerRefused
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.recurring import ScheduleError
from tests.pipeline.kubeflow import kfp_server

ROOT = Path(__file__).resolve().parents[3]
SECRET = "t0p.5ecret-token_value"
PARAMETERS = {
    "data_path": {"parameterType": "STRING", "defaultValue": "gs://b/data"},
    "train_steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 100},
}
SPEC = {
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.21.0",
    "pipelineInfo": {"name": "segmentation"},
    "defaultPipelineRoot": "minio://bucket/root",
    "root": {
        "inputDefinitions": {"parameters": PARAMETERS},
        "dag": {"tasks": {"Trainer": {"taskInfo": {"name": "Trainer"}, "componentRef": {"name": "Trainer"}}}},
    },
    "components": {"Trainer": {"executorLabel": "exec"}},
    "deploymentSpec": {"executors": {"exec": {"container": {"image": "registry.example/x:1", "command": ["true"]}}}},
}
PLATFORMS = {"platforms": {"kubernetes": {"config": {"serviceAccount": "trainer"}}}}


@pytest.fixture
def kfp() -> Iterator[kfp_server.Server]:
    with kfp_server.running() as server:
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "compiled.yaml"
    CompiledPipeline(SPEC, PLATFORMS).write(path)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    hurried = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(min(seconds, 0.001)))
    monkeypatch.setattr(submit, "time", hurried)


def invoke(kfp: kfp_server.Server, command: str, *arguments: str | Path) -> Result:
    """The command's output and exit code; errors that end it are raised."""
    return CliRunner().invoke(
        kubeflow_runner.app, [command, "--host", kfp.url, *map(str, arguments)], catch_exceptions=False
    )


def test_submit_starts_a_run_and_says_where(kfp: kfp_server.Server, spec: Path):
    result = invoke(kfp, "submit", "--spec", spec, "--set", "train_steps=7")

    (run,) = kfp.state.runs
    assert result.exit_code == 0
    assert f"{kfp.url}/#/runs/details/{run.run_id}" in result.output.split()
    assert {"train_steps=7", "data_path=gs://b/data"} <= set(result.output.split())
    assert run.display_name.startswith("segmentation 20")
    assert run.service_account == "trainer"
    assert run.runtime_config.parameters == {"data_path": "gs://b/data", "train_steps": 7}
    assert run.runtime_config.pipeline_root == "minio://bucket/root"
    assert run.pipeline_spec == {"pipeline_spec": SPEC, "platform_spec": PLATFORMS}
    assert [each.display_name for each in kfp.state.experiments] == ["segmentation"]


def test_names_can_be_chosen(kfp: kfp_server.Server, spec: Path):
    names = ("--experiment", "trials", "--name", "first", "--service-account", "other", "--namespace", "anna")

    invoke(kfp, "submit", "--spec", spec, *names)

    assert (kfp.state.runs[0].display_name, kfp.state.runs[0].service_account) == ("first", "other")
    assert (kfp.state.experiments[0].display_name, kfp.state.experiments[0].namespace) == ("trials", "anna")


@pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("SKIPPED", 0), ("FAILED", 3), ("CANCELED", 4)])
def test_the_exit_code_says_how_a_run_ended(kfp: kfp_server.Server, spec: Path, end: str, code: int):
    kfp.state.progress = ["PENDING", "RUNNING", end]

    result = invoke(kfp, "submit", "--spec", spec, "--wait")

    assert result.exit_code == code
    states = [line.split()[1] for line in result.output.splitlines() if line.startswith("state")]
    assert states == ["PENDING", "RUNNING", end]
    assert ("Trainer: out of memory" in result.output) == (end == "FAILED")


def test_a_wait_that_ends_before_the_run_has_a_code_of_its_own(kfp: kfp_server.Server, spec: Path):
    kfp.state.progress = ["RUNNING"]

    result = invoke(kfp, "submit", "--spec", spec, "--wait", "--timeout", "0.1")

    assert result.exit_code == 5
    assert "RUNNING after 0.1 s of waiting; it has not ended" in result.output


def test_a_timeout_without_wait_is_a_mistake(kfp: kfp_server.Server, spec: Path):
    result = invoke(kfp, "submit", "--spec", spec, "--timeout", "9")

    assert result.exit_code == 2 and "--timeout needs --wait" in result.output
    assert kfp.state.requests == []


def test_a_pipeline_that_the_server_would_refuse_is_not_sent(kfp: kfp_server.Server, spec: Path):
    spec.write_text(yaml.safe_dump({**SPEC, "schemaVersion": "2.0.0"}))

    with pytest.raises(ProjectError, match=r"2\.0\.0"):
        invoke(kfp, "submit", "--spec", spec)
    assert kfp.state.requests == []


def test_a_wrong_parameter_is_not_sent(kfp: kfp_server.Server, spec: Path):
    with pytest.raises(ConfigError, match="no parameter train_step; did you mean train_steps"):
        invoke(kfp, "submit", "--spec", spec, "--set", "train_step=7")
    assert kfp.state.requests == []


def test_a_missing_file_is_named(kfp: kfp_server.Server, tmp_path: Path):
    with pytest.raises(ConfigError, match="none.yaml: no such file"):
        invoke(kfp, "submit", "--spec", tmp_path / "none.yaml")


def test_schedule_without_an_action_makes_or_replaces(kfp: kfp_server.Server, spec: Path):
    first = invoke(kfp, "schedule", "--spec", spec, "--cron", "0 3 * * *")
    second = invoke(kfp, "schedule", "--spec", spec, "--cron", "0 4 * * *", "--set", "train_steps=7")

    assert first.exit_code == second.exit_code == 0
    (schedule,) = kfp.state.recurring
    assert kfp.state.enabled() == ["0 0 4 * * *"]
    assert schedule.runtime_config.parameters == {"data_path": "gs://b/data", "train_steps": 7}
    assert schedule.service_account == "trainer"
    assert f"{kfp.url}/#/recurringrun/details/{schedule.recurring_run_id}" in second.output.split()
    assert "0 4 * * * in the server's time zone (UTC, unless CRON_SCHEDULE_TIMEZONE" in second.output


def test_create_refuses_what_is_there(kfp: kfp_server.Server, spec: Path):
    invoke(kfp, "schedule", "create", "--spec", spec, "--cron", "0 3 * * *")

    with pytest.raises(ScheduleError, match="exists already; allowed: replace"):
        invoke(kfp, "schedule", "create", "--spec", spec, "--cron", "0 4 * * *")


def test_a_schedule_is_listed_paused_resumed_and_deleted(kfp: kfp_server.Server, spec: Path):
    invoke(kfp, "schedule", "--spec", spec, "--cron", "*/30 3 * * mon-fri")

    def listed() -> str:
        return invoke(kfp, "schedule", "list").output

    assert "enabled" in listed() and "0 */30 3 * * mon-fri" in listed() and "UTC, unless" in listed()
    assert "is paused; a run under way continues" in invoke(kfp, "schedule", "pause", "--spec", spec).output
    assert "paused" in listed() and "enabled" not in listed()
    invoke(kfp, "schedule", "resume", "--spec", spec)
    assert "enabled" in listed()
    invoke(kfp, "schedule", "delete", "--experiment", "segmentation", "--name", "segmentation")
    assert kfp.state.recurring == []


def test_the_list_can_be_of_one_experiment(kfp: kfp_server.Server, spec: Path):
    for name in ("one", "two"):
        invoke(kfp, "schedule", "--spec", spec, "--cron", "0 3 * * *", "--experiment", name, "--name", f"in-{name}")

    assert "in-one" in invoke(kfp, "schedule", "list").output
    assert "in-one" not in invoke(kfp, "schedule", "list", "--experiment", "two").output
    assert "in-" not in invoke(kfp, "schedule", "list", "--experiment", "three").output


def test_a_schedule_needs_a_name_from_somewhere(kfp: kfp_server.Server, tmp_path: Path):
    with pytest.raises(
        ConfigError, match="the schedule is not known; give --experiment and --name, or the file with --spec"
    ):
        invoke(kfp, "schedule", "pause", "--spec", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["replace"], "schedule replace: needs --cron 'minute hour"),
        (["list", "--cron", "0 3 * * *"], "schedule list: takes no --cron; allowed with --cron: create, replace"),
    ],
)
def test_cron_goes_with_making(kfp: kfp_server.Server, arguments: list[str], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        invoke(kfp, "schedule", *arguments)


def test_a_token_reaches_the_server_and_nothing_else(
    kfp: kfp_server.Server, spec: Path, monkeypatch: pytest.MonkeyPatch
):
    kfp.state.token = SECRET
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)

    outputs = [
        invoke(kfp, "submit", "--spec", spec, "--wait").output,
        invoke(kfp, "schedule", "--spec", spec, "--cron", "0 3 * * *").output,
        invoke(kfp, "schedule", "list").output,
    ]

    assert set(kfp.state.tokens) == {f"Bearer {SECRET}"}
    assert SECRET not in "".join(outputs) + str(kfp.state.bodies) + str(kfp.state.requests)
    monkeypatch.setenv(TOKEN_VARIABLE, "wrong")
    with pytest.raises(ServerRefused, match="401"):
        invoke(kfp, "schedule", "list")


def test_a_server_that_is_not_there_ends_in_one_message():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        command = [sys.executable, "kubeflow_runner.py", "schedule", "list", "--host", url]

        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert result.returncode == 1
    assert result.stderr.startswith(f"error: GET {url}/apis/v2beta1/recurringruns: the server cannot be reached:")
    assert len(result.stderr.splitlines()) == 1


def test_the_compiled_pipeline_is_submitted_and_scheduled(
    kfp: kfp_server.Server, compiled: CompiledPipeline, tmp_path: Path
):
    path = tmp_path / "pipeline.yaml"
    compiled.write(path)

    assert invoke(kfp, "submit", "--spec", path, "--set", "train_steps=7", "--wait").exit_code == 0
    assert invoke(kfp, "schedule", "--spec", path, "--cron", "0 3 * * *").exit_code == 0

    run, schedule = kfp.state.runs[0], kfp.state.recurring[0]
    assert run.runtime_config.parameters["train_steps"] == 7
    assert schedule.runtime_config.parameters["train_steps"] == 6
    declared = compiled.spec["root"]["inputDefinitions"]["parameters"]
    assert run.runtime_config.parameters.keys() == schedule.runtime_config.parameters.keys() == declared.keys()
