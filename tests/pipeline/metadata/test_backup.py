"""Backups of the SQLite metadata: they are intact, few, and restored where the database was damaged."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from data.errors import MetadataError, WorkspaceError
from pipeline.doctor.workspace import check_metadata
from pipeline.metadata.backup import (
    DamagedMetadata,
    back_up,
    backups,
    count_executions,
    require_whole,
    restore,
    skip_used_ids,
)
from pipeline.metadata.store import existing_store, metadata_config, open_store
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line
from tests.pipeline.history import OUTPUTS, History

#: Executions of one run.
RUN = len(OUTPUTS)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """With metadata of one run."""
    workspace = Workspace(tmp_path)
    add_run(workspace, "run-1")
    return workspace


def add_run(workspace: Workspace, run_id: str) -> None:
    History(open_store(metadata_config(workspace, MetadataConfig())), str(workspace.serving)).run(run_id)


def damage(database: Path) -> None:
    """Overwrites the second half."""
    half = database.stat().st_size // 2
    with database.open("r+b") as file:
        file.seek(half)
        file.write(b"\xff" * half)


@contextmanager
def held(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def test_a_backup_holds_what_was_on_record_then(workspace: Workspace):
    first = back_up(workspace, keep=3)
    add_run(workspace, "run-2")
    second = back_up(workspace, keep=3)

    assert [path.name for path in (first, second)] == ["metadata-000001.sqlite", "metadata-000002.sqlite"]
    assert [count_executions(path) for path in backups(workspace)] == [RUN, 2 * RUN]
    assert sorted(path.name for path in workspace.backups.iterdir()) == [first.name, second.name]


def test_the_newest_backups_are_kept_and_numbers_go_on(workspace: Workspace):
    for _ in range(4):
        back_up(workspace, keep=2)

    assert [path.name for path in backups(workspace)] == ["metadata-000003.sqlite", "metadata-000004.sqlite"]


def test_of_a_damaged_database_there_is_no_backup_and_older_ones_stay(workspace: Workspace):
    good = back_up(workspace, keep=1)
    damage(workspace.metadata)

    with pytest.raises(MetadataError, match=r"metadata\.sqlite cannot be backed up: "):
        back_up(workspace, keep=1)

    assert list(workspace.backups.iterdir()) == [good]
    assert count_executions(good) == RUN


def test_a_database_that_is_whole_or_not_there_yet_lets_a_run_begin(workspace: Workspace, tmp_path: Path):
    require_whole(workspace)
    require_whole(Workspace(tmp_path / "new"))
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/metadata.sqlite").touch()
    assert not require_whole(Workspace(tmp_path / "killed"))


@pytest.mark.parametrize("content", [b"", b"no table"], ids=["0 bytes", "no table"])
@pytest.mark.parametrize("left", ["run", "backup"])
def test_an_empty_database_where_there_were_runs_is_damaged(workspace: Workspace, content: bytes, left: str):
    workspace.start_run("20260101-000000-000") if left == "run" else back_up(workspace, keep=1)
    workspace.metadata.write_bytes(b"")
    if content:
        with closing(sqlite3.connect(workspace.metadata)) as connection:
            connection.execute("PRAGMA user_version = 1")
    before = workspace.metadata.read_bytes()

    for look in (require_whole, lambda where: existing_store(where, MetadataConfig()), lambda where: back_up(where, 1)):
        with pytest.raises(MetadataError, match=r"metadata\.sqlite (is damaged|cannot be backed up): it is empty"):
            look(workspace)

    assert workspace.metadata.read_bytes() == before, "no reader fills it"
    assert check_metadata(workspace.metadata).status == "fail"
    if left == "backup":
        restore(workspace)
        assert count_executions(workspace.metadata) == RUN


def test_a_history_that_began_again_does_not_push_out_the_one_before(workspace: Workspace):
    back_up(workspace, keep=2)
    add_run(workspace, "run-2")
    fullest = back_up(workspace, keep=2)
    workspace.metadata.unlink()
    add_run(workspace, "run-3")

    for _ in range(4):
        back_up(workspace, keep=2)
    assert [count_executions(path) for path in backups(workspace)] == [2 * RUN, RUN, RUN]
    assert fullest in backups(workspace)

    add_run(workspace, "run-4")
    back_up(workspace, keep=2)
    assert [count_executions(path) for path in backups(workspace)] == [RUN, 2 * RUN]


def test_a_damaged_database_stops_a_run_with_what_to_do(workspace: Workspace):
    damage(workspace.metadata)

    with pytest.raises(DamagedMetadata, match=f"{workspace.metadata} is damaged: .*; move .* away and run again"):
        require_whole(workspace)
    assert not DamagedMetadata.transient
    (workspace.backups).mkdir()
    (workspace.backups / "metadata-000001.sqlite").touch()
    with pytest.raises(
        DamagedMetadata, match=f"doctor --restore {workspace.option}` restores the newest intact backup"
    ):
        require_whole(workspace)


def test_a_locked_database_is_said_to_be_locked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    back_up(workspace, keep=1)
    monkeypatch.setattr("pipeline.metadata.backup._PATIENCE", 0.1)

    with held(workspace.metadata):
        for act in (lambda: require_whole(workspace), lambda: restore(workspace)):
            with pytest.raises(MetadataError, match=r"metadata\.sqlite is locked by another program") as caught:
                act()
            assert caught.value.transient


def test_the_newest_good_backup_is_put_back_and_the_damaged_file_kept(workspace: Workspace):
    back_up(workspace, keep=3)
    add_run(workspace, "run-2")
    good = back_up(workspace, keep=3)
    damage(back_up(workspace, keep=3))
    damage(workspace.metadata)
    Path(f"{workspace.metadata}-journal").write_bytes(b"of the damaged one")
    damaged = workspace.metadata.read_bytes()

    backup, aside = restore(workspace)

    assert (backup, aside) == (good, workspace.root / "metadata.sqlite.damaged-1")
    assert aside.read_bytes() == damaged
    assert not Path(f"{workspace.metadata}-journal").exists()
    assert count_executions(workspace.metadata) == 2 * RUN
    add_run(workspace, "run-3")
    assert count_executions(good) == 2 * RUN
    assert check_metadata(workspace.metadata).status == "ok"


def test_lost_metadata_come_back_from_a_backup(workspace: Workspace):
    back_up(workspace, keep=3)
    workspace.metadata.unlink()
    check = check_metadata(workspace.metadata)
    assert (check.status, check.remedy) == (
        "fail",
        f"`python local_runner.py doctor --restore {workspace.option}` restores the newest intact backup",
    )

    assert restore(workspace) == (workspace.backups / "metadata-000001.sqlite", None)
    assert count_executions(workspace.metadata) == RUN


def test_whole_metadata_are_not_set_back(workspace: Workspace):
    back_up(workspace, keep=3)
    add_run(workspace, "run-2")

    with pytest.raises(WorkspaceError, match="is intact; nothing is restored"):
        restore(workspace)

    assert count_executions(workspace.metadata) == 2 * RUN


def test_without_a_good_backup_nothing_is_touched(workspace: Workspace):
    damage(back_up(workspace, keep=3))
    damage(workspace.metadata)
    damaged = workspace.metadata.read_bytes()

    with pytest.raises(WorkspaceError, match="contains no intact backup"):
        restore(workspace)

    assert workspace.metadata.read_bytes() == damaged


def test_the_command_restores_and_says_so(workspace: Workspace):
    back_up(workspace, keep=3)
    damage(workspace.metadata)

    result = command_line("doctor", "--restore", "--workspace", str(workspace.root))

    assert result.returncode == 0, result.stderr
    assert "restored" in result.stdout and "damaged-1" in result.stdout
    assert count_executions(workspace.metadata) == RUN
    again = command_line("doctor", "--restore", "--workspace", str(workspace.root))
    assert (again.returncode, "is intact" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (
            ["--set", "metadata.backend=mysql", "--set", "metadata.host=db"],
            "error: metadata.backend is 'mysql': .* restore database mlmd at db:3306 from the server's own backups",
        ),
        (["--set", "metadata.backend=postgres"], "metadata.backend='postgres': Input should be 'sqlite' or 'mysql'"),
        (["--config", "absent.yaml"], "error: absent.yaml: no such file"),
        (["--quick"], "--restore checks nothing"),
    ],
)
def test_what_does_not_go_with_restoring_is_refused_and_nothing_is_touched(
    workspace: Workspace, options: list[str], refusal: str
):
    back_up(workspace, keep=3)
    damage(workspace.metadata)
    damaged = workspace.metadata.read_bytes()

    result = command_line("doctor", "--restore", "--workspace", str(workspace.root), *options)

    assert result.returncode != 0
    assert re.search(refusal, result.stderr), result.stderr
    assert workspace.metadata.read_bytes() == damaged


def test_a_configuration_of_sqlite_goes_with_restoring(workspace: Workspace, tmp_path: Path):
    back_up(workspace, keep=3)
    workspace.metadata.unlink()
    config = tmp_path / "config.yaml"
    config.write_text("data: {path: '/data/span-{SPAN}', spans: {window: 2}}\nmetadata: {backend: sqlite}\n")

    result = command_line("doctor", "--restore", "--workspace", str(workspace.root), "--config", str(config))

    assert result.returncode == 0, result.stderr
    assert count_executions(workspace.metadata) == RUN


@pytest.mark.parametrize("lost", [True, False], ids=["database lost", "database older"])
def test_executions_are_numbered_above_what_lies_there(workspace: Workspace, lost: bool):
    for folder in ("Trainer/model/7", "Trainer/model/35", "Trainer/.system/executor_execution", "Trainer/model/x"):
        (workspace.artifacts / folder).mkdir(parents=True)
    if lost:
        workspace.metadata.unlink()
    open_store(metadata_config(workspace, MetadataConfig()))

    skip_used_ids(workspace)
    skip_used_ids(workspace)
    add_run(workspace, "run-2")

    store = open_store(metadata_config(workspace, MetadataConfig()))
    numbers = sorted(execution.id for execution in store.get_executions())
    assert numbers == ([] if lost else list(range(1, RUN + 1))) + list(range(36, 36 + RUN))


def test_numbers_are_never_set_back(workspace: Workspace):
    (workspace.artifacts / "Trainer/model/3").mkdir(parents=True)

    skip_used_ids(workspace)
    add_run(workspace, "run-2")

    assert count_executions(workspace.metadata) == 2 * RUN
