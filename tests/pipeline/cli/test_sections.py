"""Commands that need one section of a configuration take it from any configuration with which `run` works."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import kubeflow_runner
import local_runner
from data.errors import ConfigError, WorkspaceError
from pipeline.cli import schedule
from pipeline.schedule.scheduler import ScheduleOptions
from tests.pipeline.conftest import in_process

SPANS = """
data:
  path: /data/span-{SPAN}
  spans: {window: 3}
  test_set: window
  label_map: {classes: [{name: sky, values: [0]}]}
"""


def end_of(*arguments: object) -> BaseException | None:
    """The error with which a command ends."""
    return CliRunner().invoke(local_runner.app, [str(argument) for argument in arguments]).exception


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of spans."""
    file = tmp_path / "config.yaml"
    file.write_text(SPANS)
    return file


def commands(folder: Path, config: Path) -> list[list[object]]:
    options = ["--config", config, "--workspace", folder]
    return [
        ["serve", *options],
        ["predict", "--beam", folder, "--out", folder / "out", *options],
        ["lineage", 1, *options],
    ]


@pytest.mark.parametrize("command", range(3), ids=["serve", "predict", "lineage"])
def test_a_configuration_of_spans_is_taken(config: Path, tmp_path: Path, command: int) -> None:
    error = end_of(*commands(tmp_path, config)[command])

    assert isinstance(error, WorkspaceError)
    assert "pushed yet" in str(error) or "nothing has run in this workspace yet" in str(error)


@pytest.mark.parametrize("runner", [local_runner, kubeflow_runner], ids=["local", "kubeflow"])
def test_every_command_that_takes_a_configuration_takes_several_files(runner: ModuleType) -> None:
    commands = typer.main.get_command(runner.app).commands
    options = {name: option for name, each in commands.items() for option in each.params if option.name == "config"}

    assert len(options) >= 3
    assert {name for name, option in options.items() if not option.multiple} == set()


@pytest.mark.parametrize("command", range(3), ids=["serve", "predict", "lineage"])
def test_a_mistake_in_the_second_file_is_named(config: Path, tmp_path: Path, command: int) -> None:
    (second := tmp_path / "second.yaml").write_text("servng: {workers: 3}\n")

    error = end_of(*commands(tmp_path, config)[command], "--config", second)

    assert isinstance(error, ConfigError)
    assert str(error) == f"{second}: unknown key servng; did you mean serving?"


def test_a_schedule_gives_each_file_to_its_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (second := tmp_path / "second.yaml").write_text("data: {layout: voc}\n")
    given: list[Any] = []

    def run_schedule(options: ScheduleOptions, *arguments: Any) -> int:
        given.append((options.command, arguments[0]))
        return 0

    monkeypatch.setattr(schedule, "run_schedule", run_schedule)
    ended = end_of("schedule", "--once", "--config", config, "--config", second, "--workspace", tmp_path)

    assert ended is None
    [(program, configs)] = given
    assert configs == [config, second]
    assert program[3:7] == ["--config", str(config), "--config", str(second)]


@pytest.mark.parametrize("command", range(3), ids=["serve", "predict", "lineage"])
def test_an_unknown_section_is_named_whatever_the_command_needs(config: Path, tmp_path: Path, command: int) -> None:
    config.write_text("servng: {workers: 3}\n")

    error = end_of(*commands(tmp_path, config)[command])

    assert isinstance(error, ConfigError)
    assert str(error) == f"{config}: unknown key servng; did you mean serving?"


def test_doctor_examines_a_machine_for_a_configuration_of_spans(config: Path, tmp_path: Path) -> None:
    error = end_of("doctor", "--quick", "--config", config, "--workspace", tmp_path / "workspace")

    assert not isinstance(error, ConfigError), error


def test_one_span_is_inspected_as_the_configuration_of_all_says(config: Path, tmp_path: Path) -> None:
    result = in_process("inspect", str(tmp_path), "--config", str(config), "--page", str(tmp_path / "page.html"))

    assert f"error: unknown layout: {tmp_path} looks like none of" in result.stderr
