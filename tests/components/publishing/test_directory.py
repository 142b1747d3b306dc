"""The serving directory: a version is seen whole or not at all, whatever happens to its publisher."""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.publishing import directory as serving_directory
from components.publishing.directory import (
    ModelVersion,
    Record,
    all_published,
    model_fingerprint,
    prune,
    publish,
    published,
    republish,
    served,
    state,
    versions,
)
from components.publishing.lock import LOCK, serving_lock
from components.publishing.pins_and_blocklist import block, pin, unpin
from data.errors import WorkspaceBusy, WorkspaceError
from tests.serving_changes import overtaken

EXTRA = {"assets.extra/warmup": b"requests"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a SavedModel."""
    folder = tmp_path / "model"
    for name, content in {
        "saved_model.pb": b"graph" * 10_000,
        "fingerprint.pb": b"f",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": b"weights" * 20_000,
        "assets/label_map.json": b"{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(serving: Path) -> list[str]:
    """What lies in a serving directory, beside the lock."""
    return sorted(path.name for path in serving.iterdir() if path.name != LOCK)


def push(model: Path, serving: Path) -> ModelVersion:
    return publish(str(model), str(serving), ["sky", "road"], EXTRA)


def test_a_published_version_holds_the_model_the_extra_files_and_its_record(model: Path, tmp_path: Path):
    version = push(model, tmp_path / "serving/name")

    files = content(Path(version.path))
    assert files.pop("PUBLISHED") == version.record.model_dump_json(indent=2).encode()
    assert files == content(model) | EXTRA
    assert version.version == 1
    assert version.record.class_names == ["sky", "road"]
    assert version.record.source == str(model)
    assert version.record.model_fingerprint == model_fingerprint(str(model))
    assert served(str(tmp_path / "serving/name")) == version
    assert Path(version.path).stat().st_mode & 0o777 == 0o755


def test_nothing_is_served_from_an_absent_or_empty_folder(tmp_path: Path):
    assert served(str(tmp_path / "absent")) is None
    assert state(str(tmp_path)) == "none"


def test_the_state_changes_with_version_and_model(model: Path, tmp_path: Path):
    first = push(model, tmp_path / "s")
    assert state(str(tmp_path / "s")) == f"1:{first.record.model_fingerprint}"

    (model / "fingerprint.pb").write_bytes(b"g")
    second = push(model, tmp_path / "s")

    assert state(str(tmp_path / "s")) == f"2:{second.record.model_fingerprint}"
    assert first.record.model_fingerprint != second.record.model_fingerprint


def test_half_written_versions_and_other_files_are_not_seen(model: Path, tmp_path: Path):
    serving = tmp_path / "serving"
    whole = push(model, serving)
    shutil.copytree(model, serving / "7")
    shutil.copytree(whole.path, serving / ".staging-abc")
    shutil.copytree(whole.path, serving / "latest")
    (serving / "8").write_text("a file")
    (serving / "²").mkdir()

    assert published(str(serving)) == [whole]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda text: text[:20], "Invalid JSON"),
        (lambda _: b"", "Invalid JSON"),
        (lambda _: b"\xff\xfe", "Invalid JSON"),
        (lambda text: text.replace(b'"class_names"', b'"classes"'), "class_names: Field required"),
        (lambda text: text.replace(b'"version": 1', b'"version": "one"'), "version: Input should be a valid integer"),
    ],
)
def test_a_damaged_record_is_named_with_what_to_do(
    model: Path, tmp_path: Path, damage: Callable[[bytes], bytes], what: str
):
    record = Path(push(model, tmp_path / "serving").path, "PUBLISHED")
    damaged = damage(record.read_bytes())
    assert damaged != record.read_bytes()
    record.write_bytes(damaged)

    with pytest.raises(WorkspaceError) as caught:
        served(str(tmp_path / "serving"))

    message = str(caught.value)
    assert message.startswith(f"{record}: damaged record of a published version: {what}")
    assert message.endswith("Restore the file, or remove the version's folder")


def test_a_damaged_record_of_an_earlier_version_stops_nobody_but_those_who_must_miss_none(model: Path, tmp_path: Path):
    serving = tmp_path / "serving"
    first, second = push(model, serving), push(model, serving)
    record = Path(first.path, "PUBLISHED")
    record.write_text("{")

    assert served(str(serving)) == second and published(str(serving)) == [second]
    assert [version.version for version in versions(str(serving))] == [1, 2]
    with pytest.raises(WorkspaceError, match=f"{record}: damaged record"):
        all_published(str(serving))
    third = push(model, serving)
    assert prune(str(serving), 1) == [2] and published(str(serving)) == [third] and record.exists()


def test_a_record_that_cannot_be_read_is_named(model: Path, tmp_path: Path):
    record = Path(push(model, tmp_path / "serving").path, "PUBLISHED")
    record.unlink()
    record.mkdir()

    with pytest.raises(WorkspaceError, match=f"{record}: the record of a published version cannot be read: Is a dir"):
        served(str(tmp_path / "serving"))


def test_a_version_that_another_process_published_meanwhile_is_not_overwritten(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = push(model, tmp_path / "serving")
    (model / "saved_model.pb").write_bytes(b"another graph")
    monkeypatch.setattr(serving_directory, "_next_version", lambda *_: 1)

    with pytest.raises(WorkspaceError, match=f"{first.path}: another process published this version meanwhile"):
        push(model, tmp_path / "serving")

    assert published(str(tmp_path / "serving")) == [first]
    assert Path(first.path, "saved_model.pb").read_bytes() == b"graph" * 10_000
    assert names(tmp_path / "serving") == ["1"]


def test_versions_go_on_above_whatever_is_there(model: Path, tmp_path: Path):
    serving = tmp_path / "serving"
    (serving / "41").mkdir(parents=True)

    assert push(model, serving).version == 42


def test_versions_grow_and_are_ordered_as_numbers_whatever_the_clock_says(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Clock(datetime):
        years = iter((2030, 1980, *(2000,) * 9))

        @classmethod
        def now(cls, tz=None):
            return datetime(next(cls.years), 1, 1, tzinfo=UTC)

    monkeypatch.setattr(serving_directory, "datetime", Clock)
    versions = [push(model, tmp_path / "serving") for _ in range(11)]

    assert [version.version for version in versions] == list(range(1, 12))
    assert [version.version for version in published(str(tmp_path / "serving"))] == list(range(1, 12))
    assert served(str(tmp_path / "serving")) == versions[-1]
    assert versions[1].record.published_at.year == 1980


def test_prune_keeps_the_newest(model: Path, tmp_path: Path):
    for _ in range(4):
        push(model, tmp_path / "serving")

    assert prune(str(tmp_path / "serving"), 2) == [1, 2]

    assert names(tmp_path / "serving") == ["3", "4"]
    assert prune(str(tmp_path / "serving"), 5) == []
    assert prune(str(tmp_path / "serving"), 0) == [3]
    assert push(model, tmp_path / "serving").version == 5


def test_prune_keeps_what_is_pinned_beside_the_newest(model: Path, tmp_path: Path):
    serving = str(tmp_path / "serving")
    for _ in range(5):
        push(model, tmp_path / "serving")
    pin(serving, 1)
    pin(serving, 3)

    assert prune(serving, 2) == [2]
    assert [version.version for version in published(serving)] == [1, 3, 4, 5]
    unpin(serving, 1)
    assert prune(serving, 2) == [1]


def test_prune_removes_nothing_if_it_cannot_read_what_is_pinned(model: Path, tmp_path: Path):
    for _ in range(3):
        push(model, tmp_path / "serving")
    (tmp_path / "serving/pins.json").write_text('{"versions": [1, ')

    with pytest.raises(WorkspaceError, match=r"pins\.json: damaged: .*nothing is pushed or removed"):
        prune(str(tmp_path / "serving"), 1)

    assert len(published(str(tmp_path / "serving"))) == 3


def test_an_earlier_version_comes_back_as_a_new_one_with_all_its_files(model: Path, tmp_path: Path):
    serving = tmp_path / "serving"
    first = push(model, serving)
    (model / "saved_model.pb").write_bytes(b"worse")
    second = push(model, serving)

    third = republish(first, str(serving), rollback_of=2)
    fourth = republish(third, str(serving), rollback_of=3)

    assert served(str(serving)) == fourth
    for restored in (third, fourth):
        files = content(Path(restored.path))
        assert files.pop("PUBLISHED") == restored.record.model_dump_json(indent=2).encode()
        assert files.items() >= EXTRA.items()
        assert files == {name: data for name, data in content(Path(first.path)).items() if name != "PUBLISHED"}
        assert model_fingerprint(restored.path) == first.record.model_fingerprint
        assert restored.record.model_fingerprint == first.record.model_fingerprint
        assert (restored.record.restored_from, restored.record.first_version) == (1, 1)
        assert restored.record.source == first.record.source
    assert (third.record.rollback_of, fourth.record.rollback_of) == (2, 3)
    assert (second.record.rollback_of, second.record.first_version) == (None, 2)


@pytest.mark.parametrize("damage", ["variables/variables.index", "assets/label_map.json"])
def test_a_damaged_version_does_not_come_back(model: Path, tmp_path: Path, damage: str):
    first = push(model, tmp_path / "serving")
    push(model, tmp_path / "serving")
    Path(first.path, damage).write_bytes(b"damage")

    with pytest.raises(WorkspaceError, match=f"{first.path}: damaged"):
        republish(first, str(tmp_path / "serving"), rollback_of=2)

    assert names(tmp_path / "serving") == ["1", "2"]


def test_the_state_changes_with_what_is_blocked(model: Path, tmp_path: Path):
    serving = str(tmp_path / "serving")
    push(model, tmp_path / "serving")
    before = state(serving)

    block(serving, "fingerprint", 1, "blurred")

    assert state(serving) == f"{before},not fingerprint"


def test_whoever_changes_the_directory_keeps_others_from_doing_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.publishing.lock._TIMEOUT", 0.1)

    with serving_lock(str(tmp_path / "serving")), ThreadPoolExecutor(1) as other:
        for change in (
            lambda: push(model, tmp_path / "serving"),
            lambda: prune(str(tmp_path / "serving"), 1),
            lambda: pin(str(tmp_path / "serving"), 1),
        ):
            with pytest.raises(WorkspaceBusy, match="another process has been changing it"):
                other.submit(change).result()

    assert push(model, tmp_path / "serving").version == 1


def test_a_version_is_published_only_while_what_is_served_is_what_was_expected(model: Path, tmp_path: Path):
    serving = str(tmp_path / "serving")
    with pytest.raises(WorkspaceBusy, match=r"serving: nothing is served now, but .* when version 1 was; run again"):
        publish(str(model), serving, ["sky"], {}, expected_served=1)
    assert publish(str(model), serving, ["sky"], {}, expected_served=0).version == 1
    with pytest.raises(WorkspaceBusy, match=r"serving: version 1 is served now, but .* when nothing was; run again"):
        publish(str(model), serving, ["sky"], {}, expected_served=0)

    def overtaking() -> None:
        publish(str(model), serving, ["sky"], {}, expected_served=1)

    with pytest.raises(WorkspaceBusy, match="version 2 is served now"):
        overtaken(overtaking, serving, lambda: push(model, tmp_path / "serving"))
    assert names(tmp_path / "serving") == ["1", "2"]


def test_the_fingerprint_changes_with_any_byte_and_any_name(tmp_path: Path):
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(b"hello")
    (folder / "below/b").write_bytes(b"x")
    seen = {model_fingerprint(str(folder))}
    for position in range(5):
        changed = bytearray(b"hello")
        changed[position] ^= 1
        (folder / "a").write_bytes(changed)
        seen.add(model_fingerprint(str(folder)))
    (folder / "a").write_bytes(b"hellox")
    (folder / "below/b").write_bytes(b"")  # the same bytes in a row, cut elsewhere
    seen.add(model_fingerprint(str(folder)))
    (folder / "a").rename(folder / "c")
    seen.add(model_fingerprint(str(folder)))
    assert len(seen) == 8

    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(copy / "c", (0, 0))
    assert model_fingerprint(str(copy)) in seen


def test_a_failed_publication_leaves_nothing_behind(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(serving_directory.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        push(model, tmp_path / "serving")

    assert names(tmp_path / "serving") == []


def test_a_reader_that_publications_overtake_looks_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    serving, read = tmp_path / "serving", serving_directory._read_record
    push(model, serving)

    def overtaken(path: str) -> Record:
        monkeypatch.setattr(serving_directory, "_read_record", read)
        push(model, serving)
        assert prune(str(serving), 1) == [1]
        return read(path)

    monkeypatch.setattr(serving_directory, "_read_record", overtaken)

    assert served(str(serving)).version == 2


def publish_forever(model: Path, serving: Path) -> None:
    while True:
        push(model, serving)
        prune(str(serving), 2)


def test_a_reader_sees_only_whole_versions_while_publishers_are_killed(model: Path, tmp_path: Path):
    serving, whole = tmp_path / "serving", content(model) | EXTRA
    delay = random.Random(0)
    seen, left_over = set(), 0
    for _ in range(25):
        # A fork shares the libraries, which take long to import; publishing uses files alone.
        publisher = multiprocessing.get_context("fork").Process(
            target=publish_forever, args=(model, serving), daemon=True
        )
        publisher.start()
        deadline = time.monotonic() + delay.uniform(0.0, 0.15)
        while time.monotonic() < deadline:
            if version := served(str(serving)):
                files = content_unless_pruned(Path(version.path))
                # The two newest are never pruned, so what such a version lacks it never had.
                if served(str(serving)).version <= version.version + 1:
                    assert files.items() >= whole.items()
                    seen.add(version.version)
        publisher.kill()
        publisher.join()
        left_over += len(list(serving.glob(".staging-*")))
    assert len(seen) > 1
    assert left_over > 0, "no publisher was killed at work"
    newest = served(str(serving))
    assert newest is None or content(Path(newest.path)).items() >= whole.items()

    last = push(model, serving)

    assert last.version > max(seen)
    assert not list(serving.glob(".staging-*"))
    for version in published(str(serving)):
        assert content(Path(version.path)).items() >= whole.items()


def content_unless_pruned(folder: Path) -> dict[str, bytes]:
    try:
        return content(folder)
    except FileNotFoundError:
        return {}
