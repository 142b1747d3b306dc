"""Backups of the SQLite metadata: made after each successful run, restored by `doctor --restore`.

SQLite's own backup API makes the copy, which is checked before it gets its name, so every file named
`metadata-<number>.sqlite` was intact when it was made. This module imports neither TFX nor ML Metadata.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from components.storage.atomic import flush
from data.errors import MetadataError, WorkspaceError
from pipeline.workspace import Workspace, run_folders

_NAME = re.compile(r"metadata-(\d+)\.sqlite")
#: Suffixes of the files that SQLite keeps beside a database; it would apply them to any database of the same name.
_COMPANIONS = ("-journal", "-wal", "-shm")
#: How long to wait for another program that has locked the database, in seconds.
_PATIENCE = 5.0


class DamagedMetadata(MetadataError):
    """The SQLite database is damaged; retrying does not help."""

    transient = False


@contextmanager
def _opened(database: Path, patience: float | None = None) -> Iterator[sqlite3.Connection]:
    """Connects to an existing database; may write to it, to roll back what a killed process had begun."""
    uri, timeout = f"{database.absolute().as_uri()}?mode=rw", _PATIENCE if patience is None else patience
    with closing(sqlite3.connect(uri, timeout=timeout, uri=True)) as connection:
        yield connection


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the error means that another program has locked the database."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def is_closed(error: sqlite3.Error) -> bool:
    """Whether the error means that this user lacks the permission to open the database, or to write beside it."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"))


class _EmptyDatabase(sqlite3.DatabaseError):
    """The database has no tables; SQLite treats a file of 0 bytes as such a database."""


def _count(connection: sqlite3.Connection, check: str | None = None) -> int:
    """The number of recorded executions; `check` names the pragma that examines the database before."""
    if check:
        found = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _EmptyDatabase("it is empty")
    number: int = connection.execute("SELECT count(*) FROM Execution").fetchone()[0]
    return number


def count_executions(database: Path, patience: float | None = None) -> int:
    """Counts the executions recorded in a database, and checks its integrity.

    Raises:
        sqlite3.Error: It is damaged, empty or not ML Metadata, or another program has locked it (`is_busy`).
    """
    with _opened(database, patience) as connection:
        return _count(connection, "integrity_check")


def is_new(error: sqlite3.Error, workspace: Workspace) -> bool:
    """Whether the database is empty and no run ever began, as when the first run was killed while creating it."""
    return isinstance(error, _EmptyDatabase) and not run_folders(workspace.runs) and not backups(workspace)


def require_whole(workspace: Workspace) -> bool:
    """Makes sure that the metadata of a workspace, if it has any yet, are intact.

    Returns:
        Whether the workspace has metadata.

    Raises:
        MetadataError: Another program has locked the database.
        DamagedMetadata: The database is damaged, or empty although there were runs.
        WorkspaceError: This user lacks the permission to open the database.
    """
    database = workspace.metadata
    if not database.exists():
        return False
    try:
        with _opened(database) as connection:
            _count(connection, "quick_check")
    except sqlite3.Error as error:
        if is_new(error, workspace):
            return False
        if is_busy(error):
            raise _held(database) from None
        if is_closed(error):
            raise WorkspaceError(f"ML Metadata: {database} cannot be opened by this user: {error}") from None
        raise DamagedMetadata(f"ML Metadata: {database} is damaged: {error}; {remedy(workspace)}") from None
    return True


def _held(database: Path) -> MetadataError:
    return MetadataError(f"ML Metadata: {database} is locked by another program; wait for it to end, or end it")


def remedy(workspace: Workspace) -> str:
    """The advice on what to do about a damaged database."""
    if backups(workspace):
        return f"`python local_runner.py doctor --restore {workspace.option}` restores the newest intact backup"
    return f"move {workspace.metadata} away and run again; cache and history are lost, models and reports stay"


def backups(workspace: Workspace) -> list[Path]:
    """The backups of a workspace, oldest first."""
    found = {int(match[1]): path for path in workspace.backups.glob("*") if (match := _NAME.fullmatch(path.name))}
    return [found[number] for number in sorted(found)]


