"""What counts as new: all that a run would read, and its configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data.dataset import DataConfig
from data.errors import IncompleteDataError
from pipeline.config import Config
from pipeline.schedule.inputs import input_state
from pipeline.workspace import Workspace


def picture(folder: Path, name: str = "a.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"picture")


def state(path: Path, **data: object) -> str:
    return input_state(Config(data=DataConfig(path=str(path), **data)), Workspace(Path("absent")))


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """Three spans, and a dataset apart."""
    for number in (1, 2, 3):
        picture(tmp_path / f"span-{number}")
    picture(tmp_path / "judges")
    return tmp_path / "span-{SPAN}"


@pytest.mark.parametrize(
    ("folder", "data", "counts"),
    [
        ("span-3", {}, True),
        ("span-2", {}, True),  # what the newest one is compared with
        ("span-1", {"test_set": "window"}, False),
        ("span-1", {"test_set": "window", "spans": {"window": 3}}, True),
        ("span-1", {"test_set": "window", "spans": {"replay": 0.5}}, True),
        ("judges", {}, False),
        ("elsewhere", {}, False),
    ],
)
def test_what_a_run_would_read_counts(folder: str, data: dict[str, object], counts: bool, spans: Path):
    before = state(spans, **data)
    picture(spans.parent / folder, "late.png")

    assert (state(spans, **data) != before) == counts


def test_a_dataset_apart_that_judges_counts(spans: Path):
    judges = spans.parent / "judges"
    before = state(spans, test_set=str(judges))
    picture(judges, "late.png")

    assert state(spans, test_set=str(judges)) != before


def test_the_configuration_counts_but_for_when_runs_begin(tmp_path: Path):
    picture(tmp_path / "data")
    config, workspace = Config(data=DataConfig(path=str(tmp_path / "data"))), Workspace(tmp_path)
    other = config.validation.model_copy(update={"on_drift": "warn"})
    often = config.schedule.model_copy(update={"poll_seconds": 1.0})

    before = input_state(config, workspace)
    assert input_state(config.model_copy(update={"validation": other}), workspace) != before
    assert input_state(config.model_copy(update={"schedule": often}), workspace) == before


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        (lambda root: picture(root / "span-03"), "span-{SPAN}", "ambiguous span: "),
        (lambda root: None, "typo/span-{SPAN}", "no folder "),
        (lambda root: None, "span-{span}", "no folder "),
        (lambda root: picture(root / "2026-02-30"), "{YYYY}-{MM}-{DD}", "no date: "),
    ],
)
def test_data_that_no_run_can_take_are_a_state_with_its_reason(
    change: Callable[[Path], None], path: str, reason: str, spans: Path
):
    change(spans.parent)

    assert f"\nrefused: {reason}" in state(spans.parent / path)


def test_a_copy_under_way_is_no_state(spans: Path):
    picture(spans.parent / "span-4", ".incomplete")

    with pytest.raises(IncompleteDataError, match="span span-4 is still being copied"):
        state(spans)
