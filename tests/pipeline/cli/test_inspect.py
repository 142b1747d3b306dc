"""`inspect`: what is asked, how it is answered, and what `run` does until then."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

import local_runner
from data.errors import DataError


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # The terminal's descriptor stays open until the process ends.
    monkeypatch.setattr("pipeline.cli.inspect.terminal", lambda: Console(file=StringIO()))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve images whose masks hold 0 and 255."""
    rng = np.random.default_rng(0)
    for index in range(12):
        for folder, pixels in (("images", rng.integers(0, 256, (20, 30, 3))), ("masks", np.tri(20, 30) * 255)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / folder / f"{index}.png")
    return tmp_path / "data"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(local_runner.app, [str(argument) for argument in arguments])


def inspected(dataset: Path, config: Path, *options: str) -> Result:
    page = dataset.parent / "page.html"
    return command("inspect", dataset, "--write-config", config, "--page", page, *options)


def test_a_question_ends_inspect_well_and_stops_the_run(dataset: Path, tmp_path: Path) -> None:
    result = inspected(dataset, tmp_path / "my.yaml")
    assert result.exit_code == 0, result.output
    assert "inspect --object 255" in " ".join(result.output.split())
    error = command("run", "--config", tmp_path / "my.yaml", "--workspace", tmp_path / "w", "--dry-run").exception
    assert isinstance(error, DataError) and str(error).startswith("data.question: Is 255 an object or void?")


@pytest.mark.parametrize(
    ("option", "classes", "void"), [("--object", ["background", "foreground"], []), ("--ignore", ["background"], [255])]
)
def test_an_option_answers(dataset: Path, tmp_path: Path, option: str, classes: list[str], void: list[int]) -> None:
    result = inspected(dataset, tmp_path / "my.yaml", option, "255")
    assert result.exit_code == 0, result.output
    data = yaml.safe_load((tmp_path / "my.yaml").read_text())["data"]
    assert "question" not in data
    assert [label["name"] for label in data["label_map"]["classes"]] == classes
    assert data["label_map"]["ignore_values"] == void


def test_an_answer_that_is_no_code_is_refused(dataset: Path, tmp_path: Path) -> None:
    assert "--object 'white'" in str(inspected(dataset, tmp_path / "my.yaml", "--object", "white").exception)
