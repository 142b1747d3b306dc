import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data.dataset import DataConfig
from pipeline.config import Config
from pipeline.schedule.inputs import input_state
from pipeline.schedule.watch import Watcher, watched_folder
from pipeline.sections.schedule import ScheduleConfig
from pipeline.workspace import Workspace
from tests.pipeline.schedule.conftest import wait_for

QUICK = ScheduleConfig(debounce_seconds=0.8, poll_seconds=0.2)


@dataclass
class Watched:
    """A pipeline that is watched for; `deals` says whether its runs deal with what they find."""

    config: Config
    workspace: Workspace
    handled: str | None = None
    deals: bool = True
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
        if self.deals:
            self.handled = self.called[-1]


def watched(path: Path | str, **data: object) -> Watched:
    """Data of which no run has dealt with."""
    config = Config(data=DataConfig(path=str(path), **data))
    return Watched(config, Workspace(Path(str(path).partition("{")[0]).parent / "workspace"))


@contextmanager
def watching(job: Watched, config: ScheduleConfig = QUICK) -> Iterator[list[str]]:
    """The states for which the watcher called."""
    stop = threading.Event()
    watcher = Watcher(job.config.data, config, job.due, job.run, stop)
    watcher.start()
    try:
        yield job.called
    finally:
        stop.set()
        watcher.join(30)
        assert not watcher.is_alive()


def picture(folder: Path, name: str = "a.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"picture")


def test_a_slow_copy_is_announced_once_when_it_is_complete(tmp_path: Path):
    picture(tmp_path)
    job = watched(tmp_path)
    job.handled = job.state
    with watching(job) as called:
        for number in range(12):
            picture(tmp_path, f"{number}.png")
            time.sleep(0.15)
        finished = time.monotonic()
        wait_for(lambda: called, "the new data are announced")
        assert time.monotonic() - finished >= QUICK.debounce_seconds / 2
        time.sleep(2 * QUICK.debounce_seconds)

    assert called == [job.state]


def test_data_that_were_never_handled_are_announced_at_the_start(tmp_path: Path):
    picture(tmp_path)
    with watching(watched(tmp_path)) as called:
        wait_for(lambda: called, "the data are announced")


def test_handled_data_are_not_announced(tmp_path: Path):
    picture(tmp_path)
    job = watched(tmp_path)
    job.handled = job.state
    with watching(job) as called:
        time.sleep(3 * QUICK.debounce_seconds)

    assert called == []


def test_data_with_which_a_run_did_not_deal_are_tried_again_after_longer_and_longer_waits(tmp_path: Path):
    picture(tmp_path)
    job = watched(tmp_path)
    job.deals = False
    waits = ScheduleConfig(debounce_seconds=0.05, poll_seconds=0.05, backoff_seconds=0.5)
    with watching(job, waits) as called:
        wait_for(lambda: len(called) == 3, "the data are tried three times")
        job.deals = True
        wait_for(lambda: job.handled, "the data are dealt with")
        time.sleep(0.5)

    first, second, third, *_ = job.times
    assert second - first >= 0.5 and third - second >= 1
    assert called == [job.state] * 4


def test_other_data_need_not_wait_for_the_next_try(tmp_path: Path):
    picture(tmp_path)
    job = watched(tmp_path)
    job.deals = False
    with watching(job, QUICK.model_copy(update={"backoff_seconds": 3600.0})) as called:
        wait_for(lambda: called, "the data are tried")
        picture(tmp_path, "b.png")
        wait_for(lambda: len(called) == 2, "the new data are tried")


def test_a_span_that_says_it_is_incomplete_is_waited_for_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    picture(tmp_path / "span-1")
    job = watched(tmp_path / "span-{SPAN}")
    job.handled = job.state
    with watching(job, QUICK.model_copy(update={"incomplete_warning_seconds": 1.0})) as called:
        picture(tmp_path / "span-2", ".incomplete")
        picture(tmp_path / "span-2")
        wait_for(lambda: "still waiting for" in caplog.text, "the log warns")
        assert called == []
        (tmp_path / "span-2" / ".incomplete").unlink()
        wait_for(lambda: called, "the span is announced")

    assert called == [job.state] and "span-2" in called[0]
    levels = [record.levelname for record in caplog.records if "span span-2 is still being copied" in record.message]
    assert levels[:2] == ["INFO", "WARNING"] and levels.count("INFO") == 1


def test_what_cannot_be_looked_at_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def due() -> None:
        looks.append(1)
        raise ConnectionError("the network is down")

    looks: list[int] = []
    job, stop = watched(tmp_path), threading.Event()
    watcher = Watcher(job.config.data, QUICK, due, job.run, stop)
    watcher.start()
    wait_for(lambda: len(looks) > 3, "it is looked at again")
    stop.set()
    watcher.join(30)

    assert [record.message for record in caplog.records] == [
        f"waiting for {tmp_path}: ConnectionError: the network is down"
    ]


def test_object_stores_and_absent_folders_are_looked_at_from_time_to_time(tmp_path: Path):
    assert watched_folder(DataConfig(path=str(tmp_path / "span-{SPAN}"))) == tmp_path
    assert watched_folder(DataConfig(path="s3://bucket/{YYYY}-{MM}-{DD}")) is None
    assert watched_folder(DataConfig(path=str(tmp_path / "absent"))) is None