def back_up(workspace: Workspace, keep: int) -> Path:
    """Copies the metadata, and removes the oldest copies until `keep` are left.

    The one with the most executions is kept in addition: a history that began again does not displace the old one.

    Returns:
        Path of the copy.

    Raises:
        MetadataError: The database cannot be copied, or is damaged; older backups stay.
    """
    workspace.backups.mkdir(exist_ok=True)
    try:
        new = _copy(workspace.metadata, workspace.backups)
    except sqlite3.Error as error:
        raise MetadataError(f"ML Metadata: {workspace.metadata} cannot be backed up: {error}") from None
    numbers = [int(_NAME.sub(r"\1", path.name)) for path in backups(workspace)]
    path = workspace.backups / f"metadata-{max(numbers, default=0) + 1:06}.sqlite"
    _put_in_place(new, path)
    kept = backups(workspace)
    executions = dict.fromkeys(kept, -1)
    for backup in kept:
        with suppress(sqlite3.Error), _opened(backup) as connection:
            executions[backup] = _count(connection)
    fullest = max(reversed(kept), key=executions.__getitem__)  # If several have as many executions, the newest is kept.
    for old in kept[:-keep]:
        if old != fullest:
            old.unlink()
    return path


def _copy(database: Path, folder: Path) -> Path:
    """Makes a checked copy under a temporary name. For a damaged original, raises sqlite3.Error, leaves no file."""
    new = folder / "new.sqlite"
    new.unlink(missing_ok=True)
    try:
        with _opened(database) as source, closing(sqlite3.connect(new)) as target:
            source.backup(target)
        count_executions(new)
    except sqlite3.Error:
        new.unlink(missing_ok=True)
        raise
    return new


def _put_in_place(new: Path, path: Path) -> None:
    flush(new)
    new.replace(path)
    flush(path.parent)


def restore(workspace: Workspace) -> tuple[Path, Path | None]:
    """Replaces damaged or lost metadata by the newest intact backup.

    Args:
        workspace: The caller holds its lock.

    Returns:
        The backup, and the path under which the damaged database is kept; None if there was no database.

    Raises:
        WorkspaceError: The metadata are intact, or there is no intact backup; nothing was changed.
        MetadataError: Another program has locked the database.
    """
    if workspace.metadata.exists():
        try:
            count_executions(workspace.metadata)
        except sqlite3.Error as error:
            if is_busy(error):
                raise _held(workspace.metadata) from None
        else:
            raise WorkspaceError(
                f"{workspace.metadata}: is intact; nothing is restored. To restore a backup nevertheless, move it away "
                "first"
            )
    for backup in reversed(backups(workspace)):
        try:
            new = _copy(backup, workspace.backups)
        except sqlite3.Error:
            continue
        damaged = _rename_damaged(workspace.metadata)
        _put_in_place(new, workspace.metadata)
        return backup, damaged
    raise WorkspaceError(f"{workspace.backups}: contains no intact backup of the metadata")


def _rename_damaged(database: Path) -> Path | None:
    """Renames a database together with the files that SQLite keeps beside it."""
    if not database.exists():
        return None
    taken = len(list(database.parent.glob(f"{database.name}.damaged-*")))
    damaged = database.with_name(f"{database.name}.damaged-{taken + 1}")
    for companion in _COMPANIONS:
        beside = Path(f"{database}{companion}")
        if beside.exists():
            beside.replace(f"{damaged}{companion}")
    return database.replace(damaged)


def skip_used_ids(workspace: Workspace) -> None:
    """Makes the ids of new executions higher than those of all executions that have left artifacts.

    Artifacts lie in folders numbered by execution, and TFX writes into a folder that exists already. So the ids must
    not start again from 1 after metadata were lost, nor be reused after a backup was restored.

    Raises:
        MetadataError: The database cannot be written to.
    """
    folders = workspace.artifacts.glob("*/*/*")
    highest = max((int(folder.name) for folder in folders if folder.name.isdecimal()), default=0)
    raise_to = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'Execution'"
    begin_at = "INSERT INTO sqlite_sequence (seq, name) VALUES (?, 'Execution')"
    try:
        with _opened(workspace.metadata) as connection, connection:
            if not connection.execute(raise_to, (highest,)).rowcount:
                connection.execute(begin_at, (highest,))
    except sqlite3.Error as error:
        raise MetadataError(f"ML Metadata: {workspace.metadata} cannot be written to: {error}") from None
