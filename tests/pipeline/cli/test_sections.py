"""Commands that need one section of a configuration take it from any configuration with which `run` works."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import local_runner
from data.errors import ConfigError, WorkspaceError
from tests.pipeline.conftest import command_line

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
    result = command_line("inspect", str(tmp_path), "--config", str(config), "--page", str(tmp_path / "page.html"))

    assert f"error: unknown layout: {tmp_path} looks like none of" in result.stderr
