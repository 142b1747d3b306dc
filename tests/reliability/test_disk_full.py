"""A disk that is full while training, pushing, marking or backing up: a clear error, and nothing that is half done."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from components.publishing.directory import prune, publish, published
from components.publishing.pins_and_blocklist import pin, pinned
from data.errors import TEMPORARY, MetadataError
from pipeline.metadata.backup import back_up, backups, count_executions
from pipeline.metadata.store import metadata_config, open_store
from pipeline.rollback import roll_back
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line, in_process, overrides, run_arguments
from tests.pipeline.history import History
from tests.reliability.conftest import enlarge

pytestmark = pytest.mark.platform("only root can mount a file system of a given size")

SmallDisk = Callable[[Path, str], Path]


def write_model(folder: Path, size: int) -> str:
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables/variables.data-00000-of-00001").write_bytes(bytes(size))
    return str(folder)


def names(serving: Path) -> list[str]:
    return sorted(path.name for path in serving.iterdir() if path.name != ".lock")


def fill(disk: Path) -> Path:
    """Takes all room that is left; the file that does so."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left on device"):
        write_for_ever(file)
    return filler


def write_for_ever(file: BinaryIO) -> None:
    while True:
        file.write(bytes(1 << 12))


def test_a_version_that_does_not_fit_is_not_seen_and_leaves_nothing(tmp_path: Path, small_disk: SmallDisk):
    serving = small_disk(tmp_path / "disk", "1m") / "tiny"
    first = publish(write_model(tmp_path / "small", 300_000), str(serving), ["sky"], {})
    large = write_model(tmp_path / "large", 900_000)

    with pytest.raises(OSError, match=f"No space left on device: '{serving}/2'"):
        publish(large, str(serving), ["sky"], {})

    assert published(str(serving)) == [first]
    assert names(serving) == ["1"]
    enlarge(tmp_path / "disk", "4m")
    assert publish(large, str(serving), ["sky"], {}).version == 2


def test_a_rollback_that_does_not_fit_can_be_repeated(tmp_path: Path, small_disk: SmallDisk):
    serving = small_disk(tmp_path / "disk", "1m") / "tiny"
    publish(write_model(tmp_path / "a", 400_000), str(serving), ["sky"], {})
    publish(write_model(tmp_path / "b", 500_000), str(serving), ["sky"], {})

    with pytest.raises(OSError, match="No space left on device"):
        roll_back(str(serving), None)
    assert [version.version for version in published(str(serving))] == [1, 2]
    enlarge(tmp_path / "disk", "4m")

    assert roll_back(str(serving), None).record.restored_from == 1


def test_pins_stay_as_they_are_where_there_is_no_room_for_more(tmp_path: Path, small_disk: SmallDisk):
    serving = small_disk(tmp_path / "disk", "1m") / "tiny"
    for number in range(3):
        publish(write_model(tmp_path / "model", 1000 + number), str(serving), ["sky"], {})
    pin(str(serving), 1)
    filler = fill(tmp_path / "disk")

    with pytest.raises(OSError, match="No space left on device"):
        pin(str(serving), 2)

    assert pinned(str(serving)) == {1}
    assert names(serving) == ["1", "2", "3", "pins.json"]
    told = in_process("pin", "2", "--serving", str(serving.parent))
    assert (told.returncode, told.stderr) == (TEMPORARY, f"error: {serving}/pins.json: No space left on device\n")
    filler.unlink()
    assert prune(str(serving), 1) == [2]


def test_a_workspace_on_a_full_disk_is_not_held_by_who_could_not_begin(tmp_path: Path, small_disk: SmallDisk):
    root = small_disk(tmp_path / "disk", "1m") / "workspace"
    root.mkdir()
    filler, workspace = fill(tmp_path / "disk"), Workspace(root)

    with pytest.raises(OSError, match=f"No space left on device: '{root}/.lock-owner'"), workspace.locked():
        pass

    filler.unlink()
    assert workspace.holder() == ""
    with Workspace(root).locked():
        assert workspace.holder() == f"process {os.getpid()}"


def test_a_backup_that_does_not_fit_leaves_the_older_ones(tmp_path: Path, small_disk: SmallDisk):
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    small_disk(workspace.backups, "1m")
    history = History(open_store(metadata_config(workspace, MetadataConfig())), str(workspace.serving))
    history.run("run-1")
    good = back_up(workspace, keep=1)
    filler = fill(workspace.backups)

    with pytest.raises(MetadataError, match="cannot be backed up: .*full"):
        back_up(workspace, keep=1)

    filler.unlink()
    assert backups(workspace) == [good]
    assert count_executions(good) > 0


@pytest.mark.long
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    tiny_dataset: Path, tmp_path: Path, small_disk: SmallDisk
):
    workspace = tmp_path / "workspace"
    arguments = run_arguments(workspace, overrides(tiny_dataset))
    small_disk(workspace / "checkpoints", "100k")
    small_disk(workspace / "serving", "100k")

    result = command_line(*arguments)
    assert_no_space(result.stderr, workspace, "Trainer")
    enlarge(workspace / "checkpoints", "200m")
    result = command_line(*arguments)
    assert_no_space(result.stderr, workspace, "ModelPusher")
    assert not published(str(workspace / "serving/tiny"))
    assert names(workspace / "serving/tiny") == []
    enlarge(workspace / "serving", "200m")
    result = command_line(*arguments)

    assert result.returncode == 0, result.stderr
    summary = json.loads((workspace / "runs/latest/summary.json").read_text())
    assert summary["pushed_version"] == 1
    assert "Trainer" in summary["cached"]


@pytest.mark.long
def test_a_run_that_has_no_room_for_its_record_says_so(tiny_dataset: Path, tmp_path: Path, small_disk: SmallDisk):
    workspace = small_disk(tmp_path / "workspace", "600k")
    arguments = run_arguments(workspace, overrides(tiny_dataset), "--to", "StatisticsGen")

    result = command_line(*arguments)
    assert result.returncode == TEMPORARY
    assert "Traceback" not in result.stderr
    enlarge(workspace, "50m")

    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr


def assert_no_space(error: str, workspace: Path, stage: str) -> None:
    assert "No space left on device" in error
    assert "Traceback" not in error
    summary = json.loads((workspace / "runs/latest/summary.json").read_text())
    assert (summary["status"], summary["failure"]["stage"]) == ("failed", stage)
