import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.dataset import DataConfig
from pipeline.schedule.config import ScheduleConfig
from pipeline.schedule.watch import Watcher, data_fingerprint, watched_folder
from tests.pipeline.schedule.conftest import wait_for

QUICK = ScheduleConfig(debounce_seconds=0.8, poll_seconds=0.2)


@contextmanager
def watching(data: DataConfig, handled: str | None) -> Iterator[list[str | None]]:
    """The fingerprints for which the watcher called."""
    stop, called = threading.Event(), []
    watcher = Watcher(data, QUICK, lambda: handled, lambda: called.append(data_fingerprint(data)), stop)
    watcher.start()
    try:
        yield called
    finally:
        stop.set()
        watcher.join(30)
        assert not watcher.is_alive()


def picture(folder: Path, name: str = "a.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"picture")


def test_a_slow_copy_is_announced_once_when_it_is_complete(tmp_path: Path):
    picture(tmp_path)
    config = DataConfig(path=str(tmp_path))
    with watching(config, data_fingerprint(config)) as called:
        for number in range(12):
            picture(tmp_path, f"{number}.png")
            time.sleep(0.15)
        finished = time.monotonic()
        wait_for(lambda: called, "the new data are announced")
        assert time.monotonic() - finished >= QUICK.debounce_seconds / 2
        time.sleep(2 * QUICK.debounce_seconds)

    assert called == [data_fingerprint(config)]


def test_data_that_were_never_handled_are_announced_at_the_start(tmp_path: Path):
    picture(tmp_path)
    config = DataConfig(path=str(tmp_path))
    with watching(config, None) as called:
        wait_for(lambda: called, "the data are announced")


def test_handled_data_are_not_announced(tmp_path: Path):
    picture(tmp_path)
    config = DataConfig(path=str(tmp_path))
    with watching(config, data_fingerprint(config)) as called:
        time.sleep(3 * QUICK.debounce_seconds)

    assert called == []


def test_a_span_that_says_it_is_incomplete_is_waited_for(tmp_path: Path):
    picture(tmp_path / "span-1")
    config = DataConfig(path=str(tmp_path / "span-{SPAN}"))
    with watching(config, data_fingerprint(config)) as called:
        picture(tmp_path / "span-2", ".incomplete")
        picture(tmp_path / "span-2")
        time.sleep(2 * QUICK.debounce_seconds)
        assert called == []
        (tmp_path / "span-2" / ".incomplete").unlink()
        wait_for(lambda: called, "the span is announced")

    assert called == [data_fingerprint(config)]
    assert "span-2 files:1" in str(called[0])


def test_only_spans_that_a_run_would_take_count(tmp_path: Path):
    for number in (1, 2, 3):
        picture(tmp_path / f"span-{number}")
    config = DataConfig(path=str(tmp_path / "span-{SPAN}"))
    before = data_fingerprint(config)

    picture(tmp_path / "span-1", "late.png")
    picture(tmp_path / "elsewhere")
    assert data_fingerprint(config) == before

    picture(tmp_path / "span-3", "late.png")
    assert data_fingerprint(config) != before


def test_no_data_is_nothing_to_run_on(tmp_path: Path):
    assert data_fingerprint(DataConfig(path=str(tmp_path / "absent"))) is None
    assert data_fingerprint(DataConfig(path=str(tmp_path / "span-{SPAN}"))) is None


def test_object_stores_and_absent_folders_are_looked_at_from_time_to_time(tmp_path: Path):
    assert watched_folder(DataConfig(path=str(tmp_path / "span-{SPAN}"))) == tmp_path
    assert watched_folder(DataConfig(path="s3://bucket/{YYYY}-{MM}-{DD}")) is None
    assert watched_folder(DataConfig(path=str(tmp_path / "absent"))) is None
