"""The checks of the workspace: disk space, file system, ML Metadata, schedule. Each returns a `Finding`."""

import os
import re
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import MetadataError, WorkspaceError
from pipeline.doctor.machine import GIB, Finding
from pipeline.metadata.backup import backups, count_executions, is_busy, is_closed, is_new, remedy
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.schedule.state import ScheduledRun, SchedulePlan
    from pipeline.sections.workspace import MetadataConfig

#: Artifacts contain a copy of the images as read and one as transformed, in addition to models and checkpoints.
DISK_FAIL, DISK_WARN = 1 * GIB, 5 * GIB

#: SQLite's locks, on which ML Metadata relies, are unreliable on these (sqlite.org/faq.html, question 5).
NETWORK_FILESYSTEMS = {
    *(
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
    ),
    *("smb3", "smbfs"),
}
NETWORK_FUSE = {
    f"fuse.{name}" for name in ("ceph", "ceph-fuse", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs")
}


#: The remedy for a workspace that belongs to another user.
AS_OWNER = "run this as its owner, or name another folder with --workspace"


def nearest_existing(path: Path) -> Path:
    """The path, or its nearest existing ancestor."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def check_disk(workspace: Path) -> Finding:
    """There is enough space for artifacts on the workspace's disk."""
    place = nearest_existing(workspace.absolute())
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free at {place}"
    if free >= DISK_WARN:
        return Finding("Disk", "ok", detail)
    remedy = f"free {DISK_WARN // GIB} GiB, or name a workspace on another disk with --workspace"
    return Finding("Disk", "fail" if free < DISK_FAIL else "warn", detail, remedy)


def check_writable(workspace: Path) -> Finding:
    """A file can be created in the workspace, or where the workspace would be created."""
    place = nearest_existing(workspace.absolute())
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding("Workspace", "ok", f"{place} is writable")
    except OSError as error:
        return Finding("Workspace", "fail", f"{place} cannot be written to: {error.strerror}", AS_OWNER)


def check_filesystem(workspace: Path, table: Path = Path("/proc/mounts")) -> Finding:
    """The workspace's metadata.sqlite is on a local file system, whose locks are reliable."""
    place = nearest_existing(workspace.absolute()).resolve()
    found = []
    for line in table.read_text().splitlines() if table.exists() else ():
        _, encoded, kind, *_ = line.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), encoded))  # A space is in octal.
        if place.is_relative_to(point):
            found.append((point, kind))
    if not found:
        return Finding(
            "File system", "warn", f"{table} does not say", "make sure that the workspace is on a local disk"
        )
    # The path is on the longest matching mount point, and if there are several mounts, on the last one.
    point, kind = max(reversed(found), key=lambda mount: len(mount[0].parts))
    if kind in NETWORK_FILESYSTEMS | NETWORK_FUSE:
        remedy = "name a workspace on a local disk with --workspace: SQLite's locks are not dependable on a network"
        return Finding("File system", "fail", f"{place} is on {kind} ({point})", remedy)
    return Finding("File system", "ok", f"{kind} ({point})")


def check_metadata(database: Path) -> Finding:
    """The ML Metadata database, if there is one, is intact and really is ML Metadata."""
    workspace = Workspace(database.parent)
    kept = backups(workspace)
    none_yet = Finding("ML Metadata", "ok", "no database yet: the first run makes it")
    if not database.exists():
        if kept:
            return Finding("ML Metadata", "fail", f"{database} is gone, but has backups", remedy(workspace))
        return none_yet
    try:
        executions = count_executions(database, patience=1)
    except sqlite3.Error as error:
        if is_new(error, workspace):
            return none_yet
        if is_busy(error):
            wait = "wait for the run in this workspace to end, or end the program that holds it"
            return Finding("ML Metadata", "warn", f"{database} is in use", wait)
        if is_closed(error):
            return Finding("ML Metadata", "fail", f"{database} cannot be opened by this user: {error}", AS_OWNER)
        return Finding("ML Metadata", "fail", f"{database} is damaged: {error}", remedy(workspace))
    copies = f"; {len(kept)} backups, the newest {kept[-1].name}" if kept else ""
    return Finding("ML Metadata", "ok", f"{executions} executions recorded{copies}")


def check_metadata_server(workspace: Path, config: "MetadataConfig") -> Finding:
    """The MySQL server accepts the connection of ML Metadata, which creates its tables if the database is empty."""
    from pipeline.metadata.store import PASSWORD, metadata_config, open_store, server_name

    connection = metadata_config(Workspace(workspace), config)
    try:
        runs = len(open_store(connection).get_contexts_by_type("pipeline_run"))
    except MetadataError as error:
        remedy = f"correct section metadata of the configuration, or {PASSWORD}; or start the server"
        return Finding("ML Metadata", "fail", str(error), remedy)
    return Finding("ML Metadata", "ok", f"{server_name(connection.mysql)}: {runs} runs recorded")


def check_schedule(workspace: Path, now: datetime | None = None) -> Finding:
    """The schedule of the workspace is running, and its last run did not fail."""
    from pipeline.schedule.state import schedule_lock, schedule_state

    places = Workspace(workspace)
    try:
        holder, state = schedule_lock(places).holder(), schedule_state(places)
        plan, last = state.plan, next(iter(state.last(1)), None)
    except WorkspaceError as error:
        return Finding("Schedule", "fail", *str(error).split("; ", 1))
    if not holder and (undone := _undone(plan, last, now or datetime.now(UTC))):
        again = f"start it again: `python local_runner.py schedule ... {places.option}`"
        return Finding("Schedule", "warn", f"{undone}{_ended(last)}", again)
    detail = f"{holder or 'no schedule runs'}{_ended(last)}"
    if last and last.result == "failed":
        failed = f"`python local_runner.py schedule --status {places.option}` says why"
        return Finding("Schedule", "warn", detail, failed)
    return Finding("Schedule", "ok", detail)


def _undone(plan: "SchedulePlan | None", last: "ScheduledRun | None", now: datetime) -> str:
    """What a schedule that is no longer running has left undone; empty if nothing."""
    if last and last.result == "running":
        return f"the schedule's process is gone, and run {last.id} was interrupted"
    if plan and plan.next_run and plan.next_run < now:
        return f"no schedule runs, and the run of {plan.next_run:%Y-%m-%d %H:%M %Z} was due"
    return "no schedule runs, and nobody watches for new data" if plan and plan.watch else ""


def _ended(last: "ScheduledRun | None") -> str:
    return f"; the last run ended as {last.result}" if last and last.result != "running" else ""
