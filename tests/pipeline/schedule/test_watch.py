"""Which data and configuration count as new, and when a run is started for them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data.dataset import DataConfig
from data.errors import IncompleteDataError
from pipeline.config import Config
from pipeline.schedule.watch import DataWatcher, input_state, watched_folder
from pipeline.sections.schedule import ScheduleConfig
from pipeline.workspace import Workspace
from tests.pipeline.schedule.conftest import wait_for

QUICK = ScheduleConfig(debounce_seconds=0.8, poll_seconds=0.2)


@dataclass
class WatchedPipeline:
    """A pipeline that is watched for; `handles` states whether its runs handle what they find."""

    config: Config
    workspace: Workspace
    handled: str | None = None
    handles: bool = True
    called: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def state(self) -> str:
        return input_state(self.config, self.workspace)

    def due(self) -> str | None:
        return self.state if self.state != self.handled else None

    def run(self) -> None:
        self.called.append(self.state)
        self.times.append(time.monotonic())
        if self.handles:
            self.handled = self.called[-1]


def watched(path: Path | str, **data: object) -> WatchedPipeline:
    """Data that no run has handled."""
    config = Config(data=DataConfig(path=str(path), **data))
    return WatchedPipeline(config, Workspace(Path(str(path).partition("{")[0]).parent / "workspace"))


@contextmanager
def watching(job: WatchedPipeline, config: ScheduleConfig = QUICK) -> Iterator[list[str]]:
    """The states for which the watcher called."""
    stop = threading.Event()
    watcher = DataWatcher(job.config.data, config, job.due, job.run, stop)
    watcher.start()
    try:
        yield job.called
    finally:
        stop.set()
        watcher.join(30)
        assert not watcher.is_alive()


def write_image(folder: Path, name: str = "a.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"image")


def test_a_slow_copy_is_announced_once_when_it_is_complete(tmp_path: Path):
    write_image(tmp_path)
    job = watched(tmp_path)
    job.handled = job.state
    with watching(job) as called:
        for number in range(12):
            write_image(tmp_path, f"{number}.png")
            time.sleep(0.15)
        finished = time.monotonic()
        wait_for(lambda: called, "the new data are announced")
        assert time.monotonic() - finished >= QUICK.debounce_seconds / 2
        time.sleep(2 * QUICK.debounce_seconds)

    assert called == [job.state]


def test_data_that_were_never_handled_are_announced_at_the_start(tmp_path: Path):
    write_image(tmp_path)
    with watching(watched(tmp_path)) as called:
        wait_for(lambda: called, "the data are announced")


def test_handled_data_are_not_announced(tmp_path: Path):
    write_image(tmp_path)
    job = watched(tmp_path)
    job.handled = job.state
    with watching(job) as called:
        time.sleep(3 * QUICK.debounce_seconds)

    assert called == []


def test_data_that_a_run_did_not_handle_are_tried_again_after_longer_and_longer_waits(tmp_path: Path):
    write_image(tmp_path)
    job = watched(tmp_path)
    job.handles = False
    waits = ScheduleConfig(debounce_seconds=0.05, poll_seconds=0.05, backoff_seconds=0.5)
    with watching(job, waits) as called:
        wait_for(lambda: len(called) == 3, "the data are tried three times")
        job.handles = True
        wait_for(lambda: job.handled, "the data are handled")
        time.sleep(0.5)

    first, second, third, *_ = job.times
    assert second - first >= 0.5 and third - second >= 1
    assert called == [job.state] * 4


def test_other_data_need_not_wait_for_the_next_try(tmp_path: Path):
    write_image(tmp_path)
    job = watched(tmp_path)
    job.handles = False
    with watching(job, QUICK.model_copy(update={"backoff_seconds": 3600.0})) as called:
        wait_for(lambda: called, "the data are tried")
        write_image(tmp_path, "b.png")
        wait_for(lambda: len(called) == 2, "the new data are tried")


def test_a_span_that_says_it_is_incomplete_is_waited_for_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    write_image(tmp_path / "span-1")
    job = watched(tmp_path / "span-{SPAN}")
    job.handled = job.state
    with watching(job, QUICK.model_copy(update={"incomplete_warning_seconds": 1.0})) as called:
        write_image(tmp_path / "span-2", ".incomplete")
        write_image(tmp_path / "span-2")
        wait_for(lambda: "still waiting for" in caplog.text, "the log warns")
        assert called == []
        (tmp_path / "span-2" / ".incomplete").unlink()
        wait_for(lambda: called, "the span is announced")

    assert called == [job.state] and "span-2" in called[0]
    levels = [record.levelname for record in caplog.records if "span span-2 is still being copied" in record.message]
    assert levels[:2] == ["INFO", "WARNING"] and levels.count("INFO") == 1


def test_what_cannot_be_read_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def due() -> None:
        checks.append(1)
        raise ConnectionError("the network is down")

    checks: list[int] = []
    job, stop = watched(tmp_path), threading.Event()
    watcher = DataWatcher(job.config.data, QUICK, due, job.run, stop)
    watcher.start()
    wait_for(lambda: len(checks) > 3, "it is checked again")
    stop.set()
    watcher.join(30)

    assert [record.message for record in caplog.records] == [
        f"waiting for {tmp_path}: ConnectionError: the network is down"
    ]


def test_object_stores_and_absent_folders_are_checked_from_time_to_time(tmp_path: Path):
    assert watched_folder(DataConfig(path=str(tmp_path / "span-{SPAN}"))) == tmp_path
    assert watched_folder(DataConfig(path="s3://bucket/{YYYY}-{MM}-{DD}")) is None
    assert watched_folder(DataConfig(path=str(tmp_path / "absent"))) is None


def state(path: Path, **data: object) -> str:
    return input_state(Config(data=DataConfig(path=str(path), **data)), Workspace(Path("absent")))


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """Three spans, and a separate dataset."""
    for number in (1, 2, 3):
        write_image(tmp_path / f"span-{number}")
    write_image(tmp_path / "test-set")
    return tmp_path / "span-{SPAN}"


@pytest.mark.parametrize(
    ("folder", "data", "counts"),
    [
        ("span-3", {}, True),
        ("span-2", {}, True),  # the newest one is compared with it
        ("span-1", {"test_set": "window"}, False),
        ("span-1", {"test_set": "window", "spans": {"window": 3}}, True),
        ("span-1", {"test_set": "window", "spans": {"replay": 0.5}}, True),
        ("test-set", {}, False),
        ("elsewhere", {}, False),
    ],
)
def test_what_a_run_would_read_counts(folder: str, data: dict[str, object], counts: bool, spans: Path):
    before = state(spans, **data)
    write_image(spans.parent / folder, "late.png")

    assert (state(spans, **data) != before) == counts


def test_a_separate_test_set_counts(spans: Path):
    separate = spans.parent / "test-set"
    before = state(spans, test_set=str(separate))
    write_image(separate, "late.png")

    assert state(spans, test_set=str(separate)) != before


def test_the_configuration_counts_but_for_when_runs_begin(tmp_path: Path):
    write_image(tmp_path / "data")
    config, workspace = Config(data=DataConfig(path=str(tmp_path / "data"))), Workspace(tmp_path)
    other = config.validation.model_copy(update={"on_drift": "warn"})
    often = config.schedule.model_copy(update={"poll_seconds": 1.0})

    before = input_state(config, workspace)
    assert input_state(config.model_copy(update={"validation": other}), workspace) != before
    assert input_state(config.model_copy(update={"schedule": often}), workspace) == before


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        (lambda root: write_image(root / "span-03"), "span-{SPAN}", "ambiguous span: "),
        (lambda root: None, "typo/span-{SPAN}", "no folder "),
        (lambda root: None, "span-{span}", "no folder "),
        (lambda root: write_image(root / "2026-02-30"), "{YYYY}-{MM}-{DD}", "no date: "),
    ],
)
def test_data_that_no_run_can_use_are_a_state_with_its_reason(
    change: Callable[[Path], None], path: str, reason: str, spans: Path
):
    change(spans.parent)

    assert f"\nrefused: {reason}" in state(spans.parent / path)


def test_a_copy_in_progress_is_not_a_state(spans: Path):
    write_image(spans.parent / "span-4", ".incomplete")

    with pytest.raises(IncompleteDataError, match="span span-4 is still being copied"):
        state(spans)
