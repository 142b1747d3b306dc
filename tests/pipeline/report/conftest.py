"""Runs written by hand, and a browser to look at their pages."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from pipeline.metadata.outline import Outline
from pipeline.records.executions import StageRecord
from pipeline.records.summary import RunSummary
from pipeline.report.page import write_report
from pipeline.report.runs import RunRecord
from tests.browser import chromium
from tests.pipeline.report.hand_made import save_model, write_artifacts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact's folder."""
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def stages(tmp_path: Path, model: Path) -> dict[str, StageRecord]:
    """What a run leaves that came to its end."""
    return write_artifacts(tmp_path, model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    run = tmp_path / "runs" / "20260101-000000-000"
    (run / "tensorboard").mkdir(parents=True)
    (run / "summary.json").write_text("{}")
    return run


@pytest.fixture
def page(folder: Path, stages: dict[str, StageRecord]) -> Callable[..., str]:
    """Writes a report and reads it."""

    def write(summary: RunSummary, stages: Mapping[str, StageRecord] = stages, origin: Outline | None = None) -> str:
        return write_report(RunRecord(summary, stages, folder, origin)).read_text(encoding="utf-8")

    return write


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium."""
    with chromium(tmp_path / "profile") as chrome:
        yield chrome
